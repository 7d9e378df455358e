//! One function applied to every element of a slice, on all threads.

use crate::{Ctx, Job};

/// Elements that are worth a task of their own.
const LEAST: usize = 16_384;

/// A function of one element.
pub(crate) trait Pointwise<X, Y>: Copy + Send + Sync {
    /// The result at `x`. Mark it `#[inline(always)]`.
    fn at(self, x: X) -> Y;
    /// Whether there are `x` for which [`near`](Pointwise::near) may not stand for `at`.
    const HAS_FAR: bool = false;
    /// Whether it may.
    fn is_near(self, _x: X) -> bool {
        true
    }
    /// What `at` gives, by a way that can be taken for several elements at once.
    fn near(self, x: X) -> Y {
        self.at(x)
    }
}

/// Elements that go the same way.
const BLOCK: usize = 64;

/// Whether all elements of a block are near.
#[inline(always)]
fn are_near<X: Copy, Y, F: Pointwise<X, Y>>(f: F, x: &[X]) -> bool {
    let mut near = true;
    for &x in x {
        near &= f.is_near(x);
    }
    near
}

/// `output[i] = f(input[i])`.
///
/// # Panics
/// When the lengths differ.
pub(crate) fn map<X, Y, F>(ctx: Ctx<'_>, f: F, input: &[X], output: &mut [Y])
where
    X: Copy + Sync,
    Y: Send,
    F: Pointwise<X, Y>,
{
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    let grain = ctx.pool.grain(input.len(), LEAST);
    ctx.pool.for_each_chunk(output, grain, |i, output| {
        let input = &input[i * grain..][..output.len()];
        ctx.isa.run(Map { f, input, output });
    });
}

/// `data[i] = f(data[i])`.
pub(crate) fn map_in_place<X, F>(ctx: Ctx<'_>, f: F, data: &mut [X])
where
    X: Copy + Send,
    F: Pointwise<X, X>,
{
    let grain = ctx.pool.grain(data.len(), LEAST);
    ctx.pool.for_each_chunk(data, grain, |_, data| ctx.isa.run(MapInPlace { f, data }));
}

struct Map<'a, X, Y, F> {
    f: F,
    input: &'a [X],
    output: &'a mut [Y],
}

impl<X: Copy, Y, F: Pointwise<X, Y>> Job for Map<'_, X, Y, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        if !F::HAS_FAR {
            for (y, &x) in self.output.iter_mut().zip(self.input) {
                *y = self.f.at(x);
            }
            return;
        }
        for (y, x) in self.output.chunks_mut(BLOCK).zip(self.input.chunks(BLOCK)) {
            if are_near(self.f, x) {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = self.f.near(x);
                }
            } else {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = self.f.at(x);
                }
            }
        }
    }
}

struct MapInPlace<'a, X, F> {
    f: F,
    data: &'a mut [X],
}

impl<X: Copy, F: Pointwise<X, X>> Job for MapInPlace<'_, X, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        if !F::HAS_FAR {
            for x in self.data.iter_mut() {
                *x = self.f.at(*x);
            }
            return;
        }
        for x in self.data.chunks_mut(BLOCK) {
            if are_near(self.f, x) {
                for x in x.iter_mut() {
                    *x = self.f.near(*x);
                }
            } else {
                for x in x.iter_mut() {
                    *x = self.f.at(*x);
                }
            }
        }
    }
}
