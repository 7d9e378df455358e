//! What `quantize` and `demo` tell a person at the end.

use crate::ui::{Paint, Table, Ui, bytes, count, ms, percent, points, printable, seconds};
use fewbit::{Report, Verdict};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Layers named in the summary; the rest is counted.
const SHOWN_LAYERS: usize = 8;

pub fn show(report: &Report, reports: &[PathBuf], ui: &Ui) {
    ui.line(&ui.verdict(report.verdict, &verdict(report)));
    ui.line("");
    ui.print(&figures(report).render());
    ui.line("");
    show_layers(report, ui);
    show_attempts(report, ui);
    let s = &report.seconds;
    ui.line(&format!(
        "{} (calibrate {}, quantize {}, evaluate {}), peak memory {}",
        seconds(s.total),
        seconds(s.calibrate),
        seconds(s.quantize),
        seconds(s.evaluate),
        bytes(report.peak_rss_bytes)
    ));
    for warning in &report.warnings {
        ui.line(&format!("{}: {}", ui.paint(Paint::Bad, "warning"), printable(warning)));
    }
    report.advice.iter().for_each(|a| ui.remark(&format!("note: {}", printable(a))));
    reports.iter().for_each(|p| ui.line(&format!("report: {}", p.display())));
}

fn verdict(report: &Report) -> String {
    let size = 100.0 * report.quantized.bytes as f64 / report.float.bytes.max(1) as f64;
    let mut text = format!("{}: {size:.1}% of the size", printable(&report.quantized.path));
    if let Some(m) = &report.metric {
        text += &match m.drop_points.is_nan() {
            true => ", drop unknown".to_string(),
            false => format!(", drop {:.2} points", m.drop_points),
        };
    }
    let bound = report.max_drop_points.unwrap_or_default();
    text += &match report.verdict {
        Verdict::Met => format!(": within the bound of {bound} points"),
        Verdict::Missed => format!(": MISSES the bound of {bound} points"),
        Verdict::Measured => String::new(),
        Verdict::Unmeasured => ", accuracy not measured".to_string(),
    };
    text
}

fn figures(report: &Report) -> Table {
    let mut table = Table::new(&["", "float", &report.recipe, "change"]);
    let (float, small) = (report.float.bytes, report.quantized.bytes);
    let share = format!("{:.1}%", 100.0 * small as f64 / float.max(1) as f64);
    table.row(&["size", &bytes(float), &bytes(small), &share]);
    if let Some(m) = &report.metric {
        let change = match m.drop_points.is_nan() {
            true => "unknown".to_string(),
            false => format!("{} ± {:.2} points", signed(-m.drop_points), m.interval_points),
        };
        table.row(&[&m.name, &percent(m.float), &percent(m.quantized), &change]);
        if let Some((a, b)) = m.top5 {
            table.row(&[
                "top5",
                &percent(a),
                &percent(b),
                &format!("{} points", signed(100.0 * (b - a))),
            ]);
        }
        let flips = format!("{} of {}", count(m.flips as u64), count(m.samples as u64));
        table.row(&["changed predictions", "", &flips, ""]);
    }
    if let Some(l) = &report.latency {
        let ratio = format!("{:.2} times as fast", l.float_ms / l.quantized_ms.max(1e-9));
        table.row(&["latency", &ms(l.float_ms), &ms(l.quantized_ms), &ratio]);
    }
    table
}

/// With its sign, but without one for zero.
fn signed(value: f64) -> String {
    let text = format!("{value:+.2}");
    if text == "-0.00" || text == "+0.00" { "0.00".to_string() } else { text }
}

fn show_layers(report: &Report, ui: &Ui) {
    let quantized = report.layers.iter().filter(|l| l.quantized).count();
    ui.line(&format!("{quantized} of {} nodes quantized", report.layers.len()));
    let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for layer in report.layers.iter().filter(|l| !l.quantized) {
        reasons.entry((&layer.op, &layer.reason)).or_default().push(&layer.name);
    }
    let shown = if ui.verbose { usize::MAX } else { SHOWN_LAYERS };
    let mut table = Table::new(&["in float", "count", "because", "such as"]);
    for ((op, reason), names) in reasons.iter().take(shown) {
        table.row(&[*op, &names.len().to_string(), *reason, names[0]]);
    }
    if !table.is_empty() {
        ui.print(&table.render());
    }
    if ui.verbose {
        show_every_layer(report, ui);
    }
}

fn show_every_layer(report: &Report, ui: &Ui) {
    let mut table = Table::new(&["layer", "operator", "weights", "SQNR dB", "reason"]);
    for l in &report.layers {
        let db = l.sqnr_db.map_or(String::new(), |db| format!("{db:.1}"));
        table.row(&[&l.name, &l.op, l.weights.as_deref().unwrap_or_default(), &db, &l.reason]);
    }
    ui.print(&table.render());
}

fn show_attempts(report: &Report, ui: &Ui) {
    // One attempt that fits is the ordinary case; its figures stand above.
    if report.attempts.len() < 2 {
        return;
    }
    let mut table = Table::new(&["tried", "drop", "changed", "in float", "constants", "time", ""]);
    for a in &report.attempts {
        table.row(&[
            a.change.as_str(),
            points(a.comparison.drop_points, a.comparison.interval_points)
                .trim_end_matches(" points"),
            &count(a.comparison.flips as u64),
            &a.float_layers.to_string(),
            &bytes(a.constant_bytes as u64),
            &seconds(a.seconds),
            if a.kept { "kept" } else { "dropped" },
        ]);
    }
    ui.line("");
    ui.print(&table.render());
    ui.line("");
}
