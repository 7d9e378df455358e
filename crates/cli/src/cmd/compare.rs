//! `fewbit compare A B --data DATA`

use crate::exit::Outcome;
use crate::flags::{ModeFlag, Work};
use crate::ui::{Table, Ui, count, percent, points};
use fewbit::quant::explain::LayerLoss;
use fewbit::{CompareOptions, Compared, Data, Error, Result};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The first model, usually the float one
    a: PathBuf,
    /// The second model, usually the quantized one
    b: PathBuf,
    /// Samples: a card, .npz, folder, ..., with an optional range such as card.toml@0..200
    #[arg(long, value_name = "DATA")]
    data: String,
    /// How both models are run
    #[arg(long, value_enum, default_value = "integer")]
    mode: ModeFlag,
    /// Also compare the outputs of all layers that both models have
    #[arg(long)]
    per_layer: bool,
    #[command(flatten)]
    pub work: Work,
}

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    args.work.limit_tensors();
    let (a, b) = (fewbit::load(&args.a)?, fewbit::load(&args.b)?);
    args.work.check_memory(&[&a.model, &b.model], &[])?;
    let data = Data::open(&args.data)?;
    let options = CompareOptions {
        mode_a: args.mode.into(),
        mode_b: args.mode.into(),
        threads: args.work.threads,
        per_layer: args.per_layer,
    };
    let result = fewbit::compare(&a.model, &b.model, &data, options, ui.progress())?;
    if ui.json {
        ui.print_json(&serde_json::to_value(&result).map_err(|e| Error::internal(e.to_string()))?);
    } else {
        show(&result, ui);
    }
    Ok(Outcome::Done)
}

fn show(result: &Compared, ui: &Ui) {
    let m = &result.metrics;
    let mut table = Table::new(&["", "A", "B", "A - B"]);
    let d = &m.deciding;
    let drop = points(d.drop_points, d.interval_points);
    table.row(&[&d.name, &percent(d.float), &percent(d.quantized), &drop]);
    if let Some((a, b)) = d.top5 {
        table.row(&["top5", &percent(a), &percent(b), &format!("{:.2} points", 100.0 * (a - b))]);
    }
    ui.print(&table.render());
    ui.line(&format!(
        "{} of {} predictions differ (agreement {}); outputs: {}",
        count(result.flips as u64),
        count(result.samples as u64),
        percent(result.agreement),
        match m.cosine.is_nan() {
            true => INCOMPARABLE.to_string(),
            false => format!("cosine {:.6}, {}", m.cosine, decibels(m.sqnr_db, m.cosine, "SQNR ", " dB")),
        }
    ));
    d.not_finite("A", "B").iter().for_each(|warning| ui.warn(warning));
    if !result.layers.is_empty() {
        ui.line("\nLayers by signal-to-quantization-noise ratio, worst first");
        ui.print(&layers(result).render());
    }
}

/// What is said of outputs that are not finite.
const INCOMPARABLE: &str = "not comparable";

/// A ratio in decibels, or why there is none.
fn decibels(ratio: Option<f64>, cosine: f64, before: &str, behind: &str) -> String {
    match ratio {
        Some(db) => format!("{before}{db:.1}{behind}"),
        None if cosine.is_nan() => INCOMPARABLE.to_string(),
        None if cosine == 0.0 => "zeros in A alone".to_string(),
        None => "equal".to_string(),
    }
}

fn layers(result: &Compared) -> Table {
    let mut lines: Vec<_> = result.layers.iter().collect();
    lines.sort_by(|a, b| {
        let db = |l: &LayerLoss| match l.sqnr_db {
            Some(db) => db,
            // What is not finite is the worst.
            None if l.cosine.is_nan() => f64::NEG_INFINITY,
            None => f64::INFINITY,
        };
        db(a).total_cmp(&db(b))
    });
    let mut table = Table::new(&["layer", "operator", "SQNR dB", "cosine"]);
    for layer in lines {
        let db = decibels(layer.sqnr_db, layer.cosine, "", "");
        table.row(&[&layer.name, &layer.op, &db, &format!("{:.6}", layer.cosine)]);
    }
    table
}
