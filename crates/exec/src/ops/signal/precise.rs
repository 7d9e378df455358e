//! Elementary functions in f64 from additions and multiplications alone, so that they have the
//! same bits on every machine; those of the system's library do not.

use std::f64::consts::{LN_2, PI};

/// Cosine and sine of `2 pi numerator / denominator`, which must not be 0.
pub(in crate::ops) fn turn(numerator: usize, denominator: usize) -> (f64, f64) {
    let n = denominator as u128;
    let eighths = (numerator as u128 % n) * 8;
    // The nearest quarter turn, and the rest of at most an eighth of a turn on either side.
    let quarter = (eighths + n) / (2 * n);
    let rest = (eighths as i128 - (2 * n * quarter) as i128) as f64 / (8.0 * n as f64);
    let (cos, sin) = small_angle(2.0 * PI * rest);
    match quarter % 4 {
        0 => (cos, sin),
        1 => (-sin, cos),
        2 => (-cos, -sin),
        _ => (sin, -cos),
    }
}

/// Cosine and sine by their Taylor series, for angles of at most pi / 4.
fn small_angle(angle: f64) -> (f64, f64) {
    let square = angle * angle;
    let (mut cos, mut sin) = (1.0, 1.0);
    for k in (1..=10).rev() {
        let k = f64::from(k);
        cos = 1.0 - square * cos / (2.0 * k * (2.0 * k - 1.0));
        sin = 1.0 - square * sin / (2.0 * k * (2.0 * k + 1.0));
    }
    (cos, angle * sin)
}

/// Natural logarithm of a positive, finite number.
pub(in crate::ops) fn ln(x: f64) -> f64 {
    let (mut mantissa, mut exponent) = (x, 0.0);
    while mantissa > 1.5 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    while mantissa < 0.75 {
        mantissa *= 2.0;
        exponent -= 1.0;
    }
    // ln m = 2 artanh((m - 1) / (m + 1))
    let ratio = (mantissa - 1.0) / (mantissa + 1.0);
    let square = ratio * ratio;
    let series = (0..13).rev().fold(0.0, |sum, k| sum * square + 1.0 / f64::from(2 * k + 1));
    exponent * LN_2 + 2.0 * ratio * series
}

/// Exponential function; 0 below and infinity above what f64 holds.
pub(in crate::ops) fn exp(x: f64) -> f64 {
    if !(-700.0..700.0).contains(&x) {
        return if x < 0.0 { 0.0 } else { x + f64::INFINITY };
    }
    let power = (x / LN_2).round();
    let rest = x - power * LN_2;
    let series = (1..=20).rev().fold(1.0, |sum, k| 1.0 + sum * rest / f64::from(k));
    let factor = if power < 0.0 { 0.5 } else { 2.0 };
    (0..power.abs() as u32).fold(series, |value, _| value * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_exact_as_the_library() {
        for i in 0..200 {
            let (cos, sin) = turn(i, 97);
            let angle = 2.0 * PI * (i % 97) as f64 / 97.0;
            assert!((cos - angle.cos()).abs() < 1e-15 && (sin - angle.sin()).abs() < 1e-15);
            let x = 1e-6 * 1.2f64.powi(i as i32);
            assert!((ln(x) - x.ln()).abs() < 1e-14 * x.ln().abs().max(1.0), "{x}");
            let y = i as f64 - 99.5;
            assert!((exp(y) / y.exp() - 1.0).abs() < 1e-13, "{y}");
        }
    }

    #[test]
    fn whole_quarters_are_exact() {
        assert_eq!([0, 1, 2, 3, 4].map(|k| turn(k, 4).0), [1.0, 0.0, -1.0, 0.0, 1.0]);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
    }
}
