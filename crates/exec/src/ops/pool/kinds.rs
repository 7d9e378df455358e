//! The accumulators of the pools.

use super::slide::Accumulate;
use fewbit_kernels::reduce::{largest_f32, largest_i8, largest_u8};
use fewbit_kernels::{Isa, math};

/// The largest element; where there is none, the smallest number of the type.
pub(crate) struct Max;

macro_rules! max_of {
    ($($ty:ty => $lowest:expr $(, $kernel:ident)?;)*) => { $(
        impl Accumulate<$ty, $ty> for Max {
            type State = $ty;
            const START: $ty = $lowest;
            #[inline(always)]
            fn add(&self, state: &mut $ty, value: $ty, _position: usize) {
                *state = if value > *state { value } else { *state };
            }
            #[inline(always)]
            fn finish(&self, state: $ty, _count: usize) -> $ty {
                state
            }
            $(
                fn whole(&self, isa: Isa, x: &[$ty], pixels: &[usize], out: &mut [$ty]) -> bool {
                    $kernel(isa, x, pixels, out);
                    true
                }
            )?
        }
    )* };
}
max_of! {
    f32 => f32::NEG_INFINITY, largest_f32;
    f64 => f64::NEG_INFINITY;
    u8 => 0, largest_u8;
    i8 => -128, largest_i8;
}

/// Position of the largest element in its image, the first one of equals.
pub(crate) struct ArgMax;

impl Accumulate<f64, i64> for ArgMax {
    type State = (f64, i64);
    const START: (f64, i64) = (f64::NEG_INFINITY, -1);
    fn add(&self, state: &mut (f64, i64), value: f64, position: usize) {
        if value > state.0 || state.1 < 0 {
            *state = (value, position as i64);
        }
    }
    fn finish(&self, state: (f64, i64), _count: usize) -> i64 {
        state.1.max(0)
    }
}

/// The arithmetic mean.
pub(crate) struct Mean;

impl Accumulate<f32, f32> for Mean {
    type State = f32;
    const START: f32 = 0.0;
    #[inline(always)]
    fn add(&self, state: &mut f32, value: f32, _position: usize) {
        *state += value;
    }
    #[inline(always)]
    fn finish(&self, state: f32, count: usize) -> f32 {
        state / count as f32
    }
}

/// The p-norm.
pub(crate) struct Norm {
    pub p: f32,
}

impl Accumulate<f32, f32> for Norm {
    type State = f32;
    const START: f32 = 0.0;
    fn add(&self, state: &mut f32, value: f32, _position: usize) {
        *state += match self.p {
            1.0 => value.abs(),
            2.0 => value * value,
            p => math::pow(value.abs(), p),
        };
    }
    fn finish(&self, state: f32, _count: usize) -> f32 {
        match self.p {
            1.0 => state,
            2.0 => state.sqrt(),
            p => math::pow(state, 1.0 / p),
        }
    }
}
