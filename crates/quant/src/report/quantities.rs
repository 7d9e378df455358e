//! Numbers and names as people read them, the same in the text and on the page.

use super::{Report, Verdict};
use std::fmt::Write;

/// Characters that would move the cursor, colour a terminal or reorder a line, and so make a
/// name read as another one.
pub(super) fn deceives(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A name with every deceiving character written out.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if deceives(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Bytes with a decimal unit.
pub(super) fn bytes(n: u64) -> String {
    const UNITS: [(&str, f64); 4] = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match UNITS.iter().find(|(_, size)| n as f64 >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", n as f64 / size),
        None => format!("{n} B"),
    }
}

/// Percentage points; without a sign for zero.
pub(super) fn points(value: f64) -> String {
    let text = format!("{value:.2}");
    format!("{} points", if text == "-0.00" { "0.00" } else { &text })
}

/// Percentage points with half the width of their 95% interval, where there is one.
pub(super) fn points_within(value: f64, interval: f64) -> String {
    if !interval.is_finite() {
        return points(value);
    }
    let value = points(value);
    format!("{} ± {interval:.2} points", value.trim_end_matches(" points"))
}

/// A share of one as a percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

/// About four significant digits.
pub(super) fn number(value: f32) -> String {
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

/// A command line that a POSIX shell reads as these words.
pub(super) fn command_line(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    let quote = |word: &String| match !word.is_empty() && word.chars().all(plain) {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    words.iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// How many times as fast the quantized model is, if both were timed.
pub(super) fn speedup(report: &Report) -> Option<f64> {
    let latency = report.latency.as_ref()?;
    let ratio = latency.float_ms / latency.quantized_ms;
    ratio.is_finite().then_some(ratio)
}

/// Size of the quantized model in percent of the float one.
pub(super) fn size_share(report: &Report) -> f64 {
    100.0 * report.quantized.bytes as f64 / report.float.bytes.max(1) as f64
}

/// The verdict in a few words.
pub(super) fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Met => "within the bound",
        Verdict::Missed => "the bound is missed",
        Verdict::Measured => "measured, without a bound",
        Verdict::Unmeasured => "accuracy not measured",
    }
}

/// What the verdict rests on: size, accuracy, speed.
pub(super) fn verdict_facts(report: &Report) -> String {
    let mut facts = format!("{:.1}% of the size", size_share(report));
    if let Some(m) = &report.metric {
        let drop = points_within(m.drop_points, m.interval_points);
        let (float, quantized) = (percent(m.float), percent(m.quantized));
        let _ = write!(facts, ", {} {float} → {quantized}, a drop of {drop}", m.name);
    }
    if let Some(bound) = report.max_drop_points {
        let _ = write!(facts, " (allowed: {})", points(bound));
    }
    if let Some(ratio) = speedup(report) {
        let _ = write!(facts, ", {ratio:.2} times as fast");
    }
    facts
}
