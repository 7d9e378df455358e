//! The layers: what each one lost, and where its values lie.

use super::chart::{decibels, histogram};
use super::markup::{Escaped, cell, section};
use crate::report::tables::{range, worst_first};
use crate::report::{LayerCard, Report};

/// Cards with drawings: the layers that lose most.
const DRAWN: usize = 200;

pub(super) fn by_loss(report: &Report) -> String {
    let drawn = drawn(report);
    let mut rows = Vec::new();
    for layer in worst_first(report) {
        if let Some(db) = layer.sqnr_db {
            let card = drawn.iter().position(|l| std::ptr::eq(*l, layer));
            rows.push(loss(layer, db, card));
        }
    }
    let header = [
        "layer",
        "operator",
        "computes in",
        "dB",
        "signal to quantization noise, earlier layers included",
    ]
    .map(str::to_string);
    section("Loss by layer, worst first", &header, &rows)
}

fn loss(layer: &LayerCard, db: f64, card: Option<usize>) -> String {
    let how = if layer.quantized { "int" } else { "float" };
    let name = match card {
        Some(i) => format!("<a href=\"#layer-{i}\">{}</a>", Escaped(&layer.name)),
        None => Escaped(&layer.name).to_string(),
    };
    format!(
        "<tr>{}<td>{}</td><td>{how}</td><td class=\"number\">{db:.1}</td><td>{}</td></tr>\n",
        cell(&layer.name, &name),
        Escaped(&layer.op),
        decibels(db)
    )
}

/// The layers that get a card, in the order of the cards.
fn drawn(report: &Report) -> Vec<&LayerCard> {
    let known = |l: &&LayerCard| l.weight_bars.is_some() || l.activation_bars.is_some();
    worst_first(report).into_iter().filter(known).take(DRAWN).collect()
}

pub(super) fn cards(report: &Report) -> String {
    let cards: String = drawn(report).into_iter().enumerate().map(|(i, l)| card(i, l)).collect();
    if cards.is_empty() {
        return String::new();
    }
    format!(
        "<section>\n<h2>Distributions</h2>\n<p>Counts on a logarithmic scale; the lines mark the range that the codes cover.</p>\n{cards}</section>\n"
    )
}

fn card(position: usize, layer: &LayerCard) -> String {
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
    let range = match range(layer) {
        range if range.is_empty() => range,
        range => format!(" Output codes cover {range}."),
    };
    format!(
        "<details id=\"layer-{position}\"><summary>{} <small>{}{}{alone}{loss}</small></summary>\n<p>{}.{range}</p>\n<div class=\"figures\">{figures}</div></details>\n",
        Escaped(&layer.name),
        Escaped(&layer.op),
        Escaped(&scheme),
        Escaped(layer.reason.trim_end_matches('.'))
    )
}
