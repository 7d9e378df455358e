//! Drawings, as SVG inside the page.

use crate::explain::Bars;

const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 80.0;

/// A histogram on a logarithmic scale, with the range that quantization covers.
pub(super) fn histogram(label: &str, bars: &Bars) -> String {
    let most = bars.counts.iter().max().copied().unwrap_or(0) as f64;
    let step = WIDTH / bars.counts.len().max(1) as f64;
    let mut shapes = String::new();
    for (i, &count) in bars.counts.iter().enumerate().filter(|(_, c)| **c > 0) {
        // Tails of a few values decide ranges, so they must be seen.
        let height = HEIGHT * (1.0 + count as f64).ln() / (1.0 + most).ln();
        shapes += &format!(
            "<rect class=\"bar\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
            i as f64 * step,
            HEIGHT - height,
            step * 0.9,
            height
        );
    }
    if let Some((low, high)) = bars.chosen {
        shapes += &limit(bars, low);
        shapes += &limit(bars, high);
    }
    let chosen = bars.chosen.map_or(String::new(), |(low, high)| {
        format!("; quantized range {} to {}", number(low), number(high))
    });
    let caption = format!("{label}: {} to {}{chosen}", number(bars.low), number(bars.high));
    format!(
        "<figure><svg role=\"img\" aria-label=\"{caption}\" viewBox=\"-2 0 {} {}\">{shapes}\
         <line class=\"axis\" x1=\"0\" y1=\"{HEIGHT}\" x2=\"{WIDTH}\" y2=\"{HEIGHT}\"/></svg>\
         <figcaption>{caption}</figcaption></figure>",
        WIDTH + 4.0,
        HEIGHT + 2.0
    )
}

/// A vertical line at an end of the range; at the border when it lies outside.
fn limit(bars: &Bars, value: f32) -> String {
    let share = (value - bars.low) as f64 / ((bars.high - bars.low) as f64).max(f64::MIN_POSITIVE);
    let x = share.clamp(0.0, 1.0) * WIDTH;
    format!("<line class=\"limit\" x1=\"{x:.1}\" y1=\"0\" x2=\"{x:.1}\" y2=\"{HEIGHT}\"/>")
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

/// Four significant digits.
fn number(value: f32) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-3..1e5).contains(&magnitude) {
        return format!("{value:.2e}");
    }
    let digits = if magnitude < 1.0 {
        4
    } else if magnitude < 100.0 {
        2
    } else {
        0
    };
    format!("{value:.digits$}")
}
