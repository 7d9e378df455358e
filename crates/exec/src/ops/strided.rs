//! Copies between strided views: what transposing, slicing, padding, tiling, expanding,
//! concatenating and splitting have in common.

use super::movement::by_size;

/// One dimension of a copy: its size and how far a step moves in the output and in the input,
/// in elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Axis {
    pub size: usize,
    pub out: isize,
    pub input: isize,
}

/// Row-major strides of a shape, in elements. Shapes with a zero have meaningless strides.
pub(crate) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].wrapping_mul(shape[axis] as isize);
    }
    strides
}

/// Pairs sizes with output and input strides.
pub(crate) fn axes(sizes: &[usize], out: &[isize], input: &[isize]) -> Vec<Axis> {
    let steps = out.iter().zip(input);
    sizes.iter().zip(steps).map(|(&size, (&out, &input))| Axis { size, out, input }).collect()
}

/// Copies elements of `size` bytes from `input`, starting at element `input_start`, to `out`,
/// starting at element `out_start`. All positions that the axes reach must lie inside.
pub(crate) fn copy(
    size: usize,
    (out, out_start): (&mut [u8], usize),
    (input, input_start): (&[u8], usize),
    axes: &[Axis],
) {
    if axes.iter().any(|a| a.size == 0) {
        return;
    }
    let axes = collapse(axes);
    by_size!(size, walk(out, out_start as isize, input, input_start as isize, &axes));
}

/// Drops axes of size 1 and joins neighbours that are one run in both views.
fn collapse(axes: &[Axis]) -> Vec<Axis> {
    let mut joined: Vec<Axis> = Vec::with_capacity(axes.len().max(1));
    for &axis in axes.iter().filter(|a| a.size != 1) {
        match joined.last_mut() {
            Some(last)
                if last.out == axis.out * axis.size as isize
                    && last.input == axis.input * axis.size as isize =>
            {
                *last = Axis { size: last.size * axis.size, ..axis };
            }
            _ => joined.push(axis),
        }
    }
    if joined.is_empty() {
        joined.push(Axis { size: 1, out: 1, input: 1 });
    }
    joined
}

fn walk<const N: usize>(out: &mut [u8], o: isize, input: &[u8], i: isize, axes: &[Axis]) {
    let (out, _) = out.as_chunks_mut::<N>();
    let (input, _) = input.as_chunks::<N>();
    nested(out, o, input, i, axes);
}

fn nested<const N: usize>(
    out: &mut [[u8; N]],
    mut o: isize,
    input: &[[u8; N]],
    mut i: isize,
    axes: &[Axis],
) {
    let (axis, inner) = (axes[0], &axes[1..]);
    if inner.is_empty() {
        return run(out, o, input, i, axis);
    }
    for _ in 0..axis.size {
        nested(out, o, input, i, inner);
        o += axis.out;
        i += axis.input;
    }
}

fn run<const N: usize>(
    out: &mut [[u8; N]],
    mut o: isize,
    input: &[[u8; N]],
    mut i: isize,
    axis: Axis,
) {
    let at = o as usize;
    match (axis.out, axis.input) {
        (1, 1) => out[at..at + axis.size].copy_from_slice(&input[i as usize..][..axis.size]),
        (1, 0) => out[at..at + axis.size].fill(input[i as usize]),
        _ => {
            for _ in 0..axis.size {
                out[o as usize] = input[i as usize];
                o += axis.out;
                i += axis.input;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contiguous_axes_become_one_run() {
        let all = axes(&[2, 3, 4], &strides(&[2, 3, 4]), &strides(&[2, 3, 4]));
        assert_eq!(collapse(&all), [Axis { size: 24, out: 1, input: 1 }]);
    }

    #[test]
    fn a_transposition_copies_by_columns() {
        let input: Vec<u8> = (0..6).collect();
        let mut out = [0; 6];
        let axes = axes(&[3, 2], &strides(&[3, 2]), &[1, 3]);
        copy(1, (&mut out, 0), (&input, 0), &axes);
        assert_eq!(out, [0, 3, 1, 4, 2, 5]);
    }

    #[test]
    fn negative_and_zero_steps() {
        let input = [1, 2, 3];
        let mut out = [0; 6];
        let axes = [Axis { size: 2, out: 3, input: 0 }, Axis { size: 3, out: 1, input: -1 }];
        copy(1, (&mut out, 0), (&input, 2), &axes);
        assert_eq!(out, [3, 2, 1, 3, 2, 1]);
    }
}
