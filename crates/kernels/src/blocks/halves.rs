//! Weights of 16-bit floats: products with float activations, at the speed of the memory.

use std::ops::Range;

#[cfg(target_arch = "aarch64")]
use super::arm_neon::Neon;
use super::float::{Source, multiply};
use super::unit::{Convert, Plain, ROWS};
#[cfg(target_arch = "x86_64")]
use crate::cpu::Job;
use crate::cpu::{Ctx, Isa, Level};
use crate::pages::Lines;
use crate::scratch::Line;
use crate::threads::{Pool, SharedMut};

/// The two 16-bit floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Half {
    /// IEEE 754 binary16.
    F16,
    /// Upper half of a binary32.
    BF16,
}

impl Half {
    /// The numbers of 16 weights.
    #[inline(always)]
    fn numbers<C: Convert>(self, bytes: &[u8; 2 * ROWS]) -> [f32; ROWS] {
        match self {
            Half::F16 => C::halves(bytes),
            Half::BF16 => {
                let mut out = [0.0; ROWS];
                for (out, pair) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *out = f32::from_bits(u32::from(u16::from_le_bytes(*pair)) << 16);
                }
                out
            }
        }
    }
}

/// Little-endian 16-bit floats as numbers, exactly.
///
/// # Panics
/// When `out` is not as long as the bytes have numbers.
pub fn decode_halves(isa: Isa, half: Half, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), 2 * out.len(), "two bytes for each number");
    let decode = Decode { half, bytes, out };
    match isa.level() {
        // SAFETY: the CPU has the level, and every wider one includes AVX2.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 | Level::Avx512 => unsafe { crate::cpu::run_avx2(DecodeAvx2(decode)) },
        #[cfg(target_arch = "aarch64")]
        Level::Neon | Level::Dotprod | Level::I8mm => decode.run::<Neon>(),
        _ => decode.run::<Plain>(),
    }
}

struct Decode<'a> {
    half: Half,
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl Decode<'_> {
    #[inline(always)]
    fn run<C: Convert>(self) {
        let (lines, rest) = self.bytes.as_chunks::<{ 2 * ROWS }>();
        let (out, out_rest) = self.out.as_chunks_mut::<ROWS>();
        for (out, line) in out.iter_mut().zip(lines) {
            *out = self.half.numbers::<C>(line);
        }
        let mut line = [0; 2 * ROWS];
        line[..rest.len()].copy_from_slice(rest);
        out_rest.copy_from_slice(&self.half.numbers::<C>(&line)[..out_rest.len()]);
    }
}

#[cfg(target_arch = "x86_64")]
struct DecodeAvx2<'a>(Decode<'a>);

#[cfg(target_arch = "x86_64")]
impl Job for DecodeAvx2<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.0.run::<super::x86_avx2::Avx2>();
    }
}

/// A matrix of 16-bit floats, packed in panels of 16 rows.
pub struct PackedHalves {
    half: Half,
    n: usize,
    k: usize,
    lines: Lines,
}

impl PackedHalves {
    /// Packs `n` rows of `k` little-endian elements each.
    ///
    /// # Panics
    /// When the bytes are not `n` rows.
    pub fn new(pool: &Pool, half: Half, n: usize, k: usize, bytes: &[u8]) -> PackedHalves {
        assert_eq!(bytes.len(), n * k * 2, "{n} rows of {k}");
        let size = n.div_ceil(ROWS) * k * 2 * ROWS;
        let mut lines = Lines::zeros(size.div_ceil(size_of::<Line>()));
        let packed = &mut bytemuck::cast_slice_mut::<Line, u8>(&mut lines)[..size];
        pool.for_each_chunk(packed, (k * 2 * ROWS).max(1), |panel, packed| {
            let rows = bytes.chunks_exact(2 * k).skip(panel * ROWS).take(ROWS);
            for (r, row) in rows.enumerate() {
                let lanes = packed.chunks_exact_mut(2 * ROWS);
                for (lane, pair) in lanes.zip(row.as_chunks::<2>().0) {
                    lane[2 * r..2 * r + 2].copy_from_slice(pair);
                }
            }
        });
        PackedHalves { half, n, k, lines }
    }

    /// Number of rows: outputs per token.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Elements of a row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        size_of_val::<[Line]>(&self.lines)
    }

    /// For each k, the bytes of 16 rows.
    fn panel(&self, index: usize) -> &[[u8; 2 * ROWS]] {
        let rows = bytemuck::cast_slice::<Line, u8>(&self.lines).as_chunks().0;
        &rows[index * self.k..][..self.k]
    }
}

impl Source for PackedHalves {
    fn size(&self) -> (usize, usize) {
        (self.n, self.k)
    }

    fn step(&self) -> usize {
        1
    }

    #[inline(always)]
    fn fill<C: Convert>(&self, panel: usize, k: Range<usize>, out: &mut [[f32; ROWS]]) {
        for (out, bytes) in out.iter_mut().zip(&self.panel(panel)[k]) {
            *out = self.half.numbers::<C>(bytes);
        }
    }

    fn bytes(&self, panel: usize, k: Range<usize>) -> &[u8] {
        self.panel(panel)[k].as_flattened()
    }
}

/// `out[t][n] = sum over k of x[t][k] * w[n][k]`: each sum starts at 0 and runs over k in order
/// with fused multiply-add, as [`gemm_f32`](crate::gemm::gemm_f32) does.
///
/// # Panics
/// When `x` is no whole rows of `k`, or `out` is not of as many rows of `n`.
pub fn matmul_halves(ctx: Ctx<'_>, x: &[f32], weights: &PackedHalves, out: &mut [f32]) {
    let tokens = x.len().checked_div(weights.k).unwrap_or(0);
    let whole = tokens * weights.k == x.len() && tokens * weights.n == out.len();
    let most = if ctx.isa.level() == Level::Avx512 { 8 } else { 4 };
    if !whole || !(1..=most).contains(&tokens) {
        return multiply(ctx, x, weights, out);
    }
    let few = Few { ctx, x, weights, out: SharedMut::new(out) };
    // As many panels together as have room for their sums in registers; one that waits for its
    // last product lets others run.
    match (tokens, ctx.isa.level()) {
        (1, _) => few.run::<1, 4>(),
        (2, Level::Avx512) => few.run::<2, 4>(),
        (3, Level::Avx512) => few.run::<3, 4>(),
        (4, Level::Avx512) => few.run::<4, 4>(),
        (5, Level::Avx512) => few.run::<5, 4>(),
        (6, Level::Avx512) => few.run::<6, 4>(),
        (7, Level::Avx512) => few.run::<7, 3>(),
        (8, Level::Avx512) => few.run::<8, 3>(),
        (2, _) => few.run::<2, 2>(),
        (3, _) => few.run::<3, 2>(),
        _ => few.run::<4, 1>(),
    }
}

/// The sums of `T` tokens and `P` panels.
pub(super) type Sums<const T: usize, const P: usize> = [[[f32; ROWS]; P]; T];

/// A few tokens, each with all panels.
struct Few<'a> {
    ctx: Ctx<'a>,
    x: &'a [f32],
    weights: &'a PackedHalves,
    out: SharedMut<'a, f32>,
}

impl Few<'_> {
    fn run<const T: usize, const P: usize>(&self) {
        let panels = self.weights.n.div_ceil(ROWS);
        let grain = self.ctx.pool.grain(panels, P).next_multiple_of(P);
        self.ctx.pool.for_each_range(panels, grain, |panels| {
            let mut first = panels.start;
            while first + P <= panels.end {
                self.some::<T, P>(first);
                first += P;
            }
            for panel in first..panels.end {
                self.some::<T, 1>(panel);
            }
        });
    }

    fn some<const T: usize, const P: usize>(&self, first: usize) {
        let (n, k) = (self.weights.n, self.weights.k);
        let x = std::array::from_fn(|t| &self.x[t * k..][..k]);
        let panels = std::array::from_fn(|p| self.weights.panel(first + p));
        let sums: Sums<T, P> = self.products(x, panels);
        for (t, sums) in sums.iter().enumerate() {
            for (p, sums) in sums.iter().enumerate() {
                let at = (first + p) * ROWS;
                let width = ROWS.min(n - at);
                // SAFETY: each panel is computed by one task, which alone writes its rows.
                let out = unsafe { self.out.range(t * n + at..t * n + at + width) };
                out.copy_from_slice(&sums[..width]);
            }
        }
    }

    fn products<const T: usize, const P: usize>(
        &self,
        x: [&[f32]; T],
        panels: [&[[u8; 2 * ROWS]]; P],
    ) -> Sums<T, P> {
        let half = self.weights.half;
        match self.ctx.isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => {
                // SAFETY: the CPU has the level.
                unsafe { super::x86_halves::products(half, x, panels) }
            }
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => {
                // SAFETY: the CPU has the level.
                unsafe { super::x86_halves_avx512::products(half, x, panels) }
            }
            #[cfg(target_arch = "aarch64")]
            Level::Neon | Level::Dotprod | Level::I8mm => {
                x.map(|x| panels.map(|panel| plain::<Neon>(half, x, panel)))
            }
            _ => x.map(|x| panels.map(|panel| plain::<Plain>(half, x, panel))),
        }
    }
}

/// The products of one token with one panel in plain Rust: the definition.
fn plain<C: Convert>(half: Half, x: &[f32], panel: &[[u8; 2 * ROWS]]) -> [f32; ROWS] {
    let mut sums = [0f32; ROWS];
    for (x, bytes) in x.iter().zip(panel) {
        for (sum, weight) in sums.iter_mut().zip(half.numbers::<C>(bytes)) {
            *sum = x.mul_add(weight, *sum);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn all_numbers_are_decoded_by_every_instruction_set() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for isa in Isa::available() {
            for (half, value) in [
                (Half::F16, (|b| f16::from_bits(b).to_f32()) as fn(u16) -> f32),
                (Half::BF16, |b| bf16::from_bits(b).to_f32()),
            ] {
                let mut out = vec![0.0; 1 << 16];
                decode_halves(isa, half, &bytes, &mut out);
                for (bits, found) in (0..=u16::MAX).zip(&out) {
                    let same = found.to_bits() == value(bits).to_bits() || value(bits).is_nan();
                    assert!(same, "{isa} {half:?} {bits:04x}: {found}");
                }
                // The rest of a line.
                decode_halves(isa, half, &bytes[..2 * 21], &mut out[..21]);
                assert_eq!(out[20].to_bits(), value(20).to_bits(), "{isa}");
            }
        }
    }
}
