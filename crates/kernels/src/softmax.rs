//! Softmax and log-softmax over contiguous rows.

use crate::reduce::{MaxFold, SumFold, lanes};
use crate::{Ctx, Job, math};

/// Elements that are worth a task of their own.
const LEAST: usize = 8_192;

/// `e^(x - max) / sum of e^(x - max)` in each row of `row_len` numbers.
///
/// The sum runs in the fixed 16-lane order (see [`crate::reduce`]). A row whose maximum is
/// infinite, or that holds NaN, becomes NaN.
///
/// # Panics
/// When the lengths differ or are no multiple of `row_len`.
pub fn softmax_f32(ctx: Ctx<'_>, input: &[f32], row_len: usize, output: &mut [f32]) {
    each_row(ctx, input, row_len, output, false);
}

/// `x - max - ln(sum of e^(x - max))` in each row of `row_len` numbers.
///
/// # Panics
/// When the lengths differ or are no multiple of `row_len`.
pub fn log_softmax_f32(ctx: Ctx<'_>, input: &[f32], row_len: usize, output: &mut [f32]) {
    each_row(ctx, input, row_len, output, true);
}

fn each_row(ctx: Ctx<'_>, input: &[f32], row_len: usize, output: &mut [f32], log: bool) {
    assert_eq!(input.len(), output.len(), "input and output differ in length");
    if input.is_empty() {
        return;
    }
    assert!(row_len > 0 && input.len().is_multiple_of(row_len), "rows of {row_len} do not fit");
    let rows = input.len() / row_len;
    let grain = ctx.pool.grain(rows, LEAST.div_ceil(row_len)) * row_len;
    ctx.pool.for_each_chunk(output, grain, |i, output| {
        let input = &input[i * grain..][..output.len()];
        ctx.isa.run(Rows { input, output, row_len, log });
    });
}

struct Rows<'a> {
    input: &'a [f32],
    output: &'a mut [f32],
    row_len: usize,
    log: bool,
}

impl Job for Rows<'_> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let rows = self.input.chunks_exact(self.row_len);
        for (x, y) in rows.zip(self.output.chunks_exact_mut(self.row_len)) {
            let max = lanes::<MaxFold>(x, 0.0);
            for (y, &x) in y.iter_mut().zip(x) {
                *y = math::exp(x - max);
            }
            let sum = lanes::<SumFold>(y, 0.0);
            if self.log {
                let offset = math::log(sum);
                y.iter_mut().zip(x).for_each(|(y, &x)| *y = (x - max) - offset);
            } else {
                y.iter_mut().for_each(|y| *y /= sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elementwise::sweep::{LENGTHS, bits, everywhere, numbers};

    #[test]
    fn rows_are_accurate_and_the_same_everywhere() {
        for len in LENGTHS.into_iter().filter(|&len| len > 0) {
            let x = numbers(3 * len, 15, 6.0);
            for log in [false, true] {
                let y = everywhere(|ctx| {
                    let mut y = vec![0.0; x.len()];
                    each_row(ctx, &x, len, &mut y, log);
                    bits(&y)
                });
                for (x, y) in x.chunks(len).zip(y.chunks(len)) {
                    let sum: f64 = x.iter().map(|&x| f64::from(x).exp()).sum();
                    for (&x, &y) in x.iter().zip(y) {
                        let exact = f64::from(x) - sum.ln();
                        let (exact, scale) = if log { (exact, 1.0) } else { (exact.exp(), 0.0) };
                        let y = f64::from(f32::from_bits(y));
                        let error = (y - exact).abs();
                        assert!(error <= 5e-6 * exact.abs().max(scale), "{y} is not {exact}");
                    }
                }
            }
        }
    }

    #[test]
    fn masked_entries_vanish() {
        let x = [f32::NEG_INFINITY, 1.0, 1.0, f32::NEG_INFINITY];
        let y = everywhere(|ctx| {
            let mut y = [0.0; 4];
            softmax_f32(ctx, &x, 4, &mut y);
            y
        });
        assert_eq!(y, [0.0, 0.5, 0.5, 0.0]);
    }

    #[test]
    fn large_numbers_do_not_overflow() {
        let y = everywhere(|ctx| {
            let mut y = [0.0; 2];
            log_softmax_f32(ctx, &[3e38, -3e38], 2, &mut y);
            bits(&y)
        });
        assert_eq!(f32::from_bits(y[0]), 0.0);
    }
}
