//! The mean of codes of `[outer, len, inner]` along the middle, as codes again: what
//! [`reduce_f32`](super::reduce_f32) gives between a dequantization and a quantization.

use super::columns_from;
use super::lanes::{Fold, LANES, MeanFold, tree};
use crate::quantize::{Affine, Code, Quantizer};
use crate::{Ctx, Job};

/// Elements that are worth a task of their own.
const LEAST: usize = 32_768;

/// Columns that are reduced together.
const COLUMNS: usize = 16;

/// `output[o, i]` = the code of the mean of what `input[o, .., i]` stands for.
///
/// # Panics
/// When a length does not fit `dims`.
pub fn mean_codes<T: Code>(
    ctx: Ctx<'_>,
    (input, affine): (&[T], Affine),
    dims: [usize; 3],
    (output, quantizer): (&mut [T], Quantizer),
) {
    let [outer, len, inner] = dims;
    assert_eq!(input.len(), outer * len * inner, "input does not fit {dims:?}");
    assert_eq!(output.len(), outer * inner, "output does not fit {dims:?}");
    let grain = ctx.pool.grain(output.len(), LEAST / len.max(1));
    ctx.pool.for_each_chunk(output, grain, |i, output| {
        ctx.isa.run(Part { input, affine, len, inner, start: i * grain, output, quantizer });
    });
}

/// The part of the output that begins at element `start`.
struct Part<'a, T> {
    input: &'a [T],
    affine: Affine,
    len: usize,
    inner: usize,
    start: usize,
    output: &'a mut [T],
    quantizer: Quantizer,
}

impl<T: Code> Job for Part<'_, T> {
    type Output = ();
    #[inline(always)]
    fn run(mut self) {
        let mut done = 0;
        while done < self.output.len() {
            let (base, beside) = columns_from(self.start + done, self.len, self.inner);
            let left = beside.min(self.output.len() - done);
            done += match left {
                _ if self.inner == 1 => self.row(base, done),
                COLUMNS.. => self.block::<COLUMNS>(base, done),
                _ => self.block::<1>(base, done),
            };
        }
    }
}

impl<T: Code> Part<'_, T> {
    /// The mean of one contiguous row.
    #[inline(always)]
    fn row(&mut self, base: usize, done: usize) -> usize {
        let mut acc = [MeanFold::START; LANES];
        for codes in self.input[base..][..self.len].chunks(LANES) {
            for (lane, code) in acc.iter_mut().zip(codes) {
                *lane += self.affine.dequantize(code.widen());
            }
        }
        self.store(done, tree(acc, MeanFold::join));
        1
    }

    /// The means of the `W` columns that begin at `base`.
    #[inline(always)]
    fn block<const W: usize>(&mut self, base: usize, done: usize) -> usize {
        let mut acc = [[MeanFold::START; W]; LANES];
        for i in 0..self.len {
            let codes = &self.input[base + i * self.inner..][..W];
            let lane = &mut acc[i % LANES];
            for c in 0..W {
                lane[c] += self.affine.dequantize(codes[c].widen());
            }
        }
        for c in 0..W {
            self.store(done + c, tree(acc.map(|lane| lane[c]), MeanFold::join));
        }
        W
    }

    #[inline(always)]
    fn store(&mut self, at: usize, total: f32) {
        let mean = MeanFold::finish(total, self.len, 0.0);
        self.output[at] = T::narrow(self.quantizer.code(mean));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::sweep::everywhere;
    use crate::quantize::{dequantize, quantize};
    use crate::reduce::{Reduce, reduce_f32};

    #[test]
    fn codes_have_the_mean_of_their_numbers() {
        let (input, output) =
            (Affine { scale: 0.037, zero_point: 101 }, Affine { scale: 0.011, zero_point: 90 });
        let quantizer = Quantizer::of::<u8>(output);
        for dims in [[2, 17, 37], [1, 49, 64], [3, 5, 3], [4, 200, 1], [2, 3, 16]] {
            let codes: Vec<u8> =
                (0..dims.iter().product()).map(|i: usize| (i * 167 % 251) as u8).collect();
            let fused = everywhere(|ctx| {
                let mut out = vec![0; dims[0] * dims[2]];
                mean_codes(ctx, (&codes, input), dims, (&mut out, quantizer));
                out
            });
            let apart = everywhere(|ctx| {
                let mut numbers = vec![0.0; codes.len()];
                dequantize(ctx, input, &codes, &mut numbers);
                let mut means = vec![0.0; dims[0] * dims[2]];
                reduce_f32(ctx, Reduce::Mean, &numbers, dims, &mut means);
                let mut out = vec![0; means.len()];
                quantize(ctx, quantizer, &means, &mut out);
                out
            });
            assert_eq!(fused, apart, "{dims:?}");
        }
    }
}
