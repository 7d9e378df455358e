//! `fewbit inspect MODEL`

use super::weight_file;
use crate::exit::Outcome;
use crate::ui::{Paint, Table, Ui, bytes, count, printable};
use fewbit::{Error, Inspection, Result};
use std::path::PathBuf;

#[derive(clap::Args)]
pub struct Args {
    /// The model file: ONNX, GGUF, safetensors, or a folder of safetensors
    model: PathBuf,
    /// Print one JSON object (docs/json.md) instead of text
    #[arg(long)]
    pub json: bool,
}

/// Names of reasons in the summary; the rest is counted.
const SHOWN_REASONS: usize = 8;

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    if let Some(facts) = fewbit::inspect_weights(&args.model)? {
        return weight_file::run(&facts, ui);
    }
    let source = fewbit::load(&args.model)?;
    let facts = fewbit::inspect(&source);
    if ui.json {
        ui.print_json(&serde_json::to_value(&facts).map_err(|e| Error::internal(e.to_string()))?);
    } else {
        show(&facts, ui);
    }
    Ok(Outcome::Done)
}

fn show(facts: &Inspection, ui: &Ui) {
    ui.line(&ui.paint(Paint::Strong, &printable(&facts.path)));
    ui.print(&head(facts).render());
    ui.line("\nInputs and outputs");
    ui.print(&ports(facts).render());
    ui.line("\nOperators");
    ui.print(&operators(facts).render());
    ui.line("");
    show_running(facts, ui);
    facts.warnings.iter().for_each(|w| ui.line(&format!("warning: {}", printable(w))));
}

fn head(facts: &Inspection) -> Table {
    let opsets: Vec<String> = facts.opsets.iter().map(|(d, v)| format!("{d} {v}")).collect();
    let q = &facts.quantization;
    let quantized = match q.quantized {
        false => "no".to_string(),
        true => format!(
            "{} quantize, {} dequantize, {} integer nodes, {} in low bits",
            q.quantize_nodes,
            q.dequantize_nodes,
            q.integer_nodes,
            bytes(q.low_bit_bytes)
        ),
    };
    let mut table = Table::new(&["", ""]);
    let producer = if facts.producer.is_empty() { "not named" } else { &facts.producer };
    table.row(&[
        "format",
        &format!("ONNX, IR {}, operator sets: {}", facts.ir_version, opsets.join(", ")),
    ]);
    table.row(&["producer", producer]);
    let files = facts.files.len();
    let plural = if files == 1 { "" } else { "s" };
    table.row(&["size", &format!("{} in {files} file{plural}", bytes(facts.bytes))]);
    let weights =
        format!("{} parameters, {}", count(facts.parameters), bytes(facts.parameter_bytes));
    table.row(&["weights", &weights]);
    table.row(&["nodes", &count(facts.nodes as u64)]);
    table.row(&["quantized", &quantized]);
    table
}

fn ports(facts: &Inspection) -> Table {
    let mut table = Table::new(&["", "name", "type", "shape"]);
    let both =
        facts.inputs.iter().map(|p| ("in", p)).chain(facts.outputs.iter().map(|p| ("out", p)));
    for (direction, port) in both {
        let shape =
            port.shape.as_ref().map_or("any rank".to_string(), |s| format!("[{}]", s.join(", ")));
        table.row(&[direction, &port.name, &port.dtype, &shape]);
    }
    table
}

fn operators(facts: &Inspection) -> Table {
    let mut table = Table::new(&["operator", "count", "quantization"]);
    for op in &facts.operators {
        let name =
            if op.domain == "ai.onnx" { op.op.clone() } else { format!("{}.{}", op.domain, op.op) };
        let role = match op.role.as_str() {
            "weighted" => "int8 weights",
            "elementwise" => "computes on codes",
            "clamp" => "folded into the range before it",
            "moves" => "moves codes",
            _ if op.op.ends_with("QuantizeLinear") || op.op == "DequantizeLinear" => {
                "quantization itself"
            }
            _ if op.known && op.computes_on_codes() => "computes on codes",
            "float" => "stays in float",
            _ => "unknown to fewbit: passes through, cannot be run",
        };
        table.row(&[name.as_str(), &op.count.to_string(), role]);
    }
    table
}

fn show_running(facts: &Inspection, ui: &Ui) {
    if let Some(why) = &facts.why_not {
        ui.line(&ui.paint(Paint::Bad, &format!("cannot be run: {}", printable(why))));
        return;
    }
    let integer = facts.plan.iter().filter(|p| p.integer).count();
    ui.line(&format!("runs here: {integer} of {} nodes on integers", facts.plan.len()));
    let reasons: Vec<String> = facts
        .plan
        .iter()
        .filter_map(|p| Some(format!("  {} {}: {}", p.op, p.node, p.reason.as_ref()?)))
        .collect();
    if ui.verbose {
        let mut table = Table::new(&["node", "operator", "runs", "kernel", "reason"]);
        for p in &facts.plan {
            let how = if p.integer { "integer" } else { "float" };
            table.row(&[&p.node, &p.op, how, &p.kernel, p.reason.as_deref().unwrap_or_default()]);
        }
        ui.print(&table.render());
    } else if facts.quantization.quantized {
        reasons.iter().take(SHOWN_REASONS).for_each(|r| ui.line(&printable(r)));
        if reasons.len() > SHOWN_REASONS {
            ui.line(&format!("  and {} more: --verbose shows all", reasons.len() - SHOWN_REASONS));
        }
    }
}
