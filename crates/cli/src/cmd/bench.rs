//! `fewbit bench MODEL [--against B]`

use crate::exit::Outcome;
use crate::flags::{ModeFlag, Work, shape};
use crate::ui::{Table, Ui, ms, percent};
use fewbit::{Bench, BenchOptions, Error, OperatorTime, Result};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The model file
    model: PathBuf,
    /// Another model that takes turns with the first one
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// How the model is run
    #[arg(long, value_enum, default_value = "integer")]
    mode: ModeFlag,
    /// How the other model is run [default: as the first one]
    #[arg(long, value_enum, requires = "against", value_name = "MODE")]
    against_mode: Option<ModeFlag>,
    /// Shape of an input whose dimensions are open; repeatable [default: 1 for each open one]
    #[arg(long, value_name = "NAME=1,3,224,224", value_parser = shape)]
    shape: Vec<(String, Vec<usize>)>,
    /// Seconds to measure each model
    #[arg(long, default_value_t = 2.0, value_parser = duration, allow_negative_numbers = true)]
    seconds: f64,
    /// Seed of the random inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Callers that share the session, each calling again as soon as it has its answer
    #[arg(long, default_value_t = 1, conflicts_with = "against", value_parser = clap::value_parser!(u16).range(1..=256))]
    callers: u16,
    #[command(flatten)]
    pub work: Work,
}

/// Operators in the table without `--verbose`.
const SHOWN_OPERATORS: usize = 12;

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    args.work.limit_tensors();
    let repeated = |i: usize| args.shape[..i].iter().any(|(name, _)| *name == args.shape[i].0);
    if let Some(i) = (0..args.shape.len()).find(|&i| repeated(i)) {
        let name = &args.shape[i].0;
        return Err(Error::usage(format!("--shape gives input `{name}` two shapes")));
    }
    let source = fewbit::load(&args.model)?;
    let other = args.against.as_deref().map(fewbit::load).transpose()?;
    let models: Vec<_> =
        [Some(&source), other.as_ref()].into_iter().flatten().map(|s| &s.model).collect();
    args.work.check_memory(&models, &args.shape)?;
    let options = BenchOptions {
        mode: args.mode.into(),
        threads: args.work.threads,
        seconds: args.seconds,
        shapes: args.shape.clone(),
        seed: args.seed,
        callers: args.callers.into(),
        ..BenchOptions::default()
    };
    let mode = args.against_mode.unwrap_or(args.mode);
    let against = other.as_ref().map(|s| (&s.model, mode.into()));
    let result = fewbit::bench(&source.model, against, &options, ui.progress())?;
    if ui.json {
        let mut value =
            serde_json::to_value(&result).map_err(|e| Error::internal(e.to_string()))?;
        value["peak_rss_bytes"] = json!(fewbit::peak_rss_bytes());
        ui.print_json(&value);
    } else {
        show(&result, args, ui);
    }
    Ok(Outcome::Done)
}

fn show(result: &Bench, args: &Args, ui: &Ui) {
    let mut table = Table::new(&["", "median", "p90", "p99", "least"]);
    let cells = [result.median_ms, result.p90_ms, result.p99_ms, result.least_ms].map(ms);
    let name = args.model.display().to_string();
    table.row(&[std::slice::from_ref(&name), cells.as_slice()].concat());
    if let (Some(r), Some(other)) = (&result.against, &args.against) {
        table.row(&[other.display().to_string(), ms(r.against_median_ms)]);
    }
    ui.print(&table.render());
    ui.line(&format!(
        "{} runs, {:.1} a second, {} threads, {}, mode {}",
        result.runs, result.throughput_per_s, result.threads, result.isa, result.mode
    ));
    if let Some(r) = &result.against {
        ui.line(&format!(
            "ratio {:.2} (80% of turns within {:.2} to {:.2}): above 1 the first model is faster",
            r.ratio, r.ratio_low, r.ratio_high
        ));
    }
    show_slower(result, ui);
    ui.line("");
    show_operators(result, ui);
}

/// Where the time goes, and what the processor does at most.
fn show_operators(result: &Bench, ui: &Ui) {
    let shown = if ui.verbose { usize::MAX } else { SHOWN_OPERATORS };
    let mut table = Table::new(&[
        "operator", "kernel", "runs", "count", "median", "p10", "p90", "share", "GMAC/s", "of peak",
    ]);
    result.operators.iter().take(shown).for_each(|op| table.row(&cells(op)));
    ui.print(&table.render());
    if result.operators.len() > shown {
        ui.line(&format!("  and {} more: --verbose shows all", result.operators.len() - shown));
    }
    if let (Some(int8), Some(float)) = (result.peak_int8_gmacs_per_s, result.peak_float_gmacs_per_s)
    {
        ui.line(&format!(
            "peak: what bare loops of the same instructions did on as many threads between the runs, \
             {int8:.0} GMAC/s of 8-bit numbers, {float:.0} of floats"
        ));
    }
}

/// A line of the table.
fn cells(op: &OperatorTime) -> [String; 10] {
    let how = if op.integer { "integer" } else { "float" };
    let macs = if op.gmacs_per_s > 0.0 { format!("{:.1}", op.gmacs_per_s) } else { String::new() };
    let [median, low, high] = [op.ms, op.low_ms, op.high_ms].map(ms);
    [
        op.op.clone(),
        op.kernel.clone(),
        how.to_string(),
        op.count.to_string(),
        median,
        low,
        high,
        percent(op.share),
        macs,
        op.of_peak.map(percent).unwrap_or_default(),
    ]
}

/// Operators that are better left alone, in the words of a recipe.
fn show_slower(result: &Bench, ui: &Ui) {
    if result.slower.is_empty() {
        return;
    }
    ui.line("");
    ui.line("quicker in float, in the other model; a recipe keeps them there:");
    for step in &result.slower {
        ui.line("  [[keep_float]]");
        let times = format!("{}, {} in float", ms(step.ms), ms(step.against_ms));
        ui.line(&format!("  name = {:?}  # {}: {times}", step.node, step.op));
    }
}

fn duration(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected seconds".to_string())?;
    if (0.001..=3600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("expected 0.001 to 3600 seconds".to_string())
    }
}
