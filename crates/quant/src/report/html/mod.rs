//! The report as one page: no script, no network, readable in light and dark, and printable.

mod chart;
mod layers;
mod markup;

use super::{Report, Verdict};
use markup::{Escaped, bytes, points, row, table};

const STYLE: &str = include_str!("style.css");

/// Renders the page. `json` is the same report as JSON; it is kept inside the page, so that one
/// file holds everything.
pub fn render(report: &Report, json: &str) -> String {
    let title = format!("fewbit: {}", Escaped(&report.quantized.path));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n"
    );
    page += &head(report);
    page += &figures(report);
    page += &messages(report);
    page += &layers::in_float(report);
    page += &layers::by_loss(report);
    page += &attempts(report);
    page += &layers::cards(report);
    page += &reproduction(report);
    page += &format!(
        "</main>\n<script type=\"application/json\" id=\"report\">{}</script>\n</body>\n</html>\n",
        // The only way out of a script element starts with `<`.
        json.replace('<', "\\u003c")
    );
    page
}

fn head(report: &Report) -> String {
    let (class, word) = match report.verdict {
        Verdict::Met => ("good", "within the bound"),
        Verdict::Missed => ("bad", "the bound is missed"),
        Verdict::Measured => ("plain", "measured"),
        Verdict::Unmeasured => ("plain", "accuracy not measured"),
    };
    let share = 100.0 * report.quantized.bytes as f64 / report.float.bytes.max(1) as f64;
    let drop = report.metric.as_ref().map_or(String::new(), |m| {
        format!(", a drop of {} ± {}", points(m.drop_points), points(m.interval_points))
    });
    let bound =
        report.max_drop_points.map_or(String::new(), |b| format!(" (allowed: {})", points(b)));
    format!(
        "<h1>{}</h1>\n<p class=\"verdict {class}\"><strong>{word}</strong>: {share:.1}% of the size{drop}{bound}</p>\n",
        Escaped(&report.quantized.path)
    )
}

fn figures(report: &Report) -> String {
    let mut rows = vec![row(&[
        "size",
        &bytes(report.float.bytes),
        &bytes(report.quantized.bytes),
        &format!(
            "{:.1}%",
            100.0 * report.quantized.bytes as f64 / report.float.bytes.max(1) as f64
        ),
    ])];
    if let Some(m) = &report.metric {
        let percent = |share: f64| format!("{:.2}%", 100.0 * share);
        let change = format!("{} ± {}", points(-m.drop_points), points(m.interval_points));
        rows.push(row(&[&m.name, &percent(m.float), &percent(m.quantized), &change]));
        if let Some((a, b)) = m.top5 {
            rows.push(row(&["top5", &percent(a), &percent(b), &points(100.0 * (b - a))]));
        }
        let flips = format!("{} of {}", m.flips, m.samples);
        rows.push(row(&["changed predictions", "", &flips, ""]));
    }
    if let Some(l) = &report.latency {
        let ms = |v: f64| format!("{v:.3} ms");
        let ratio = format!("{:.2} times as fast", l.float_ms / l.quantized_ms.max(1e-9));
        rows.push(row(&["latency (median)", &ms(l.float_ms), &ms(l.quantized_ms), &ratio]));
    }
    table("Result", &["", "float", &report.recipe, "change"], &rows)
}

fn messages(report: &Report) -> String {
    let list = |class: &str, lines: &[String]| -> String {
        lines.iter().map(|l| format!("<p class=\"{class}\">{}</p>\n", Escaped(l))).collect()
    };
    list("warning", &report.warnings) + &list("note", &report.advice)
}

fn attempts(report: &Report) -> String {
    let line = |a: &crate::search::Attempt| {
        let c = &a.comparison;
        row(&[
            &a.change,
            &format!("{} ± {}", points(c.drop_points), points(c.interval_points)),
            &c.flips.to_string(),
            &a.float_layers.to_string(),
            &bytes(a.constant_bytes as u64),
            &format!("{:.1} s", a.seconds),
            if a.kept { "kept" } else { "dropped" },
        ])
    };
    let rows: Vec<String> = report.attempts.iter().map(line).collect();
    let header =
        ["changed", "drop", "changed predictions", "put back to float", "constants", "time", ""];
    table("What was tried", &header, &rows)
}

fn reproduction(report: &Report) -> String {
    let r = &report.reproduce;
    let mut rows = vec![
        row(&["command", &r.command.join(" ")]),
        row(&["fewbit", &r.fewbit]),
        row(&["recipe, target", &format!("{}, {}", report.recipe, report.target)]),
        row(&["seed", &r.seed.to_string()]),
        row(&["machine", &r.machine]),
        row(&["float model", &format!("{} sha256:{}", report.float.path, report.float.sha256)]),
        row(&[
            "quantized model",
            &format!("{} sha256:{}", report.quantized.path, report.quantized.sha256),
        ]),
    ];
    for data in &report.data {
        let text = format!("{}, {} samples, sha256:{}", data.name, data.samples, data.sha256);
        rows.push(row(&["data", &text]));
    }
    let s = &report.seconds;
    let times = format!(
        "load {:.2}, calibrate {:.2}, quantize {:.2}, evaluate {:.2}, total {:.2}",
        s.load, s.calibrate, s.quantize, s.evaluate, s.total
    );
    rows.push(row(&["seconds", &times]));
    rows.push(row(&["peak memory", &bytes(report.peak_rss_bytes)]));
    table("How to do it again", &["", ""], &rows)
}

#[cfg(test)]
mod tests;
