//! The search: what was tried, as a table and as drop against size.

use super::markup::table;
use crate::report::quantities::{bytes, points};
use crate::report::{Report, tables};
use crate::search::Attempt;
use std::fmt::Write;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 180.0;
/// Room around the points for their numbers and intervals.
const MARGIN: f64 = 24.0;

pub(super) fn attempts(report: &Report) -> String {
    let mut section = table(&tables::attempts(report));
    // One point says nothing that the table does not.
    if report.attempts.len() > 1 {
        section += &scatter(&report.attempts, report.max_drop_points);
    }
    section
}

/// A scale from values to pixels.
struct Axis {
    low: f64,
    high: f64,
    pixels: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, pixels: f64) -> Self {
        let mut axis = Axis { low: f64::INFINITY, high: f64::NEG_INFINITY, pixels };
        for value in values.filter(|v| v.is_finite()) {
            axis.low = axis.low.min(value);
            axis.high = axis.high.max(value);
        }
        axis
    }

    /// The middle when all values are one.
    fn at(&self, value: f64) -> f64 {
        let span = self.high - self.low;
        let share = if span > 0.0 { (value - self.low) / span } else { 0.5 };
        MARGIN + share * (self.pixels - 2.0 * MARGIN)
    }
}

fn scatter(attempts: &[Attempt], bound: Option<f64>) -> String {
    let sizes = Axis::over(attempts.iter().map(|a| a.constant_bytes as f64), WIDTH);
    let drops = attempts.iter().map(|a| a.comparison.drop_points).chain(bound);
    let drops = Axis::over(drops, HEIGHT);
    let mut shapes = String::new();
    if let Some(bound) = bound.filter(|b| b.is_finite()) {
        let y = HEIGHT - drops.at(bound);
        let _ = write!(shapes, "<path class=\"limit\" d=\"M0 {y:.1}H{WIDTH}\"/>");
    }
    for (i, attempt) in attempts.iter().enumerate() {
        let drop = attempt.comparison.drop_points;
        if drop.is_finite() {
            let (x, y) = (sizes.at(attempt.constant_bytes as f64), HEIGHT - drops.at(drop));
            shapes += &point(i + 1, attempt.kept, x, y);
        }
    }
    let caption = format!(
        "drop ({} to {}, less is lower) against bytes of constants ({} to {}); filled: kept{}",
        points(drops.low),
        points(drops.high),
        bytes(sizes.low as u64),
        bytes(sizes.high as u64),
        if bound.is_some() { "; line: the bound" } else { "" }
    );
    format!(
        "<figure><svg class=\"wide\" role=\"img\" aria-label=\"{caption}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\">\
         <path class=\"axis\" d=\"M1 0V{}H{WIDTH}\"/>{shapes}</svg>\
         <figcaption>{caption}</figcaption></figure>\n",
        HEIGHT - 1.0
    )
}

fn point(position: usize, kept: bool, x: f64, y: f64) -> String {
    let class = if kept { "kept" } else { "tried" };
    format!(
        "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"5\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{position}</text>",
        x + 8.0,
        y + 4.0
    )
}
