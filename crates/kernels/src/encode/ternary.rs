//! Blocks of 256 weights of -1, 0 and 1 and one scale: TQ1_0, TQ2_0.
//!
//! The best scale is found exactly: whatever it is, the elements that become 1 are the largest,
//! so there are only as many choices as elements, and each has a best scale in closed form.

use super::half::stored;
use super::lanes::Lanes;
use super::loss::Loss;
use super::super_affine::put_crumbs;
use super::{Encoder, GROUP, Group};

/// The scale of least weighted squared error.
fn best_scale(group: Group<'_>) -> f64 {
    let weight = |i: usize| group.weight.map_or(1.0, |w| f64::from(w[i]));
    let mut order: [u8; GROUP] = std::array::from_fn(|i| i as u8);
    order.sort_unstable_by(|&a, &b| {
        let size = |i: u8| group.x[usize::from(i)].abs();
        size(b).total_cmp(&size(a)).then(a.cmp(&b))
    });
    let (mut sum, mut weights) = (0.0, 0.0);
    let (mut scale, mut gain) = (0.0, 0.0);
    for i in order.map(usize::from) {
        sum += weight(i) * f64::from(group.x[i].abs());
        weights += weight(i);
        if sum * sum > gain * weights {
            (scale, gain) = (sum / weights, sum * sum / weights);
        }
    }
    scale
}

/// The bits of the scale, and the codes 0, 1, 2 for -1, 0, 1.
fn coded(group: Group<'_>) -> (u16, [u8; GROUP], Loss) {
    let (bits, scale) = stored(best_scale(group) as f32);
    let mut codes = [1; GROUP];
    let mut loss = Loss::default();
    for (i, (&x, code)) in group.x.iter().zip(&mut codes).enumerate() {
        let trit = if x.abs() > 0.5 * scale { x.signum() } else { 0.0 };
        *code = (trit + 1.0) as u8;
        let weight = group.weight.map_or(1.0, |w| f64::from(w[i]));
        let rest = f64::from(x) - f64::from(scale * trit);
        loss.error += weight * rest * rest;
        loss.signal += weight * f64::from(x) * f64::from(x);
    }
    (bits, codes, loss)
}

/// TQ2_0: two bits for each element.
pub(super) struct Tq2_0;

impl Encoder for Tq2_0 {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let (bits, codes, loss) = coded(group);
        put_crumbs(&codes, &mut out[..64]);
        out[64..].copy_from_slice(&bits.to_le_bytes());
        loss
    }
}

/// TQ1_0: five elements in a byte.
pub(super) struct Tq1_0;

impl Encoder for Tq1_0 {
    #[inline(always)]
    fn group<V: Lanes>(&self, group: Group<'_>, out: &mut [u8]) -> Loss {
        let (bits, codes, loss) = coded(group);
        put_trits(&codes[..160], &mut out[..32]);
        put_trits(&codes[160..240], &mut out[32..48]);
        put_trits(&codes[240..], &mut out[48..52]);
        out[52..].copy_from_slice(&bits.to_le_bytes());
        loss
    }
}

/// Byte `l` holds codes `l`, `l + len`, ... of at most five planes as a fraction, base 3, the
/// first plane on top.
fn put_trits(codes: &[u8], out: &mut [u8]) {
    let len = out.len();
    for (l, out) in out.iter_mut().enumerate() {
        let digit = |plane: usize| codes.get(l + plane * len).map_or(0, |&c| u16::from(c));
        let number = (0..5).fold(0, |number, plane| number * 3 + digit(plane));
        // Rounded up, so that multiplying by 3 brings the digits back.
        *out = (number * 256).div_ceil(243) as u8;
    }
}
