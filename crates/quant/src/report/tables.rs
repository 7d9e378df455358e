//! The tables of a report, as text cells; the text and the page draw the same ones.

use super::quantities::{
    bytes, command_line, number, percent, points, points_within, size_share, speedup,
};
use super::{LayerCard, Report};
use crate::search::Attempt;
use std::collections::BTreeMap;

/// A titled table; every row has one cell for each column.
pub(super) struct Table {
    pub title: &'static str,
    pub header: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    fn new(title: &'static str, header: &[&str]) -> Self {
        Table { title, header: header.iter().map(|h| h.to_string()).collect(), rows: Vec::new() }
    }

    fn row(&mut self, cells: &[&str]) {
        self.rows.push(cells.iter().map(|c| c.to_string()).collect());
    }
}

/// Size, accuracy, changed predictions and latency of both models.
pub(super) fn result(report: &Report) -> Table {
    let mut table = Table::new("Result", &["", "float", &report.recipe, "change"]);
    let (float, quantized) = (bytes(report.float.bytes), bytes(report.quantized.bytes));
    table.row(&["size", &float, &quantized, &format!("{:.1}%", size_share(report))]);
    accuracy(report, &mut table);
    if let Some(l) = &report.latency {
        let ms = |v: f64| if v.is_finite() { format!("{v:.3} ms") } else { String::new() };
        let ratio = speedup(report).map_or(String::new(), |r| format!("{r:.2} times as fast"));
        let name = format!("latency (median, threads: {})", l.threads);
        table.row(&[&name, &ms(l.float_ms), &ms(l.quantized_ms), &ratio]);
    }
    table
}

fn accuracy(report: &Report, table: &mut Table) {
    let Some(m) = &report.metric else {
        return;
    };
    let change = points_within(-m.drop_points, m.interval_points);
    table.row(&[&m.name, &percent(m.float), &percent(m.quantized), &change]);
    if let Some((a, b)) = m.top5 {
        table.row(&["top5", &percent(a), &percent(b), &points(100.0 * (b - a))]);
    }
    if let Some(mse) = m.mse {
        table.row(&["mean squared error", "", &format!("{mse:.3e}"), ""]);
    }
    table.row(&["changed predictions", "", &format!("{} of {}", m.flips, m.samples), ""]);
}

/// Nodes left in float, grouped by operator and reason.
pub(super) fn in_float(report: &Report) -> Table {
    let mut groups: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for layer in report.layers.iter().filter(|l| !l.quantized) {
        groups.entry((&layer.op, &layer.reason)).or_default().push(&layer.name);
    }
    let mut table = Table::new("What stayed in float", &["operator", "nodes", "because", "names"]);
    for ((op, reason), names) in groups {
        table.row(&[op, &names.len().to_string(), reason, &names.join(", ")]);
    }
    table
}

/// Measured layers, the one that lost most first.
pub(super) fn by_loss(report: &Report) -> Table {
    let header = ["layer", "operator", "computes in", "dB", "weights alone, dB", "output range"];
    let mut table = Table::new("Loss by layer, worst first", &header);
    for layer in worst_first(report) {
        let Some(db) = layer.sqnr_db else {
            continue;
        };
        let how = if layer.quantized { "int" } else { "float" };
        let alone = layer.weight_sqnr_db.map_or(String::new(), |db| format!("{db:.1}"));
        table.row(&[&layer.name, &layer.op, how, &format!("{db:.1}"), &alone, &range(layer)]);
    }
    table
}

/// The range chosen for a layer's output; empty without one.
pub(super) fn range(layer: &LayerCard) -> String {
    layer.range.map_or(String::new(), |(low, high)| format!("{} to {}", number(low), number(high)))
}

/// Worst first; layers without a figure keep their order at the end.
pub(super) fn worst_first(report: &Report) -> Vec<&LayerCard> {
    let mut layers: Vec<&LayerCard> = report.layers.iter().collect();
    let db = |l: &LayerCard| l.sqnr_db.unwrap_or(f64::INFINITY);
    layers.sort_by(|a, b| db(a).total_cmp(&db(b)));
    layers
}

/// Everything the search tried, in order.
pub(super) fn attempts(report: &Report) -> Table {
    let header =
        ["", "changed", "drop", "changed predictions", "back to float", "constants", "time", ""];
    let mut table = Table::new("What was tried", &header);
    for (i, attempt) in report.attempts.iter().enumerate() {
        table.rows.push(tried(i + 1, attempt));
    }
    table
}

fn tried(position: usize, attempt: &Attempt) -> Vec<String> {
    let c = &attempt.comparison;
    vec![
        position.to_string(),
        attempt.change.clone(),
        points_within(c.drop_points, c.interval_points),
        c.flips.to_string(),
        attempt.float_layers.to_string(),
        bytes(attempt.constant_bytes as u64),
        format!("{:.1} s", attempt.seconds),
        if attempt.kept { "kept" } else { "dropped" }.to_string(),
    ]
}

/// Command, seed, versions and hashes.
pub(super) fn reproduction(report: &Report) -> Table {
    let mut table = Table::new("How to do it again", &["", ""]);
    let r = &report.reproduce;
    table.row(&["command", &command_line(&r.command)]);
    table.row(&["fewbit", &r.fewbit]);
    table.row(&["recipe, target", &format!("{}, {}", report.recipe, report.target)]);
    table.row(&["seed", &r.seed.to_string()]);
    table.row(&["machine", &r.machine]);
    for (name, file) in [("float model", &report.float), ("quantized model", &report.quantized)] {
        table.row(&[name, &format!("{} sha256:{}", file.path, file.sha256)]);
    }
    for data in &report.data {
        let text = format!("{}, {} samples, sha256:{}", data.name, data.samples, data.sha256);
        table.row(&["data", &text]);
    }
    let s = &report.seconds;
    let times = format!(
        "load {:.2}, calibrate {:.2}, quantize {:.2}, evaluate {:.2}, total {:.2}",
        s.load, s.calibrate, s.quantize, s.evaluate, s.total
    );
    table.row(&["seconds", &times]);
    table.row(&["peak memory", &bytes(report.peak_rss_bytes)]);
    table
}
