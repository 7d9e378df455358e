//! Accumulation in 16 virtual lanes.

use crate::math;

/// How many lanes, on every instruction set.
pub(crate) const LANES: usize = 16;

/// A way to accumulate numbers. Mark all methods `#[inline(always)]`.
pub(crate) trait Fold: Copy + Send + Sync {
    /// Whether `step` wants the maximum as its `shift`.
    const SHIFTED: bool = false;
    /// An empty lane.
    const START: f32;
    /// A lane with one more number.
    fn step(lane: f32, x: f32, shift: f32) -> f32;
    /// Two lanes as one.
    fn join(a: f32, b: f32) -> f32;
    /// The result for `len` numbers.
    fn finish(total: f32, _len: usize, _shift: f32) -> f32 {
        total
    }
}

/// One row per fold: name, empty lane, step, join, and what becomes of the total.
macro_rules! folds {
    ($($name:ident $start:tt |$lane:ident, $x:ident| $step:expr, $join:path,
       |$total:ident, $len:ident| $finish:expr;)*) => {$(
        #[derive(Clone, Copy)]
        pub(crate) struct $name;

        impl Fold for $name {
            const START: f32 = $start;
            #[inline(always)]
            fn step($lane: f32, $x: f32, _shift: f32) -> f32 {
                $step
            }
            #[inline(always)]
            fn join(a: f32, b: f32) -> f32 {
                $join(a, b)
            }
            #[inline(always)]
            fn finish($total: f32, $len: usize, _shift: f32) -> f32 {
                $finish
            }
        }
    )*};
}

folds! {
    SumFold 0.0 |lane, x| lane + x, add, |total, _len| total;
    MeanFold 0.0 |lane, x| lane + x, add, |total, len| total / len as f32;
    ProdFold 1.0 |lane, x| lane * x, multiply, |total, _len| total;
    L1Fold 0.0 |lane, x| lane + x.abs(), add, |total, _len| total;
    L2Fold 0.0 |lane, x| x.mul_add(x, lane), add, |total, _len| total.sqrt();
    SumSquareFold 0.0 |lane, x| x.mul_add(x, lane), add, |total, _len| total;
    LogSumFold 0.0 |lane, x| lane + x, add, |total, _len| math::log(total);
    MaxFold (f32::NEG_INFINITY) |lane, x| math::max(lane, x), math::max, |total, _len| total;
    MinFold (f32::INFINITY) |lane, x| math::min(lane, x), math::min, |total, _len| total;
}

#[inline(always)]
fn add(a: f32, b: f32) -> f32 {
    a + b
}

#[inline(always)]
fn multiply(a: f32, b: f32) -> f32 {
    a * b
}

/// The logarithm of the sum of exponentials.
#[derive(Clone, Copy)]
pub(crate) struct LogSumExpFold;

impl Fold for LogSumExpFold {
    const SHIFTED: bool = true;
    const START: f32 = 0.0;
    #[inline(always)]
    fn step(lane: f32, x: f32, shift: f32) -> f32 {
        lane + math::exp(x - shift)
    }
    #[inline(always)]
    fn join(a: f32, b: f32) -> f32 {
        a + b
    }
    #[inline(always)]
    fn finish(total: f32, _len: usize, shift: f32) -> f32 {
        // An infinite maximum decides alone; the differences to it are NaN.
        if shift.abs() == f32::INFINITY { shift } else { math::log(total) + shift }
    }
}

/// The fixed tree.
#[inline(always)]
pub(crate) fn tree(mut lanes: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] = join(lanes[lane], lanes[lane + half]);
        }
        half /= 2;
    }
    lanes[0]
}

/// The joined lanes of a contiguous row.
#[inline(always)]
pub(crate) fn lanes<F: Fold>(x: &[f32], shift: f32) -> f32 {
    let mut acc = [F::START; LANES];
    let (rows, rest) = x.as_chunks::<LANES>();
    for row in rows {
        for (lane, &x) in acc.iter_mut().zip(row) {
            *lane = F::step(*lane, x, shift);
        }
    }
    for (lane, &x) in acc.iter_mut().zip(rest) {
        *lane = F::step(*lane, x, shift);
    }
    tree(acc, F::join)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_is_fixed() {
        let text = std::cell::RefCell::new(Vec::new());
        let lanes = std::array::from_fn(|i| i as f32);
        let sum = tree(lanes, |a, b| {
            text.borrow_mut().push((a, b));
            a + b
        });
        assert_eq!(sum, 120.0);
        assert_eq!(text.borrow()[0], (0.0, 8.0));
        assert_eq!(text.borrow()[8], (0.0 + 8.0, 4.0 + 12.0));
        assert_eq!(text.borrow().len(), 15);
    }
}
