//! Numbers for people.

/// Bytes with a decimal unit.
pub fn bytes(n: u64) -> String {
    const UNITS: [(&str, f64); 4] = [("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)];
    match UNITS.iter().find(|(_, size)| n as f64 >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", n as f64 / size),
        None => format!("{n} B"),
    }
}

/// A count with groups of three digits.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A share as a percentage; NaN where outputs were not finite.
pub fn percent(share: f64) -> String {
    if share.is_nan() { "unknown".to_string() } else { format!("{:.2}%", 100.0 * share) }
}

/// A change in percentage points with half its interval; NaN where outputs were not finite.
pub fn points(change: f64, interval: f64) -> String {
    if change.is_nan() {
        "unknown".to_string()
    } else {
        format!("{change:.2} ± {interval:.2} points")
    }
}

/// Milliseconds with three significant digits or so.
pub fn ms(milliseconds: f64) -> String {
    match milliseconds {
        m if m < 1.0 => format!("{m:.4} ms"),
        m if m < 100.0 => format!("{m:.2} ms"),
        m => format!("{m:.0} ms"),
    }
}

/// Seconds.
pub fn seconds(s: f64) -> String {
    if s < 10.0 { format!("{s:.2} s") } else { format!("{s:.0} s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([count(0), count(999), count(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!([bytes(12), bytes(218_817), bytes(18_807_482)], ["12 B", "218.8 kB", "18.8 MB"]);
        assert_eq!([percent(0.996), percent(f64::NAN)], ["99.60%", "unknown"]);
        assert_eq!(points(1.0, 0.5), "1.00 ± 0.50 points");
    }
}
