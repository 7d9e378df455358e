//! The report as one page: no script, no network, readable in light and dark, and printable.

mod attempts;
mod chart;
mod layers;
mod markup;

use super::quantities::{verdict, verdict_facts};
use super::tables;
use super::{Report, Verdict};
use markup::{Escaped, embedded, table};

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
    page += &table(&tables::result(report));
    page += &messages(report);
    page += &table(&tables::in_float(report));
    page += &layers::by_loss(report);
    page += &attempts::attempts(report);
    page += &layers::cards(report);
    page += &table(&tables::reproduction(report));
    page += &format!(
        "</main>\n<script type=\"application/json\" id=\"report\">{}</script>\n</body>\n</html>\n",
        embedded(json)
    );
    page
}

fn head(report: &Report) -> String {
    let class = match report.verdict {
        Verdict::Met => "good",
        Verdict::Missed => "bad",
        Verdict::Measured | Verdict::Unmeasured => "plain",
    };
    format!(
        "<h1>{}</h1>\n<p class=\"verdict {class}\"><strong>{}</strong>: {}</p>\n",
        Escaped(&report.quantized.path),
        verdict(report.verdict),
        Escaped(&verdict_facts(report))
    )
}

fn messages(report: &Report) -> String {
    let list = |class: &str, lines: &[String]| -> String {
        lines.iter().map(|l| format!("<p class=\"{class}\">{}</p>\n", Escaped(l))).collect()
    };
    list("warning", &report.warnings) + &list("note", &report.advice)
}

#[cfg(test)]
mod tests;
