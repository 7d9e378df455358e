//! Measures a function against an `f64` reference over dense samples.

/// 400,000 points from `low` to `high`, evenly spaced where the interval includes 0 or spans less
/// than a factor of 1000, evenly spaced in the logarithm otherwise.
pub(crate) fn dense(low: f32, high: f32) -> impl Iterator<Item = f32> {
    const STEPS: u32 = 400_000;
    let (low, high) = (f64::from(low), f64::from(high));
    let ratio = high / low;
    let same_side = low * high > 0.0;
    let logarithmic = same_side && !(1e-3..1e3).contains(&ratio);
    (0..=STEPS).map(move |i| {
        let t = f64::from(i) / f64::from(STEPS);
        let x = if logarithmic { low * ratio.powf(t) } else { low + (high - low) * t };
        x as f32
    })
}

/// The distance between neighbouring `f32` values at `exact`.
fn ulp(exact: f64) -> f64 {
    let exponent = exact.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    (exponent - 23.0).exp2()
}

/// Asserts that `f` is within `bound` ULP of `exact` on all points.
#[track_caller]
pub(crate) fn assert_ulp(
    name: &str,
    bound: f64,
    f: impl Fn(f32) -> f32,
    exact: impl Fn(f64) -> f64,
    points: impl Iterator<Item = f32>,
) {
    let (mut worst, mut at) = (0.0, 0.0);
    for x in points {
        let expected = exact(f64::from(x));
        let y = f(x);
        if expected.abs() > f64::from(f32::MAX) && y.abs() == f32::INFINITY {
            continue;
        }
        let error = (f64::from(y) - expected).abs() / ulp(expected);
        if error > worst || error.is_nan() {
            (worst, at) = (error, x);
        }
    }
    println!("{name}: at most {worst:.3} ULP (at {at:e})");
    assert!(worst <= bound, "{name}({at:e}) is {worst} ULP off");
}

/// Asserts that `f` is within 3e-7 of `exact`, relative to the larger of 1 and its size.
#[track_caller]
pub(crate) fn assert_close(
    name: &str,
    f: impl Fn(f32) -> f32,
    exact: impl Fn(f64) -> f64,
    points: impl Iterator<Item = f32>,
) {
    let mut worst = 0.0;
    for x in points {
        let expected = exact(f64::from(x));
        let error = (f64::from(f(x)) - expected).abs() / expected.abs().max(1.0);
        assert!(error <= 3e-7, "{name}({x:e}): {error:e} off {expected}");
        worst = f64::max(worst, error);
    }
    println!("{name}: at most {worst:.2e}");
}

/// `erf` to about 1e-15: the Taylor series near 0, a continued fraction beyond.
pub(crate) fn erf_exact(x: f64) -> f64 {
    let (t, z) = (x.abs(), x * x);
    let y = if t < 2.5 {
        let mut term = t;
        let mut sum = t;
        for k in 1..80 {
            let k = f64::from(k);
            term *= -z / k;
            sum += term / (2.0 * k + 1.0);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else {
        let fraction = (1..60).rev().fold(t, |tail, k| t + f64::from(k) / 2.0 / tail);
        1.0 - (-z).exp() / fraction / std::f64::consts::PI.sqrt()
    };
    y.copysign(x)
}

#[test]
fn erf_exact_is_exact() {
    for (x, y) in [
        (0.5, 0.520_499_877_813_046_5),
        (1.0, 0.842_700_792_949_714_9),
        (2.0, 0.995_322_265_018_952_7),
        (3.0, 0.999_977_909_503_001_4),
    ] {
        assert!((erf_exact(x) - y).abs() < 1e-13, "{x}");
    }
}
