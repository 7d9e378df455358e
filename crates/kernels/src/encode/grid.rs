//! Sets of numbers that a code can stand for, before the scale.

use super::lanes::Lanes;

/// The numbers of a code, and where the search for the scale begins.
pub(super) trait Grid: Copy {
    /// The member nearest to `t`.
    fn snap<V: Lanes>(self, t: V) -> V;
    /// What the largest element, divided by the scale, may be worth trying as.
    fn starts(self) -> &'static [[f32; 4]];
}

/// The integers `low..=high`.
#[derive(Clone, Copy)]
pub(super) struct Integers {
    pub(super) low: f32,
    pub(super) high: f32,
    pub(super) starts: &'static [[f32; 4]],
}

impl Grid for Integers {
    #[inline(always)]
    fn snap<V: Lanes>(self, t: V) -> V {
        t.clamp(V::splat(self.low), V::splat(self.high)).round()
    }

    #[inline(always)]
    fn starts(self) -> &'static [[f32; 4]] {
        self.starts
    }
}

/// The 16 numbers of IQ4_NL and IQ4_XS.
pub(super) const IQ4: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// [`IQ4`] as a grid.
#[derive(Clone, Copy)]
pub(super) struct NonLinear;

impl Grid for NonLinear {
    #[inline(always)]
    fn snap<V: Lanes>(self, t: V) -> V {
        let mut value = V::splat(f32::from(IQ4[0]));
        for pair in IQ4.windows(2) {
            let (low, high) = (f32::from(pair[0]), f32::from(pair[1]));
            let step =
                V::pick(V::splat((low + high) * 0.5).less(t), V::splat(high - low), V::zero());
            value = value + step;
        }
        value
    }

    #[inline(always)]
    fn starts(self) -> &'static [[f32; 4]] {
        &[[-127.0, -119.0, -111.0, -134.0], [113.0, 106.0, 121.0, -102.0]]
    }
}
