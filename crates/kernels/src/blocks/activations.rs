//! Activations as 8-bit codes in blocks of 32.

use half::f16;

#[cfg(target_arch = "x86_64")]
use crate::cpu::Level;
use crate::cpu::{Ctx, Isa};

/// Elements of a block of activations.
pub const ACTIVATION_BLOCK: usize = 32;

/// Bytes of a block of activations: a binary16 scale, then the codes.
pub const ACTIVATION_BYTES: usize = 34;

/// Quantizes each 32 of `values` into 34 bytes of `out`.
///
/// The scale is `max|x| / 127`, rounded to binary16 (saturating); a code is
/// `round_half_to_even(x / scale)`, clamped to -127..=127. NaN is passed over for the scale and
/// becomes code 0, as does everything in a block whose scale is 0 and whose quotient is NaN.
///
/// # Panics
/// When the values are no whole blocks, or `out` is of another number of blocks.
pub fn quantize_activations(ctx: Ctx<'_>, values: &[f32], out: &mut [u8]) {
    assert!(values.len().is_multiple_of(ACTIVATION_BLOCK), "activations in whole blocks");
    assert_eq!(values.len() / ACTIVATION_BLOCK * ACTIVATION_BYTES, out.len(), "the output fits");
    let grain = ctx.pool.grain(values.len() / ACTIVATION_BLOCK, 512);
    ctx.pool.for_each_chunk(out, grain * ACTIVATION_BYTES, |chunk, out| {
        let values = &values[chunk * grain * ACTIVATION_BLOCK..];
        let (values, _) = values.as_chunks::<ACTIVATION_BLOCK>();
        quantize_blocks(ctx.isa, values, out.as_chunks_mut::<ACTIVATION_BYTES>().0);
    });
}

fn quantize_blocks(
    isa: Isa,
    values: &[[f32; ACTIVATION_BLOCK]],
    blocks: &mut [[u8; ACTIVATION_BYTES]],
) {
    match isa.level() {
        // SAFETY: the CPU has the level, and every wider one includes AVX2.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => unsafe { super::x86_inputs::quantize(values, blocks) },
        _ => blocks.iter_mut().zip(values).for_each(|(out, x)| *out = quantize_block(x)),
    }
}

/// The scale of a block, as stored.
fn scale_of(values: &[f32; ACTIVATION_BLOCK]) -> f16 {
    let larger = |a: f32, x: &f32| if x.abs() > a { x.abs() } else { a };
    let largest = values.iter().fold(0f32, larger);
    f16::from_f32((largest / 127.0).min(f16::MAX.to_f32()))
}

fn quantize_block(values: &[f32; ACTIVATION_BLOCK]) -> [u8; ACTIVATION_BYTES] {
    let scale = scale_of(values);
    let divisor = scale.to_f32();
    let mut block = [0; ACTIVATION_BYTES];
    block[..2].copy_from_slice(&scale.to_le_bytes());
    for (code, value) in block[2..].iter_mut().zip(values) {
        let quotient = (value / divisor).round_ties_even();
        // The comparison also catches NaN; the cast of a number in range is exact.
        let quotient = if quotient.is_nan() { 0.0 } else { quotient };
        *code = (quotient.clamp(-127.0, 127.0) as i32) as u8;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::Pool;

    fn quantized(isa: Isa, threads: usize, values: &[f32]) -> Vec<u8> {
        let pool = Pool::new(threads);
        let mut out = vec![0; values.len() / ACTIVATION_BLOCK * ACTIVATION_BYTES];
        quantize_activations(Ctx { isa, pool: &pool }, values, &mut out);
        out
    }

    #[test]
    fn codes_are_within_half_a_step() {
        let values: Vec<f32> = (0..64 * 1000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / 1e6 - 7.0)
            .collect();
        let want = quantized(Isa::scalar(), 1, &values);
        for isa in Isa::available() {
            assert_eq!(quantized(isa, 2, &values), want, "{isa}");
        }
        for (block, values) in want.chunks(ACTIVATION_BYTES).zip(values.chunks(32)) {
            let scale = f16::from_le_bytes([block[0], block[1]]).to_f32();
            for (&code, value) in block[2..].iter().zip(values) {
                let error = (f32::from(code.cast_signed()) * scale - value).abs();
                assert!(error <= scale * 0.5625, "{value} became {code} * {scale}");
            }
        }
    }

    #[test]
    fn special_values_saturate() {
        let mut values = [0.0; 96];
        values[0] = f32::NAN;
        values[1] = 1.27;
        values[32] = f32::NEG_INFINITY;
        values[64] = 1e-9;
        for isa in Isa::available() {
            let out = quantized(isa, 1, &values);
            assert_eq!((out[2], out[3]), (0, 127));
            assert_eq!(out[34..37], [0xff, 0x7b, 127u8.wrapping_neg()]);
            assert_eq!(out[68..70], [0, 0], "the scale underflows");
        }
    }
}
