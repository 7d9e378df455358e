//! Broadcasting by the rules of numpy (ONNX "Multidirectional Broadcasting"), for any type.

use crate::eval::EvalCtx;
use fewbit_core::{Element, Error, Result, Tensor};

/// The shape that all operands broadcast to.
///
/// # Errors
/// When dimensions differ and neither is 1.
pub(crate) fn broadcast_shapes(shapes: &[&[usize]]) -> Result<Vec<usize>> {
    let rank = shapes.iter().map(|s| s.len()).max().unwrap_or(0);
    let mut out = vec![1; rank];
    for shape in shapes {
        let skip = rank - shape.len();
        for (slot, &dim) in out[skip..].iter_mut().zip(*shape) {
            *slot = match (*slot, dim) {
                (1, d) | (d, 1) => d,
                (a, b) if a == b => a,
                _ => return Err(cannot_broadcast(shapes)),
            };
        }
    }
    Ok(out)
}

fn cannot_broadcast(shapes: &[&[usize]]) -> Error {
    let list: Vec<String> = shapes.iter().map(|s| format!("{s:?}")).collect();
    Error::bad_input(format!("shapes {} cannot be broadcast together", list.join(" and ")))
        .code("FB-3203")
}

/// Element strides of a contiguous operand along each axis of `out`; 0 where it repeats.
pub(crate) fn broadcast_strides(shape: &[usize], out: &[usize]) -> Vec<usize> {
    let skip = out.len() - shape.len();
    let mut strides = vec![0; out.len()];
    let mut step = 1;
    for (axis, &dim) in shape.iter().enumerate().rev() {
        strides[axis + skip] = if dim == 1 { 0 } else { step };
        step *= dim;
    }
    strides
}

/// Walks the rows (innermost axis) of `out`: calls `row(start, offsets, steps, len)` with the
/// first output element, and where each operand begins and how far it moves per element.
pub(crate) fn for_each_row<const N: usize>(
    shapes: [&[usize]; N],
    out: &[usize],
    mut row: impl FnMut(usize, [usize; N], [usize; N], usize),
) {
    let strides = shapes.map(|s| broadcast_strides(s, out));
    let (outer, len) = match out.split_last() {
        Some((&last, outer)) => (outer, last),
        None => (out, 1),
    };
    let steps = std::array::from_fn(|i| strides[i].last().copied().unwrap_or(0));
    let rows: usize = outer.iter().product();
    let mut index = vec![0; outer.len()];
    let mut offsets = [0; N];
    for r in 0..rows {
        row(r * len, offsets, steps, len);
        advance(&mut index, outer, |axis, forward| {
            for (offset, stride) in offsets.iter_mut().zip(&strides) {
                match forward {
                    true => *offset += stride[axis],
                    false => *offset -= stride[axis] * (outer[axis] - 1),
                }
            }
        });
    }
}

/// Steps an index over `dims`, last axis fastest; tells which axes move on or start again.
pub(crate) fn advance(index: &mut [usize], dims: &[usize], mut moved: impl FnMut(usize, bool)) {
    for axis in (0..dims.len()).rev() {
        if index[axis] + 1 < dims[axis] {
            index[axis] += 1;
            moved(axis, true);
            return;
        }
        index[axis] = 0;
        moved(axis, false);
    }
}

/// `f` of each pair of broadcast elements.
///
/// # Errors
/// When the shapes cannot be broadcast, or the types are not `A` and `B`.
pub(crate) fn zip<A: Element, B: Element, Y: Element>(
    ctx: &EvalCtx,
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(A, B) -> Y,
) -> Result<Tensor> {
    let shape = broadcast_shapes(&[a.shape(), b.shape()])?;
    let (av, bv) = (a.cow::<A>()?, b.cow::<B>()?);
    ctx.output(shape.clone(), |out: &mut [Y]| {
        for_each_row([a.shape(), b.shape()], &shape, |start, [ao, bo], [astep, bstep], len| {
            for (i, y) in out[start..start + len].iter_mut().enumerate() {
                *y = f(av[ao + i * astep], bv[bo + i * bstep]);
            }
        });
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert_eq!(broadcast_shapes(&[&[2, 1], &[3]]).unwrap(), [2, 3]);
        assert_eq!(broadcast_shapes(&[&[], &[0, 1]]).unwrap(), [0, 1]);
        assert!(broadcast_shapes(&[&[2], &[3]]).is_err());
    }

    #[test]
    fn rows_visit_every_element_once() {
        let mut seen = Vec::new();
        for_each_row([&[2, 1, 2], &[3, 1]], &[2, 3, 2], |start, offsets, steps, len| {
            (0..len).for_each(|i| {
                let at = |k: usize| offsets[k] + i * steps[k];
                seen.push((start + i, at(0), at(1)));
            });
        });
        let expected = [
            (0, 0, 0),
            (1, 1, 0),
            (2, 0, 1),
            (3, 1, 1),
            (4, 0, 2),
            (5, 1, 2),
            (6, 2, 0),
            (7, 3, 0),
            (8, 2, 1),
            (9, 3, 1),
            (10, 2, 2),
            (11, 3, 2),
        ];
        assert_eq!(seen, expected);
    }
}
