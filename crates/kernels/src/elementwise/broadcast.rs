//! Functions of two tensors whose shapes are broadcast by the rules of numpy.

use crate::{Ctx, Job};

/// Elements that are worth a task of their own.
const LEAST: usize = 16_384;

/// A function of two elements.
pub(crate) trait Pairwise<A, B, Y>: Copy + Send + Sync {
    /// The result at `(a, b)`. Mark it `#[inline(always)]`.
    fn at(self, a: A, b: B) -> Y;
}

/// An outer axis: its length, and how far each operand moves per step (0 where it is repeated).
struct Axis {
    len: usize,
    strides: [usize; 2],
}

/// Two broadcast shapes with neighbouring axes merged wherever both operands allow it. So equal
/// shapes become one row, and a bias over the last axis becomes rows of the bias' length.
struct Plan {
    /// From the innermost out.
    outer: Vec<Axis>,
    /// Length of the innermost run.
    inner: usize,
    /// Whether each operand moves along the run.
    moves: [bool; 2],
}

impl Plan {
    fn new(dims: [&[usize]; 2], out: &[usize]) -> Plan {
        let mut axes: Vec<Axis> = Vec::with_capacity(out.len());
        let mut strides = [1; 2];
        for (back, &len) in out.iter().rev().enumerate() {
            let sizes = dims.map(|d| d.len().checked_sub(back + 1).map_or(1, |i| d[i]));
            assert!(
                sizes.iter().all(|&size| size == len || size == 1),
                "{dims:?} cannot be broadcast to {out:?}"
            );
            if len != 1 {
                let moving = [0, 1].map(|i| if sizes[i] == 1 { 0 } else { strides[i] });
                push(&mut axes, len, moving);
            }
            strides = [0, 1].map(|i| strides[i] * sizes[i]);
        }
        Plan::from_axes(axes)
    }

    fn from_axes(mut axes: Vec<Axis>) -> Plan {
        if axes.is_empty() {
            let (inner, moves) = (1, [false; 2]);
            return Plan { outer: axes, inner, moves };
        }
        let first = axes.remove(0);
        Plan { outer: axes, inner: first.len, moves: first.strides.map(|s| s != 0) }
    }

    /// Where both operands begin at row `row` of the innermost runs.
    #[inline(always)]
    fn offsets(&self, row: usize) -> [usize; 2] {
        let (mut rest, mut offsets) = (row, [0; 2]);
        for axis in &self.outer {
            // A division costs as much as a short row.
            let (next, index) =
                if rest < axis.len { (0, rest) } else { (rest / axis.len, rest % axis.len) };
            offsets[0] += index * axis.strides[0];
            offsets[1] += index * axis.strides[1];
            rest = next;
        }
        offsets
    }
}

/// Adds an axis outside of `axes`, merged into the last one where both operands just run on.
fn push(axes: &mut Vec<Axis>, len: usize, strides: [usize; 2]) {
    if let Some(last) = axes.last_mut() {
        let runs_on = |i: usize| match (last.strides[i], strides[i]) {
            (0, 0) => true,
            (0, _) | (_, 0) => false,
            (inner, outer) => outer == inner * last.len,
        };
        if runs_on(0) && runs_on(1) {
            last.len *= len;
            return;
        }
    }
    axes.push(Axis { len, strides });
}

/// `out[i] = f(a[..], b[..])` with both operands broadcast to `out_dims`.
///
/// # Panics
/// When a slice is not as long as its shape says, or a shape cannot be broadcast.
pub(crate) fn zip_broadcast<A, B, Y, F>(
    ctx: Ctx<'_>,
    f: F,
    (a, a_dims): (&[A], &[usize]),
    (b, b_dims): (&[B], &[usize]),
    (out, out_dims): (&mut [Y], &[usize]),
) where
    A: Copy + Sync,
    B: Copy + Sync,
    Y: Send,
    F: Pairwise<A, B, Y>,
{
    let count = |dims: &[usize]| dims.iter().product::<usize>();
    assert_eq!(a.len(), count(a_dims), "a is not as long as its shape");
    assert_eq!(b.len(), count(b_dims), "b is not as long as its shape");
    assert_eq!(out.len(), count(out_dims), "out is not as long as its shape");
    let plan = Plan::new([a_dims, b_dims], out_dims);
    let grain = ctx.pool.grain(out.len(), LEAST);
    ctx.pool.for_each_chunk(out, grain, |i, out| {
        ctx.isa.run(Walk { plan: &plan, f, a, b, start: i * grain, out });
    });
}

/// The part of the output that begins at element `start`.
struct Walk<'a, A, B, Y, F> {
    plan: &'a Plan,
    f: F,
    a: &'a [A],
    b: &'a [B],
    start: usize,
    out: &'a mut [Y],
}

impl<A: Copy, B: Copy, Y, F: Pairwise<A, B, Y>> Job for Walk<'_, A, B, Y, F> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let inner = self.plan.inner;
        let (mut row, mut column) = (self.start / inner.max(1), self.start % inner.max(1));
        let mut rest = self.out;
        while !rest.is_empty() {
            let (run, tail) = rest.split_at_mut(rest.len().min(inner - column));
            let at = self.plan.offsets(row);
            let at = [0, 1].map(|i| at[i] + if self.plan.moves[i] { column } else { 0 });
            zip_run(self.f, &self.a[at[0]..], &self.b[at[1]..], run, self.plan.moves);
            (row, column, rest) = (row + 1, 0, tail);
        }
    }
}

/// One run: both operands move, or one repeats its first element.
#[inline(always)]
fn zip_run<A: Copy, B: Copy, Y, F: Pairwise<A, B, Y>>(
    f: F,
    a: &[A],
    b: &[B],
    out: &mut [Y],
    moves: [bool; 2],
) {
    match moves {
        [true, true] => {
            for ((y, &a), &b) in out.iter_mut().zip(a).zip(b) {
                *y = f.at(a, b);
            }
        }
        [true, false] => {
            let b = b[0];
            for (y, &a) in out.iter_mut().zip(a) {
                *y = f.at(a, b);
            }
        }
        [false, true] => {
            let a = a[0];
            for (y, &b) in out.iter_mut().zip(b) {
                *y = f.at(a, b);
            }
        }
        [false, false] => {
            for y in out {
                *y = f.at(a[0], b[0]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(a: &[usize], b: &[usize], out: &[usize]) -> (usize, [bool; 2], Vec<usize>) {
        let plan = Plan::new([a, b], out);
        (plan.inner, plan.moves, plan.outer.iter().map(|x| x.len).collect())
    }

    #[test]
    fn axes_merge() {
        let all = [2, 3, 4, 5];
        assert_eq!(shape(&all, &all, &all), (120, [true, true], vec![]));
        assert_eq!(shape(&all, &[], &all), (120, [true, false], vec![]));
        assert_eq!(shape(&all, &[5], &all), (5, [true, true], vec![24]));
        assert_eq!(shape(&all, &[4, 5], &all), (20, [true, true], vec![6]));
        assert_eq!(shape(&all, &[3, 1, 1], &all), (20, [true, false], vec![3, 2]));
        assert_eq!(shape(&[2, 1, 4, 1], &[3, 1, 5], &all), (5, [false, true], vec![4, 3, 2]));
        assert_eq!(shape(&[1, 1], &[1], &[1, 1]), (1, [false, false], vec![]));
    }

    #[test]
    #[should_panic(expected = "cannot be broadcast")]
    fn other_shapes_are_refused() {
        Plan::new([&[2], &[3]], &[3]);
    }
}
