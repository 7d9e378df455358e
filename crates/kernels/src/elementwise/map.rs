//! One function applied to every element of a slice, on all threads.

use crate::{Ctx, Job};

/// Elements that are worth a task of their own.
const LEAST: usize = 16_384;

/// A function of one element.
pub(crate) trait Pointwise<X, Y>: Copy + Send + Sync {
    /// The result at `x`. Mark it `#[inline(always)]`.
    fn at(self, x: X) -> Y;
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
        for (y, &x) in self.output.iter_mut().zip(self.input) {
            *y = self.f.at(x);
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
        for x in self.data.iter_mut() {
            *x = self.f.at(*x);
        }
    }
}
