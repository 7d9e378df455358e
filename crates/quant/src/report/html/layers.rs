//! The layers: what stayed in float, what each one lost, and where its values lie.

use super::chart::{decibels, histogram};
use super::markup::{Escaped, row, table};
use crate::report::{LayerCard, Report};
use std::collections::BTreeMap;

/// Cards with drawings: the layers that lose most.
const DRAWN: usize = 200;

pub(super) fn in_float(report: &Report) -> String {
    let mut groups: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for layer in report.layers.iter().filter(|l| !l.quantized) {
        groups.entry((&layer.op, &layer.reason)).or_default().push(&layer.name);
    }
    let line = |((op, reason), names): (&(&str, &str), &Vec<&str>)| {
        row(&[op, &names.len().to_string(), reason, &names.join(", ")])
    };
    let rows: Vec<String> = groups.iter().map(line).collect();
    table("What stayed in float", &["operator", "nodes", "because", "names"], &rows)
}

pub(super) fn by_loss(report: &Report) -> String {
    let rows: Vec<String> = sorted(report)
        .into_iter()
        .filter_map(|l| Some((l, l.sqnr_db?)))
        .map(|(layer, db)| {
            let how = if layer.quantized { "int" } else { "float" };
            format!(
                "<tr><td>{}</td><td>{}</td><td>{how}</td><td class=\"number\">{db:.1}</td><td>{}</td></tr>\n",
                Escaped(&layer.name),
                Escaped(&layer.op),
                decibels(db)
            )
        })
        .collect();
    let header = [
        "layer",
        "operator",
        "computes in",
        "dB",
        "signal to quantization noise, earlier layers included",
    ];
    table("Loss by layer, worst first", &header, &rows)
}

pub(super) fn cards(report: &Report) -> String {
    let drawn = |l: &&LayerCard| l.weight_bars.is_some() || l.activation_bars.is_some();
    let cards: String = sorted(report).into_iter().filter(drawn).take(DRAWN).map(card).collect();
    if cards.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<h2>Distributions</h2>\n<p>Counts on a logarithmic scale; the lines mark the range that the codes cover.</p>\n{cards}</section>\n"
    )
}

fn card(layer: &LayerCard) -> String {
    let mut figures = String::new();
    if let Some(bars) = &layer.weight_bars {
        figures += &histogram("weights", bars);
    }
    if let Some(bars) = &layer.activation_bars {
        figures += &histogram("output", bars);
    }
    let scheme = layer.weights.as_ref().map_or(String::new(), |w| format!(", weights {w}"));
    let alone = layer.weight_sqnr_db.map_or(String::new(), |db| format!(" alone {db:.1} dB"));
    let loss = layer.sqnr_db.map_or(String::new(), |db| format!(", output {db:.1} dB"));
    format!(
        "<details><summary>{} <small>{}{}{alone}{loss}</small></summary>\n<p>{}</p>\n<div class=\"figures\">{figures}</div></details>\n",
        Escaped(&layer.name),
        Escaped(&layer.op),
        Escaped(&scheme),
        Escaped(&layer.reason)
    )
}

/// Worst first; layers without a figure keep their order at the end.
fn sorted(report: &Report) -> Vec<&LayerCard> {
    let mut layers: Vec<&LayerCard> = report.layers.iter().collect();
    let db = |l: &LayerCard| l.sqnr_db.unwrap_or(f64::INFINITY);
    layers.sort_by(|a, b| db(a).total_cmp(&db(b)));
    layers
}
