//! The integer microkernels with AVX2: both halves of a panel's rows in a vector each.
//!
//! Unsigned codes of up to 6 bits are multiplied by `vpmaddubsw`; their sums of two are added in
//! 16 bits as far as they cannot overflow ([`CHAIN`](super::weights::Weights::CHAIN)). Of signed codes of 8 bits, the
//! magnitudes are multiplied with activations that took the sign.
//!
//! What bounds these loops is the number of vector instructions, loads among them.

use std::arch::x86_64::*;

use super::inputs::Tile;
use super::tile::{Codes, Sums};
use super::unit::{CODES, Convert, Halves, Minima, Quads, ROWS, Signed, Steps, StoredSigned};

/// Groups of k per unit.
const GROUPS: usize = 8;

/// How far ahead packed weights are asked for, in bytes.
const AHEAD: usize = 3072;

/// The instructions of their own.
pub(super) struct Avx2;

impl Convert for Avx2 {
    #[inline(always)]
    fn halves(bytes: &[u8; 2 * ROWS]) -> [f32; ROWS] {
        let mut out = [0.0; ROWS];
        // SAFETY: only code compiled for AVX2 and F16C names this type; 32 bytes are read, 16
        // numbers written.
        unsafe {
            let low = _mm_loadu_si128(bytes.as_ptr().cast());
            let high = _mm_loadu_si128(bytes.as_ptr().add(16).cast());
            _mm256_storeu_ps(out.as_mut_ptr(), _mm256_cvtph_ps(low));
            _mm256_storeu_ps(out.as_mut_ptr().add(8), _mm256_cvtph_ps(high));
        }
        out
    }

    #[inline(always)]
    fn lookup(values: &[i8; 16], planes: &[u8; CODES / 2]) -> [i8; CODES] {
        let mut out = [0; CODES];
        // SAFETY: as above; 256 bytes are read, 512 written.
        unsafe {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(values.as_ptr().cast()));
            let mask = _mm256_set1_epi8(15);
            for at in (0..CODES / 2).step_by(32) {
                let bytes = _mm256_loadu_si256(planes.as_ptr().add(at).cast());
                let low = _mm256_and_si256(bytes, mask);
                let high = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), mask);
                let out = out.as_mut_ptr().add(at);
                _mm256_storeu_si256(out.cast(), _mm256_shuffle_epi8(table, low));
                _mm256_storeu_si256(out.add(CODES / 2).cast(), _mm256_shuffle_epi8(table, high));
            }
        }
        out
    }
}

/// `n`, of which the compiler knows nothing: a loop that often stays a loop. Taken apart, the
/// loops below are scheduled across groups, and half of their sums go through memory.
#[inline(always)]
fn opaque(mut n: usize) -> usize {
    // SAFETY: no instruction at all.
    unsafe {
        std::arch::asm!("/* {0} */", inout(reg) n, options(pure, nomem, nostack, preserves_flags));
    }
    n
}

/// Sums in registers: token, half of the rows.
type Floats<const T: usize> = [[__m256; 2]; T];

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_sums<const T: usize>(sums: &Sums<T>) -> Floats<T> {
    let mut out = [[_mm256_setzero_ps(); 2]; T];
    for (out, sums) in out.iter_mut().zip(sums) {
        // SAFETY: a row of sums has 16 elements.
        *out = unsafe { [_mm256_loadu_ps(sums.as_ptr()), _mm256_loadu_ps(sums.as_ptr().add(8))] };
    }
    out
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store_sums<const T: usize>(values: &Floats<T>, sums: &mut Sums<T>) {
    for (values, sums) in values.iter().zip(sums) {
        // SAFETY: a row of sums has 16 elements.
        unsafe {
            _mm256_storeu_ps(sums.as_mut_ptr(), values[0]);
            _mm256_storeu_ps(sums.as_mut_ptr().add(8), values[1]);
        }
    }
}

/// Eight numbers of `row`, the half `h`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn half_row(row: &[f32; ROWS], h: usize) -> __m256 {
    // SAFETY: `h` is 0 or 1.
    unsafe { _mm256_loadu_ps(row.as_ptr().add(8 * h)) }
}

/// Half `h` of group `g` of 512 codes.
///
/// # Safety
/// The CPU has AVX2, and there are as many codes.
#[inline(always)]
unsafe fn group(codes: *const u8, g: usize, h: usize) -> __m256i {
    // SAFETY: eight groups of two halves of 32 codes.
    unsafe { _mm256_loadu_si256(codes.add(g * 64 + h * 32).cast()) }
}

/// Units of unsigned codes, as the microkernels see them.
pub(super) trait Units {
    /// What is beside the codes.
    type Head;

    /// Whether loops over groups may be taken apart.
    const UNROLL: bool;

    /// The heads, in order.
    fn heads(&self) -> impl Iterator<Item = &Self::Head>;

    /// The codes of unit `b`, group `g` and half `h`.
    ///
    /// # Safety
    /// The CPU has AVX2; there are more than `b` units, `g` is below 8, `h` below 2.
    unsafe fn codes(&self, b: usize, g: usize, h: usize) -> __m256i;

    /// Asks for codes that are read soon after those of unit `b`.
    fn ahead(&self, _b: usize) {}
}

impl Units for &[Quads] {
    type Head = Minima;
    const UNROLL: bool = false;

    #[inline(always)]
    fn heads(&self) -> impl Iterator<Item = &Minima> {
        self.iter().map(|unit| &unit.head)
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, h: usize) -> __m256i {
        // SAFETY: eight groups of two halves of 32 bytes.
        unsafe { group(self[b].codes.as_ptr().cast(), g, h) }
    }
}

impl Units for &[Halves] {
    type Head = Steps;
    const UNROLL: bool = false;

    #[inline(always)]
    fn heads(&self) -> impl Iterator<Item = &Steps> {
        self.iter().map(|unit| &unit.head)
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, h: usize) -> __m256i {
        // SAFETY: eight groups of two halves of 32 bytes.
        unsafe { group(self[b].codes.as_ptr().cast(), g, h) }
    }
}

/// Units whose codes of `BITS` bits are still in planes.
pub(super) struct Packed<'a, H, const BITS: usize> {
    pub heads: &'a [H],
    pub codes: Codes,
}

impl<H, const BITS: usize> Units for Packed<'_, H, BITS> {
    type Head = H;
    // Where a group's bits lie is then known.
    const UNROLL: bool = true;

    #[inline(always)]
    fn heads(&self) -> impl Iterator<Item = &H> {
        self.heads.iter()
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, h: usize) -> __m256i {
        // SAFETY: planes of 4 bits have 256 bytes, of 2 bits 128, of one bit 64, in this order.
        unsafe {
            let codes = self.codes.first.add(b * self.codes.stride + h * 32);
            let nibble = || bits(codes.add(g % 4 * 64), g / 4 * 4, 0, 15);
            let crumb = |at: usize, to: usize| bits(codes.add(at + g % 2 * 64), g / 2 * 2, to, 3);
            match BITS {
                4 => nibble(),
                5 => _mm256_or_si256(nibble(), bits(codes.add(256), g, 4, 1)),
                6 => _mm256_or_si256(nibble(), crumb(256, 4)),
                3 => _mm256_or_si256(crumb(0, 0), bits(codes.add(128), g, 2, 1)),
                _ => crumb(0, 0),
            }
        }
    }

    #[inline(always)]
    fn ahead(&self, b: usize) {
        ahead(self.codes.first.wrapping_add(b * self.codes.stride), self.codes.stride);
    }
}

/// Asks for the `len` bytes that lie [`AHEAD`] behind `bytes`.
#[inline(always)]
pub(super) fn ahead(bytes: *const u8, len: usize) {
    for at in (0..len).step_by(64) {
        // SAFETY: a hint, for which any address will do.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(at + AHEAD).cast()) };
    }
}

/// The bits of 32 bytes that lie under `mask` from bit `from` on, moved to bit `to`.
///
/// # Safety
/// The CPU has AVX2, and 32 bytes are readable.
#[inline(always)]
unsafe fn bits(bytes: *const u8, from: usize, to: usize, mask: u8) -> __m256i {
    // SAFETY: the caller's promise. What a shift brings in from the neighbour byte is masked.
    unsafe {
        let bytes = _mm256_loadu_si256(bytes.cast());
        let count = _mm_cvtsi32_si128(from.abs_diff(to) as i32);
        let shifted = match from >= to {
            true => _mm256_srl_epi16(bytes, count),
            false => _mm256_sll_epi16(bytes, count),
        };
        _mm256_and_si256(shifted, _mm256_set1_epi8((mask << to).cast_signed()))
    }
}

/// Products of fours in 16 bits: token, half of the rows.
type Chain<const T: usize> = [[__m256i; 2]; T];

/// The products of group `g` of unit `b` with the tokens of a tile.
///
/// # Safety
/// There are more than `b` units and blocks of `T` tokens; `g` is below 8.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn products<U: Units, const T: usize>(
    units: &U,
    tile: Tile,
    b: usize,
    g: usize,
) -> Chain<T> {
    // SAFETY: the caller's promise.
    let w = unsafe { [units.codes(b, g, 0), units.codes(b, g, 1)] };
    let mut out = [[_mm256_setzero_si256(); 2]; T];
    for (t, out) in out.iter_mut().enumerate() {
        // SAFETY: the tile has `T` tokens in each group of each block.
        let x = unsafe { *tile.codes.add((b * GROUPS + g) * T + t) };
        let x = _mm256_set1_epi32(x.cast_signed());
        *out = [_mm256_maddubs_epi16(w[0], x), _mm256_maddubs_epi16(w[1], x)];
    }
    out
}

/// Adds in 16 bits.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add<const T: usize>(chain: &mut Chain<T>, products: &Chain<T>) {
    for t in 0..T {
        for h in 0..2 {
            chain[t][h] = _mm256_add_epi16(chain[t][h], products[t][h]);
        }
    }
}

/// # Safety
/// As [`Avx2Unit::avx2`](super::x86_units::Avx2Unit::avx2).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn quads<
    U: Units<Head = Minima>,
    const CHAIN: usize,
    const OFFSET: bool,
    const T: usize,
>(
    units: U,
    tile: Tile,
    sums: &mut Sums<T>,
) {
    let ones = _mm256_set1_epi16(1);
    let mut acc = load_sums(sums);
    for (b, head) in units.heads().enumerate() {
        units.ahead(b);
        let mut dots = [[_mm256_setzero_si256(); 2]; T];
        for start in (0..GROUPS).step_by(CHAIN) {
            // SAFETY: `b` is a unit, `start` a group.
            let mut chain = unsafe { products::<U, T>(&units, tile, b, start) };
            if OFFSET {
                for (t, chain) in chain.iter_mut().enumerate() {
                    let at = (b * (GROUPS / CHAIN) + start / CHAIN) * T + t;
                    // SAFETY: the tile has a sum for each chain of each block.
                    let offset = unsafe { *tile.sums.add(at) };
                    let offset = _mm256_set1_epi32(offset.cast_signed());
                    chain[0] = _mm256_add_epi16(chain[0], offset);
                    chain[1] = _mm256_add_epi16(chain[1], offset);
                }
            }
            let count = if U::UNROLL { CHAIN } else { opaque(CHAIN) };
            for g in start + 1..start + count {
                // SAFETY: `g` is a group.
                add(&mut chain, &unsafe { products::<U, T>(&units, tile, b, g) });
            }
            for (dots, chain) in dots.iter_mut().zip(&chain) {
                for h in 0..2 {
                    let sum = _mm256_madd_epi16(chain[h], ones);
                    dots[h] = if start == 0 { sum } else { _mm256_add_epi32(dots[h], sum) };
                }
            }
        }
        let scale = [half_row(&head.scale, 0), half_row(&head.scale, 1)];
        for (t, acc) in acc.iter_mut().enumerate() {
            // SAFETY: the tile has `T` tokens in each block.
            let s = unsafe { _mm256_broadcast_ss(&*tile.scales.add(b * T + t)) };
            for h in 0..2 {
                let dot = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[t][h]), scale[h]);
                acc[h] = _mm256_fmadd_ps(dot, s, acc[h]);
            }
            if !OFFSET {
                // SAFETY: as above.
                let sum = unsafe { _mm256_broadcast_ss(&*tile.sums.add(b * T + t).cast()) };
                acc[0] = _mm256_fmadd_ps(half_row(&head.min, 0), sum, acc[0]);
                acc[1] = _mm256_fmadd_ps(half_row(&head.min, 1), sum, acc[1]);
            }
        }
    }
    store_sums(&acc, sums);
}

/// Eight pairs of i16 of `rows`, the half `h`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn half_pairs(rows: &[u32; ROWS], h: usize) -> __m256i {
    // SAFETY: `h` is 0 or 1.
    unsafe { _mm256_loadu_si256(rows.as_ptr().add(8 * h).cast()) }
}

/// # Safety
/// As [`Avx2Unit::avx2`](super::x86_units::Avx2Unit::avx2).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn halves<
    U: Units<Head = Steps>,
    const CHAIN: usize,
    const JOINT: bool,
    const T: usize,
>(
    units: U,
    tile: Tile,
    sums: &mut Sums<T>,
) {
    let mut acc = load_sums(sums);
    for (b, head) in units.heads().enumerate() {
        units.ahead(b);
        let min_steps = [half_pairs(&head.min_steps, 0), half_pairs(&head.min_steps, 1)];
        let mut minima = [[_mm256_setzero_si256(); 2]; T];
        for (t, minima) in minima.iter_mut().enumerate() {
            // SAFETY: the tile has `T` tokens in each block.
            let sum = unsafe { *tile.sums.add(b * T + t) };
            let sum = _mm256_set1_epi32(sum.cast_signed());
            *minima = [_mm256_madd_epi16(min_steps[0], sum), _mm256_madd_epi16(min_steps[1], sum)];
        }
        let mut dots = if JOINT { minima } else { [[_mm256_setzero_si256(); 2]; T] };
        let chains = GROUPS / CHAIN;
        for c in 0..if U::UNROLL { chains } else { opaque(chains) } {
            let start = c * CHAIN;
            let steps = &head.steps[start / 4];
            let steps = [half_pairs(steps, 0), half_pairs(steps, 1)];
            // SAFETY: `b` is a unit, `start` a group, and so are those of the chain.
            let mut chain = unsafe { products::<U, T>(&units, tile, b, start) };
            for g in start + 1..start + CHAIN {
                // SAFETY: as above.
                add(&mut chain, &unsafe { products::<U, T>(&units, tile, b, g) });
            }
            for (dots, chain) in dots.iter_mut().zip(&chain) {
                for h in 0..2 {
                    dots[h] = _mm256_add_epi32(dots[h], _mm256_madd_epi16(chain[h], steps[h]));
                }
            }
        }
        let scale = [half_row(&head.scale, 0), half_row(&head.scale, 1)];
        for (t, acc) in acc.iter_mut().enumerate() {
            // SAFETY: the tile has `T` tokens in each block.
            let s = unsafe { _mm256_broadcast_ss(&*tile.scales.add(b * T + t)) };
            for h in 0..2 {
                let dot = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[t][h]), scale[h]);
                acc[h] = _mm256_fmadd_ps(dot, s, acc[h]);
                if !JOINT {
                    let min_scale = half_row(&head.min_scale, h);
                    let min = _mm256_mul_ps(_mm256_cvtepi32_ps(minima[t][h]), min_scale);
                    acc[h] = _mm256_fmadd_ps(min, s, acc[h]);
                }
            }
        }
    }
    store_sums(&acc, sums);
}

/// Units of signed codes, as the microkernel sees them.
pub(super) trait SignedUnits {
    /// Whether loops over groups may be taken apart.
    const UNROLL: bool = false;

    /// How many there are.
    fn count(&self) -> usize;

    /// The codes of unit `b`, group `g` and half `h`.
    ///
    /// # Safety
    /// The CPU has AVX2; there are more than `b` units, `g` is below 8, `h` below 2.
    unsafe fn codes(&self, b: usize, g: usize, h: usize) -> __m256i;

    /// The magnitudes of `codes`, which lie there.
    ///
    /// # Safety
    /// As [`SignedUnits::codes`].
    #[inline(always)]
    unsafe fn sizes(&self, codes: __m256i, _: (usize, usize, usize)) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_abs_epi8(codes) }
    }

    /// The scales of the rows of unit `b`.
    fn scales(&self, b: usize) -> [f32; ROWS];

    /// Asks for codes that are read soon after those of unit `b`.
    fn ahead(&self, _b: usize) {}
}

impl SignedUnits for &[Signed] {
    fn count(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, h: usize) -> __m256i {
        // SAFETY: eight groups of two halves of 32 codes.
        unsafe { group(self[b].codes.as_ptr().cast(), g, h) }
    }

    #[inline(always)]
    unsafe fn sizes(&self, _: __m256i, (b, g, h): (usize, usize, usize)) -> __m256i {
        // SAFETY: eight groups of two halves of 32 codes.
        unsafe { group(self[b].sizes.as_ptr(), g, h) }
    }

    #[inline(always)]
    fn scales(&self, b: usize) -> [f32; ROWS] {
        self[b].scale
    }
}

impl SignedUnits for &[StoredSigned] {
    fn count(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, h: usize) -> __m256i {
        // SAFETY: eight groups of two halves of 32 codes.
        unsafe { group(self[b].codes.as_ptr().cast(), g, h) }
    }

    #[inline(always)]
    fn scales(&self, b: usize) -> [f32; ROWS] {
        Avx2::halves(bytemuck::cast_ref(&self[b].scale))
    }
}

/// Units whose 4-bit codes, still in planes, choose others.
pub(super) struct PackedValues<'a, H> {
    pub heads: &'a [H],
    pub codes: Codes,
    pub values: &'a [i8; 16],
}

impl<H> PackedValues<'_, H> {
    /// The chosen codes of unit `b`, group `g` and half `h`.
    ///
    /// # Safety
    /// The CPU has AVX2; there are more than `b` units, `g` is below 8, `h` below 2.
    #[inline(always)]
    unsafe fn chosen(&self, b: usize, g: usize, h: usize) -> __m256i {
        // SAFETY: planes of 4 bits have 256 bytes.
        unsafe {
            let values = _mm256_broadcastsi128_si256(_mm_loadu_si128(self.values.as_ptr().cast()));
            let codes = self.codes.first.add(b * self.codes.stride + g % 4 * 64 + h * 32);
            _mm256_shuffle_epi8(values, bits(codes, g / 4 * 4, 0, 15))
        }
    }

    #[inline(always)]
    fn ask_ahead(&self, b: usize) {
        ahead(self.codes.first.wrapping_add(b * self.codes.stride), self.codes.stride);
    }
}

impl Units for PackedValues<'_, Minima> {
    type Head = Minima;
    // Where a group's bits lie is then known.
    const UNROLL: bool = true;

    #[inline(always)]
    fn heads(&self) -> impl Iterator<Item = &Minima> {
        self.heads.iter()
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, h: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { self.chosen(b, g, h) }
    }

    #[inline(always)]
    fn ahead(&self, b: usize) {
        self.ask_ahead(b);
    }
}

impl SignedUnits for PackedValues<'_, [f32; ROWS]> {
    // Where a group's bits lie is then known.
    const UNROLL: bool = true;

    fn count(&self) -> usize {
        self.heads.len()
    }

    #[inline(always)]
    unsafe fn codes(&self, b: usize, g: usize, h: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { self.chosen(b, g, h) }
    }

    #[inline(always)]
    fn scales(&self, b: usize) -> [f32; ROWS] {
        self.heads[b]
    }

    #[inline(always)]
    fn ahead(&self, b: usize) {
        self.ask_ahead(b);
    }
}

/// `|w| * (x with the sign of w)`: sums of two are at most `2 * 128 * 127`, which 16 bits hold.
///
/// # Safety
/// As [`Avx2Unit::avx2`](super::x86_units::Avx2Unit::avx2).
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn signed<U: SignedUnits, const T: usize>(
    units: U,
    tile: Tile,
    sums: &mut Sums<T>,
) {
    let ones = _mm256_set1_epi16(1);
    let mut acc = load_sums(sums);
    for b in 0..units.count() {
        units.ahead(b);
        let mut dots = [[_mm256_setzero_si256(); 2]; T];
        for g in 0..if U::UNROLL { GROUPS } else { opaque(GROUPS) } {
            // SAFETY: `b` is a unit, `g` a group; the tile has `T` tokens in each.
            unsafe {
                let w = [units.codes(b, g, 0), units.codes(b, g, 1)];
                let sizes = [units.sizes(w[0], (b, g, 0)), units.sizes(w[1], (b, g, 1))];
                for (t, dots) in dots.iter_mut().enumerate() {
                    let x = *tile.codes.add((b * GROUPS + g) * T + t);
                    let x = _mm256_set1_epi32(x.cast_signed());
                    for h in 0..2 {
                        let pairs = _mm256_maddubs_epi16(sizes[h], _mm256_sign_epi8(x, w[h]));
                        dots[h] = _mm256_add_epi32(dots[h], _mm256_madd_epi16(pairs, ones));
                    }
                }
            }
        }
        let scales = units.scales(b);
        let scales = [half_row(&scales, 0), half_row(&scales, 1)];
        for (t, acc) in acc.iter_mut().enumerate() {
            // SAFETY: the tile has `T` tokens in each block.
            let s = unsafe { _mm256_broadcast_ss(&*tile.scales.add(b * T + t)) };
            for h in 0..2 {
                let dot = _mm256_mul_ps(_mm256_cvtepi32_ps(dots[t][h]), scales[h]);
                acc[h] = _mm256_fmadd_ps(dot, s, acc[h]);
            }
        }
    }
    store_sums(&acc, sums);
}
