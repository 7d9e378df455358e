//! `fewbit eval MODEL --data DATA`

use crate::exit::Outcome;
use crate::flags::{ModeFlag, Work};
use crate::ui::{Table, Ui, count, percent, seconds};
use fewbit::{Data, Error, Evaluation, Result};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// The model file
    model: PathBuf,
    /// Samples: a card, .npz, folder, ..., with an optional range such as card.toml@0..200
    #[arg(long, value_name = "DATA")]
    data: String,
    /// How the model is run
    #[arg(long, value_enum, default_value = "integer")]
    mode: ModeFlag,
    #[command(flatten)]
    pub work: Work,
}

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    args.work.limit_tensors();
    let source = fewbit::load(&args.model)?;
    args.work.check_memory(&[&source.model], &[])?;
    let data = Data::open(&args.data)?;
    let started = Instant::now();
    let result =
        fewbit::evaluate(&source.model, &data, args.mode.into(), args.work.threads, ui.progress())?;
    let took = started.elapsed().as_secs_f64();
    if ui.json {
        let mut value =
            serde_json::to_value(&result).map_err(|e| Error::internal(e.to_string()))?;
        value["seconds"] = json!(took);
        value["peak_rss_bytes"] = json!(fewbit::peak_rss_bytes());
        ui.print_json(&value);
    } else {
        show(&result, took, ui);
    }
    Ok(Outcome::Done)
}

fn show(result: &Evaluation, took: f64, ui: &Ui) {
    let mut table = Table::new(&["", ""]);
    for (name, value) in &result.metrics {
        let share = matches!(name.as_str(), "top1" | "top5" | "agreement");
        table.row(&[name, &if share { percent(*value) } else { format!("{value:.6}") }]);
    }
    ui.print(&table.render());
    ui.line(&format!(
        "{} samples in mode {}, {}",
        count(result.samples as u64),
        result.mode,
        seconds(took)
    ));
}
