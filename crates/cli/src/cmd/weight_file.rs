//! `fewbit inspect` of a file of weights: GGUF, safetensors, or a folder of them.

use crate::exit::Outcome;
use crate::ui::{Paint, Table, Ui, bytes, count, printable};
use fewbit::{Error, Result, WeightFileInspection};
use serde_json::Value;

/// Tensors that are listed without --verbose.
const SHOWN_TENSORS: usize = 16;

/// Characters of a value that are shown without --verbose.
const SHOWN_CHARACTERS: usize = 60;

pub fn run(facts: &WeightFileInspection, ui: &Ui) -> Result<Outcome> {
    if ui.json {
        ui.print_json(&serde_json::to_value(facts).map_err(|e| Error::internal(e.to_string()))?);
        return Ok(Outcome::Done);
    }
    ui.line(&ui.paint(Paint::Strong, &printable(&facts.path)));
    ui.print(&head(facts).render());
    section(ui, "Types", &types(facts));
    section(ui, "Metadata", &metadata(facts, ui));
    section(ui, "Configuration", &config(facts, ui));
    section(ui, "Tensors", &tensors(facts, ui));
    let left = facts.tensors.len().saturating_sub(SHOWN_TENSORS);
    if left > 0 && !ui.verbose {
        ui.line(&format!("  and {left} more: --verbose shows all"));
    }
    Ok(Outcome::Done)
}

fn section(ui: &Ui, title: &str, table: &Table) {
    if !table.is_empty() {
        ui.line(&format!("\n{title}"));
        ui.print(&table.render());
    }
}

fn head(facts: &WeightFileInspection) -> Table {
    let mut table = Table::new(&["", ""]);
    let version = facts.version.map(|v| format!(", version {v}")).unwrap_or_default();
    table.row(&["format", &format!("{}{version}", facts.format)]);
    if let Some(architecture) = &facts.architecture {
        table.row(&["architecture", architecture]);
    }
    let files = facts.files.len();
    let plural = if files == 1 { "" } else { "s" };
    table.row(&["size", &format!("{} in {files} file{plural}", bytes(facts.bytes))]);
    let weights = format!(
        "{} parameters, {}, {:.2} bits each",
        count(facts.parameters),
        bytes(facts.parameter_bytes),
        facts.bits_per_weight
    );
    table.row(&["weights", &weights]);
    table.row(&["tensors", &count(facts.tensors.len() as u64)]);
    table
}

fn types(facts: &WeightFileInspection) -> Table {
    let mut table = Table::new(&["type", "tensors", "parameters", "size"]);
    for ty in &facts.types {
        let tensors = count(ty.tensors as u64);
        table.row(&[ty.ty.as_str(), &tensors, &count(ty.parameters), &bytes(ty.bytes)]);
    }
    table
}

fn metadata(facts: &WeightFileInspection, ui: &Ui) -> Table {
    let mut table = Table::new(&["key", "value", "type"]);
    for entry in &facts.metadata {
        table.row(&[entry.key.as_str(), &text(&entry.value, ui), &entry.ty]);
    }
    table
}

fn config(facts: &WeightFileInspection, ui: &Ui) -> Table {
    let mut table = Table::new(&["key", "value"]);
    let entries = facts.config.as_ref().and_then(Value::as_object).into_iter().flatten();
    for (key, value) in entries {
        table.row(&[key.as_str(), &text(value, ui)]);
    }
    table
}

fn tensors(facts: &WeightFileInspection, ui: &Ui) -> Table {
    let mut table = Table::new(&["name", "type", "shape", "size"]);
    let most = if ui.verbose { usize::MAX } else { SHOWN_TENSORS };
    for tensor in facts.tensors.iter().take(most) {
        let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
        let shape = format!("[{}]", shape.join(", "));
        table.row(&[tensor.name.as_str(), &tensor.ty, &shape, &bytes(tensor.bytes)]);
    }
    table
}

/// A value on one line; arrays as their number of elements and the first few of them.
fn text(value: &Value, ui: &Ui) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(array) => match (array.get("count"), array.get("first")) {
            (Some(count), Some(first)) => format!("{count}: {first}"),
            _ => value.to_string(),
        },
        other => other.to_string(),
    };
    let most = if ui.verbose { usize::MAX } else { SHOWN_CHARACTERS };
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
