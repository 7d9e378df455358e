//! `fewbit quantize MODEL -o OUT`

mod choice;
pub mod folder;
pub mod gguf;
pub mod summary;

pub use choice::Choice;

use crate::cmd::convert::ends_in;
use crate::exit::Outcome;
use crate::flags::{Work, check_output, points};
use crate::ui::Ui;
use fewbit::{Data, Error, QuantizeJob, Quantized, Recipe, Result, ResultExt, Samples, Source};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The float model
    model: PathBuf,
    /// Where the quantized model goes: a file, or a folder for types of Hugging Face
    #[arg(short, long, value_name = "PATH", required_unless_present = "dry_run")]
    output: Option<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// A plan of `fewbit plan`, run as it is; one for a target of yours also takes its --target
    #[arg(long, value_name = "FILE", conflicts_with_all = ["recipe", "keep_float", "calibration", "per_tensor", "symmetric", "activations"])]
    plan: Option<PathBuf>,
    /// Samples that set activation ranges, such as card.toml@0..200; for GGUF files a text (the
    /// range counts windows of 512 tokens)
    #[arg(long, value_name = "DATA")]
    calibrate: Option<String>,
    /// Samples that measure accuracy; use others than for calibration
    #[arg(long, value_name = "DATA")]
    evaluate: Option<String>,
    /// Largest accepted drop in percentage points, such as 1% or 0.5; climbs until it fits
    #[arg(long, value_name = "POINTS", value_parser = points, allow_negative_numbers = true)]
    max_drop: Option<f64>,
    /// Write a report into this folder; also measures layers and latency
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Random seed, kept in the report [default: 0]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    gguf: gguf::Flags,
    /// Replace an existing output
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub work: Work,
}

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    args.work.limit_tensors();
    if gguf::is_text_model(&args.model) {
        return gguf::run(args, ui);
    }
    // A path that leads to no model is what is wrong first; flags are looked at behind.
    let source = fewbit::load(&args.model)?;
    args.gguf.refuse()?;
    let Some(output) = &args.output else {
        return Err(Error::usage("quantizing needs --output FILE"));
    };
    if ends_in(output, "gguf") {
        return Err(Error::usage(format!("the output {} would be no GGUF file", output.display()))
            .hint("an ONNX model stays one: end the name in .onnx"));
    }
    let recipe = args.choice.recipe()?;
    if args.plan.is_none() && recipe.needs_calibration() && args.calibrate.is_none() {
        return Err(Error::usage(format!("recipe `{}` needs calibration data", recipe.name))
            .hint("add --calibrate DATA (a card, .npz or folder), or use --recipe int8-dynamic or int8-weights, which need none"));
    }
    if args.max_drop.is_some() && args.evaluate.is_none() {
        return Err(Error::usage("--max-drop needs data to measure the drop")
            .hint("add --evaluate DATA with labelled samples, or leave out --max-drop"));
    }
    check_output(output, &protected(args, &source), args.force)?;
    args.work.check_memory(&[&source.model], &[])?;
    let open = |spec: &Option<String>| spec.as_deref().map(Data::open).transpose();
    let (calibration, evaluation) = (open(&args.calibrate)?, open(&args.evaluate)?);
    let mut job = job(args, &source, recipe)?;
    job.calibration = calibration.as_ref().map(|d| d as &dyn Samples);
    job.evaluation = evaluation.as_ref().map(|d| d as &dyn Samples);
    let mut quantized = job.run(ui.progress())?;
    quantized.write(output, args.force)?;
    finish(&quantized, args.report.as_deref(), ui)
}

/// Writes the report and prints the summary; the outcome follows from the verdict.
pub fn finish(quantized: &Quantized, dir: Option<&Path>, ui: &Ui) -> Result<Outcome> {
    let reports = match dir {
        Some(dir) => fewbit::write_report(&quantized.report, dir)?,
        None => Vec::new(),
    };
    if ui.json {
        let value = serde_json::to_value(&quantized.report);
        ui.print_json(&value.map_err(|e| Error::internal(e.to_string()))?);
    } else {
        summary::show(&quantized.report, &reports, ui);
    }
    Ok(if quantized.missed() { Outcome::Missed } else { Outcome::Done })
}

fn job<'a>(args: &Args, source: &'a Source, recipe: Recipe) -> Result<QuantizeJob<'a>> {
    let mut job = QuantizeJob::new(source, recipe)?;
    job.target = args.choice.target()?;
    if let Some(path) = &args.plan {
        let plan = fewbit::read_plan(path)?;
        job.target = args.choice.target_of(&plan).at(|| path.display().to_string())?;
        job.recipe = plan.recipe.clone();
        job.plan = Some(plan);
    }
    job.max_drop = args.max_drop;
    job.threads = args.work.threads;
    job.seed = args.seed.unwrap_or(0);
    job.command = command_line();
    job.explain = args.report.is_some();
    Ok(job)
}

/// Files that the output must not replace.
fn protected(args: &Args, source: &Source) -> Vec<PathBuf> {
    let data = [&args.calibrate, &args.evaluate].into_iter().flatten();
    let cards = data.filter_map(|spec| fewbit::formats::data::DataSpec::parse(spec).ok());
    let mut files = source.files.clone();
    files.extend(cards.map(|spec| spec.path));
    files.extend(args.plan.clone());
    files
}

/// The command line, for the report.
pub fn command_line() -> Vec<String> {
    std::env::args_os().map(|a| a.to_string_lossy().into_owned()).collect()
}
