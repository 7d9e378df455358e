//! What an encoding lost.

use super::lanes::{Lanes, Row};

/// The weighted squared error of an encoding, and the weighted squares of what was encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Loss {
    /// Sum of `weight * (x - decoded)^2`.
    pub error: f64,
    /// Sum of `weight * x^2`.
    pub signal: f64,
}

impl Loss {
    /// Both together.
    #[must_use]
    pub fn merge(self, other: Loss) -> Loss {
        Loss { error: self.error + other.error, signal: self.signal + other.signal }
    }

    /// The error relative to the signal; 0 where there is neither.
    pub fn relative(self) -> f64 {
        if self.signal > 0.0 { self.error / self.signal } else { 0.0 }
    }
}

/// Sums of a tile, lane by lane.
#[derive(Clone, Copy)]
pub(super) struct Tally<V> {
    error: V,
    signal: V,
}

impl<V: Lanes> Tally<V> {
    #[inline(always)]
    pub(super) fn new() -> Tally<V> {
        Tally { error: V::zero(), signal: V::zero() }
    }

    /// Counts `x` where it differs from what its code says by `rest`.
    #[inline(always)]
    pub(super) fn add(&mut self, weight: V, x: V, rest: V) {
        self.error = (weight * rest).fma(rest, self.error);
        self.signal = (weight * x).fma(x, self.signal);
    }

    #[inline(always)]
    pub(super) fn loss(self) -> Loss {
        Loss { error: total(self.error.row()), signal: total(self.signal.row()) }
    }
}

/// The sum of a row, lane by lane in `f64`.
#[inline(always)]
pub(super) fn total(row: Row) -> f64 {
    row.iter().map(|&x| f64::from(x)).sum()
}
