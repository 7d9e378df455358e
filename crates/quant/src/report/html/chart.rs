//! Drawings, as SVG inside the page.

use crate::explain::Bars;
use crate::report::quantities::number;
use std::fmt::Write;

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 80.0;

/// A histogram on a logarithmic scale, with the range that quantization covers.
pub(super) fn histogram(label: &str, bars: &Bars) -> String {
    let mut limits = String::new();
    if let Some((low, high)) = bars.chosen {
        limits += &limit(bars, low);
        limits += &limit(bars, high);
    }
    let chosen = bars.chosen.map_or(String::new(), |(low, high)| {
        format!("; quantized range {} to {}", number(low), number(high))
    });
    let caption = format!("{label}: {} to {}{chosen}", number(bars.low), number(bars.high));
    format!(
        "<figure><svg role=\"img\" aria-label=\"{caption}\" viewBox=\"-2 0 {} {}\">\
         <path class=\"bar\" d=\"{}\"/>{limits}\
         <path class=\"axis\" d=\"M0 {HEIGHT}H{WIDTH}\"/></svg>\
         <figcaption>{caption}</figcaption></figure>",
        WIDTH + 4.0,
        HEIGHT + 2.0,
        outline(bars)
    )
}

/// All bars as one path: a page of hundreds of layers must stay small.
fn outline(bars: &Bars) -> String {
    let most = bars.counts.iter().max().copied().unwrap_or(0) as f64;
    let step = WIDTH / bars.counts.len().max(1) as f64;
    let mut path = String::new();
    for (i, &count) in bars.counts.iter().enumerate().filter(|(_, c)| **c > 0) {
        // Tails of a few values decide ranges, so they must be seen.
        let height = HEIGHT * (1.0 + count as f64).ln() / (1.0 + most).ln();
        let (left, width) = (i as f64 * step, step * 0.9);
        let _ = write!(path, "M{left:.1} {HEIGHT}v-{height:.1}h{width:.1}v{height:.1}z");
    }
    path
}

/// A vertical line at an end of the range; at the border when it lies outside.
fn limit(bars: &Bars, value: f32) -> String {
    let share = (value - bars.low) as f64 / ((bars.high - bars.low) as f64).max(f64::MIN_POSITIVE);
    let x = share.clamp(0.0, 1.0) * WIDTH;
    format!("<path class=\"limit\" d=\"M{x:.1} 0V{HEIGHT}\"/>")
}

/// A horizontal bar for a ratio in decibels, 0 to 60.
pub(super) fn decibels(db: f64) -> String {
    let width = (db / 60.0).clamp(0.0, 1.0) * 100.0;
    let class = match db {
        db if db < 10.0 => "bad",
        db if db < 20.0 => "fair",
        _ => "good",
    };
    format!(
        "<span class=\"meter\"><span class=\"{class}\" style=\"width:{width:.0}%\"></span></span>"
    )
}
