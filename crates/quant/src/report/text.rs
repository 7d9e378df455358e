//! The report as plain text, for terminals, logs and mails.

use super::Report;
use super::quantities::{verdict, verdict_facts, visible};
use super::tables::{self, Table};

/// A cell wider than this is not waited for by the columns behind it.
const WIDEST: usize = 48;

/// Renders the report as UTF-8 text. Control and reordering characters from names are written
/// out, so that no name can act on a terminal.
pub fn render(report: &Report) -> String {
    let mut text = format!(
        "fewbit: {}\n{}: {}\n",
        visible(&report.quantized.path),
        verdict(report.verdict),
        visible(&verdict_facts(report))
    );
    text += &draw(&tables::result(report));
    text += &messages(report);
    for table in [tables::in_float, tables::by_loss, tables::attempts, tables::reproduction] {
        text += &draw(&table(report));
    }
    text
}

fn messages(report: &Report) -> String {
    let warnings = report.warnings.iter().map(|w| format!("warning: {}\n", visible(w)));
    let notes = report.advice.iter().map(|a| format!("note: {}\n", visible(a)));
    let lines: String = warnings.chain(notes).collect();
    if lines.is_empty() { lines } else { format!("\n{lines}") }
}

/// Columns side by side under an underlined title; nothing without rows.
fn draw(table: &Table) -> String {
    if table.rows.is_empty() {
        return String::new();
    }
    let shown = |cells: &Vec<String>| cells.iter().map(|c| visible(c)).collect::<Vec<_>>();
    let mut lines: Vec<Vec<String>> = table.rows.iter().map(shown).collect();
    if table.header.iter().any(|h| !h.is_empty()) {
        lines.insert(0, shown(&table.header));
    }
    let widths: Vec<usize> = (0..table.header.len()).map(|i| width(&lines, i)).collect();
    let rule = "-".repeat(table.title.len());
    let body: String = lines.iter().map(|line| aligned(line, &widths)).collect();
    format!("\n{}\n{rule}\n{body}", table.title)
}

fn width(lines: &[Vec<String>], column: usize) -> usize {
    let lengths = lines.iter().filter_map(|l| Some(l.get(column)?.chars().count()));
    lengths.max().unwrap_or(0).min(WIDEST)
}

fn aligned(cells: &[String], widths: &[usize]) -> String {
    let padded: Vec<String> =
        cells.iter().zip(widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
    format!("{}\n", padded.join("  ").trim_end())
}
