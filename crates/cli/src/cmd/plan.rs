//! `fewbit plan MODEL -o plan.toml`

use crate::cmd::quantize::Choice;
use crate::exit::Outcome;
use crate::flags::check_output;
use crate::ui::{Table, Ui};
use fewbit::formats::atomic::{OutputOptions, write_file};
use fewbit::{Error, Plan, Result, ResultExt};
use std::collections::BTreeMap;
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The float model
    model: PathBuf,
    /// Where the plan goes; stdout without it
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// Replace an existing output
    #[arg(long)]
    force: bool,
    /// Print one JSON object (docs/json.md) instead of text
    #[arg(long)]
    pub json: bool,
}

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    let source = fewbit::load(&args.model)?;
    if let Some(path) = &args.output {
        check_output(path, &source.files, args.force)?;
    }
    let plan = fewbit::plan(&source.model, &args.choice.recipe()?, &args.choice.target()?)
        .at(|| args.model.display().to_string())?;
    let text = plan.to_toml()?;
    if let Some(path) = &args.output {
        let options = OutputOptions {
            inputs: source.files,
            keep_existing: !args.force,
            ..OutputOptions::default()
        };
        write_file(path, text.as_bytes(), &options)?;
    }
    if ui.json {
        ui.print_json(&serde_json::to_value(&plan).map_err(|e| Error::internal(e.to_string()))?);
    } else if args.output.is_none() {
        ui.print(&text);
    } else {
        show(&plan, args, ui);
    }
    Ok(Outcome::Done)
}

fn show(plan: &Plan, args: &Args, ui: &Ui) {
    let quantized = plan.nodes.iter().filter(|n| n.quantize).count();
    ui.line(&format!(
        "{} of {} nodes are quantized, {} activations get a scale",
        quantized,
        plan.nodes.len(),
        plan.values.len()
    ));
    let mut reasons: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for node in plan.nodes.iter().filter(|n| !n.quantize) {
        *reasons.entry((&node.op, &node.reason)).or_default() += 1;
    }
    let mut table = Table::new(&["in float", "count", "because"]);
    for ((op, reason), count) in reasons {
        table.row(&[op, &count.to_string(), reason]);
    }
    if !table.is_empty() {
        ui.print(&table.render());
    }
    let path = args.output.as_deref().unwrap_or_else(|| "plan.toml".as_ref());
    ui.line(&format!(
        "edit {} and run it: fewbit quantize {} -o OUT.onnx --plan {}{}",
        path.display(),
        args.model.display(),
        path.display(),
        args.choice.target_flag()
    ));
}
