use super::*;
use fewbit_exec::kernels::{Isa, Pool};

fn methods() -> Vec<Calibration> {
    let names = ["minmax", "moving-average", "percentile", "entropy", "mse"];
    names.into_iter().map(|n| Calibration::named(n).unwrap()).collect()
}

fn observe(method: &Calibration, samples: &[Vec<f32>]) -> Box<dyn Observer> {
    let pool = Pool::single();
    let ctx = Ctx { isa: Isa::best(), pool: &pool };
    let mut observer = observer_for(method);
    samples.iter().for_each(|s| observer.update(s, ctx));
    observer
}

/// A bell of pseudo-random numbers with a few outliers at `outlier`.
fn bell(count: usize, outlier: f32) -> Vec<f32> {
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1664525).wrapping_add(1013904223);
        (state >> 8) as f32 / (1u32 << 24) as f32 - 0.5
    };
    let mut values: Vec<f32> = (0..count).map(|_| (0..6).map(|_| next()).sum()).collect();
    values.extend([outlier, -outlier]);
    values
}

#[test]
fn every_range_contains_zero_and_stays_within_what_was_seen() {
    let values = bell(20_000, 8.0);
    for method in methods() {
        let range = observe(&method, std::slice::from_ref(&values)).finish(&QuantScheme::U8_TENSOR);
        assert!(range.low <= 0.0 && range.high >= 0.0, "{method:?} {range:?}");
        assert!(range.low >= -8.0 && range.high <= 8.0, "{method:?} {range:?}");
    }
}

#[test]
fn clipping_methods_drop_far_outliers() {
    let values = bell(200_000, 40.0);
    for name in ["percentile", "mse", "entropy"] {
        let method = Calibration::named(name).unwrap();
        let range = observe(&method, std::slice::from_ref(&values)).finish(&QuantScheme::U8_TENSOR);
        assert!(range.high < 30.0, "{name} kept the outlier: {range:?}");
        assert!(range.high > 1.5, "{name} cut into the bell: {range:?}");
    }
}

#[test]
fn merging_equals_one_pass_for_every_mergeable_method() {
    let parts = [bell(5000, 3.0), bell(900, 0.7), bell(100, 100.0)];
    for method in methods() {
        if matches!(method, Calibration::MovingAverage { .. }) {
            continue;
        }
        let whole = observe(&method, &parts);
        let mut merged = observe(&method, &parts[2..]);
        merged.merge(observe(&method, &parts[..2]).as_ref()).unwrap();
        let scheme = &QuantScheme::U8_TENSOR;
        assert_eq!(merged.finish(scheme), whole.finish(scheme), "{method:?}");
    }
}

#[test]
fn observers_of_different_methods_do_not_merge() {
    let mut minmax = observer_for(&Calibration::Minmax);
    assert!(minmax.merge(observer_for(&Calibration::Mse).as_ref()).is_err());
}

#[test]
fn nothing_nan_and_infinity_give_a_usable_range() {
    for method in methods() {
        for sample in [vec![], vec![f32::NAN], vec![f32::INFINITY, 1.0, -1.0, 0.5]] {
            let range = observe(&method, &[sample]).finish(&QuantScheme::U8_TENSOR);
            assert!(range.low.is_finite() && range.high.is_finite(), "{method:?} {range:?}");
        }
    }
}

#[test]
fn the_moving_average_forgets_one_wild_sample() {
    let mut samples = vec![vec![-1.0, 1.0]; 20];
    samples[3] = vec![-1.0, 100.0];
    let method = Calibration::MovingAverage { momentum: 0.1 };
    let range = observe(&method, &samples).finish(&QuantScheme::U8_TENSOR);
    assert!(range.high < 4.0, "{range:?}");
}
