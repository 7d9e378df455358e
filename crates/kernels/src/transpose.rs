//! Transposes of any rank and element size.

use crate::{Ctx, Isa, Job};

/// Bytes that are worth a task of their own.
const LEAST: usize = 65_536;

/// Elements of the output's last axis that are written side by side: their lines of the input
/// stay in the first cache, whatever power of two lies between them.
const BLOCK: usize = 8;

/// Writes `input` of shape `dims` to `output` with its axes in the order `perm`: axis `i` of the
/// output is axis `perm[i]` of the input. Both are elements of `element_size` bytes (1, 2, 4, 8
/// or 16) in row-major order. Axes that stay together are moved as one.
///
/// # Panics
/// When `perm` is no permutation of the axes, a slice is not as long as its shape says, or the
/// element size is another.
pub fn transpose(
    ctx: Ctx<'_>,
    element_size: usize,
    input: &[u8],
    dims: &[usize],
    perm: &[usize],
    output: &mut [u8],
) {
    let bytes = dims.iter().product::<usize>() * element_size;
    assert_eq!(input.len(), bytes, "input is not as long as its shape");
    assert_eq!(output.len(), bytes, "output is not as long as its shape");
    let axes = merged_axes(dims, perm);
    match element_size {
        1 => permute::<1>(ctx, input, &axes, output),
        2 => permute::<2>(ctx, input, &axes, output),
        4 => permute::<4>(ctx, input, &axes, output),
        8 => permute::<8>(ctx, input, &axes, output),
        16 => permute::<16>(ctx, input, &axes, output),
        _ => panic!("elements of {element_size} bytes cannot be transposed"),
    }
}

/// An axis of the output: its length, and how far a step along it moves in the input.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    len: usize,
    stride: usize,
}

/// The axes of the output, without those of length 1, and with neighbours merged that are
/// neighbours in the input as well.
fn merged_axes(dims: &[usize], perm: &[usize]) -> Vec<Axis> {
    let mut seen = perm.to_vec();
    seen.sort_unstable();
    assert!(seen.iter().copied().eq(0..dims.len()), "{perm:?} is no permutation of {dims:?}");
    let mut axes: Vec<Axis> = Vec::with_capacity(dims.len());
    for &axis in perm.iter().filter(|&&axis| dims[axis] != 1) {
        let (len, stride) = (dims[axis], dims[axis + 1..].iter().product());
        match axes.last_mut() {
            Some(last) if last.stride == len * stride => {
                *last = Axis { len: last.len * len, stride };
            }
            _ => axes.push(Axis { len, stride }),
        }
    }
    axes
}

fn permute<const N: usize>(ctx: Ctx<'_>, input: &[u8], axes: &[Axis], output: &mut [u8]) {
    // Without axes there is one element; with an empty axis there is none.
    let Some((&last, front)) = axes.split_last() else {
        return output.copy_from_slice(input);
    };
    if input.is_empty() {
        return;
    }
    let (input, _) = input.as_chunks::<N>();
    let (output, _) = output.as_chunks_mut::<N>();
    let split = match front.iter().position(|axis| axis.stride == 1) {
        Some(fast) => fast + 1,
        None => front.len(),
    };
    let (outer, middle) = front.split_at(split);
    let slab = Slab { isa: ctx.isa, input, outer, middle, last };
    let grain = ctx.pool.grain(output.len() / slab.len(), LEAST.div_ceil(slab.len() * N));
    ctx.pool.for_each_chunk(output, grain * slab.len(), |i, output| slab.fill(i * grain, output));
}

/// How to fill the part of the output that belongs to one index of the outer axes. The innermost
/// outer axis is the one that is contiguous in the input, unless the last one is.
struct Slab<'a, const N: usize> {
    isa: Isa,
    input: &'a [[u8; N]],
    outer: &'a [Axis],
    middle: &'a [Axis],
    last: Axis,
}

impl<const N: usize> Slab<'_, N> {
    fn len(&self) -> usize {
        self.middle.iter().map(|axis| axis.len).product::<usize>() * self.last.len
    }

    /// Fills the slabs from number `start` on.
    fn fill(&self, start: usize, output: &mut [[u8; N]]) {
        let run_len = self.outer.last().map_or(1, |axis| axis.len);
        let mut slab = start;
        let mut rest = output;
        while !rest.is_empty() {
            let count = (run_len - slab % run_len).min(rest.len() / self.len());
            let (run, tail) = rest.split_at_mut(count * self.len());
            self.fill_run(offset(self.outer, slab), run);
            (slab, rest) = (slab + count, tail);
        }
    }

    /// Fills slabs that follow each other on the innermost outer axis.
    fn fill_run(&self, base: usize, run: &mut [[u8; N]]) {
        let step = self.outer.last().map_or(0, |axis| axis.stride);
        for row in 0..self.len() / self.last.len {
            let from = base + offset(self.middle, row);
            let to = row * self.last.len;
            if self.last.stride == 1 {
                self.copy_rows(from, step, &mut run[to..]);
            } else {
                self.copy_blocks(from, step, &mut run[to..]);
            }
        }
    }

    fn copy_rows(&self, from: usize, step: usize, run: &mut [[u8; N]]) {
        for (i, slab) in run.chunks_mut(self.len()).enumerate() {
            let row = &self.input[from + i * step..][..self.last.len];
            slab[..self.last.len].copy_from_slice(row);
        }
    }

    fn copy_blocks(&self, from: usize, step: usize, run: &mut [[u8; N]]) {
        let Axis { len, stride } = self.last;
        if step == 1 && self.len() == len {
            match len {
                2 => return self.interleave::<2>(from, run),
                3 => return self.interleave::<3>(from, run),
                4 => return self.interleave::<4>(from, run),
                _ => (),
            }
        }
        for begin in (0..len).step_by(BLOCK) {
            let end = len.min(begin + BLOCK);
            for (i, slab) in run.chunks_mut(self.len()).enumerate() {
                let column = &self.input[from + i * step + begin * stride..];
                let lines = column.iter().step_by(stride);
                slab[begin..end].iter_mut().zip(lines).for_each(|(y, x)| *y = *x);
            }
        }
    }
}

impl<const N: usize> Slab<'_, N> {
    /// Joins few planes, as those of an image.
    fn interleave<const C: usize>(&self, from: usize, run: &mut [[u8; N]]) {
        let (pixels, _) = run.as_chunks_mut::<C>();
        let planes = std::array::from_fn(|c| &self.input[from + c * self.last.stride..]);
        self.isa.run(Interleave { planes, pixels });
    }
}

struct Interleave<'a, const N: usize, const C: usize> {
    planes: [&'a [[u8; N]]; C],
    pixels: &'a mut [[[u8; N]; C]],
}

impl<const N: usize, const C: usize> Job for Interleave<'_, N, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let (mut planes, count) = (self.planes, self.pixels.len());
        for plane in &mut planes {
            *plane = &plane[..count];
        }
        // By index, which compiles to vectors.
        for (i, pixel) in self.pixels.iter_mut().enumerate() {
            for (value, plane) in pixel.iter_mut().zip(&planes) {
                *value = plane[i];
            }
        }
    }
}

/// Where index `flat` of `axes`, counted in row-major order, lies in the input.
fn offset(axes: &[Axis], mut flat: usize) -> usize {
    let mut offset = 0;
    for axis in axes.iter().rev() {
        offset += flat % axis.len * axis.stride;
        flat /= axis.len;
    }
    offset
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::sweep::{codes, everywhere};

    /// The definition, element by element.
    fn expected(size: usize, input: &[u8], dims: &[usize], perm: &[usize]) -> Vec<u8> {
        let strides: Vec<usize> = (0..dims.len()).map(|a| dims[a + 1..].iter().product()).collect();
        let axes: Vec<Axis> =
            perm.iter().map(|&a| Axis { len: dims[a], stride: strides[a] }).collect();
        let count = dims.iter().product::<usize>();
        let element = |i| &input[offset(&axes, i) * size..][..size];
        (0..count).flat_map(element).copied().collect()
    }

    #[track_caller]
    fn check(size: usize, dims: &[usize], perm: &[usize]) {
        let input = codes(dims.iter().product::<usize>() * size, 24);
        let got = everywhere(|ctx| {
            let mut output = vec![0; input.len()];
            transpose(ctx, size, &input, dims, perm, &mut output);
            output
        });
        assert!(got == expected(size, &input, dims, perm), "{size} {dims:?} {perm:?}");
    }

    #[test]
    fn all_permutations_of_four_axes() {
        for code in 0..256 {
            let perm = [code & 3, code >> 2 & 3, code >> 4 & 3, code >> 6];
            let mut sorted = perm;
            sorted.sort_unstable();
            if sorted == [0, 1, 2, 3] {
                for size in [1, 2, 4, 8, 16] {
                    check(size, &[2, 3, 17, 9], &perm);
                    check(size, &[3, 1, 5, 1], &perm);
                }
            }
        }
    }

    #[test]
    fn layout_changes_over_threads() {
        for size in [1, 4] {
            check(size, &[2, 24, 60, 61], &[0, 2, 3, 1]);
            check(size, &[2, 3, 260, 61], &[0, 2, 3, 1]);
            check(size, &[1, 4, 33, 7], &[0, 2, 3, 1]);
            check(size, &[3, 2, 5, 1], &[0, 2, 3, 1]);
            check(size, &[1, 60, 61, 33], &[0, 3, 1, 2]);
            check(size, &[500, 700], &[1, 0]);
            check(size, &[2, 77, 12, 64], &[0, 2, 1, 3]);
            check(size, &[7, 64, 3, 5, 64], &[4, 2, 0, 3, 1]);
        }
    }

    #[test]
    fn odd_shapes() {
        check(4, &[], &[]);
        check(4, &[1, 1], &[1, 0]);
        check(4, &[0, 3, 2], &[2, 0, 1]);
        check(4, &[5], &[0]);
    }

    #[test]
    fn neighbours_merge() {
        let axes = merged_axes(&[2, 24, 60, 61], &[0, 2, 3, 1]);
        let lens: Vec<usize> = axes.iter().map(|axis| axis.len).collect();
        assert_eq!(lens, [2, 3660, 24]);
        assert_eq!(merged_axes(&[2, 3, 4], &[0, 1, 2]), [Axis { len: 24, stride: 1 }]);
    }

    #[test]
    #[should_panic(expected = "no permutation")]
    fn a_wrong_permutation_is_refused() {
        merged_axes(&[2, 3], &[0, 0]);
    }
}
