//! Products of quantized activations with packed weights.

use std::marker::PhantomData;
use std::ops::Range;

use bytemuck::Zeroable;

use super::FastUnit;
use super::activations::{ACTIVATION_BLOCK, ACTIVATION_BYTES};
#[cfg(target_arch = "aarch64")]
use super::arm_neon::{Dotprod, Neon, Pairwise};
use super::format::Visit;
use super::inputs::{Inputs, MAX_TOKENS, Tile};
use super::packed::PackedBlocks;
use super::tile::{Codes, Sums, Unit};
#[cfg(target_arch = "aarch64")]
use super::tiles::NeonTiles;
#[cfg(target_arch = "x86_64")]
use super::tiles::{Avx2Tiles, Avx512Tiles};
use super::tiles::{MOST_TOKENS, PlainTiles, Tiles};
use super::unit::{CODES, Convert, Plain, ROWS};
use super::weights::Weights;
use crate::cpu::{Ctx, Job, Level};
use crate::gemm::kernel::prefetch;
use crate::scratch::{Line, with_scratch};
use crate::threads::SharedMut;

/// Units that all tokens pass over before others: they stay in the first-level cache.
const CHUNK: usize = 16;

/// The same where codes stay packed: as many as a block has, if it has several. Between blocks,
/// codes do not lie as between units.
const HEADS: usize = 8;

/// `out[t][n] = sum over k of x[t][k] * w[n][k]`, where `activations` are rows of `Q8_0` blocks
/// with codes of -127 to 127, one row for each token: what
/// [`quantize_activations`](super::quantize_activations) gives.
///
/// The product of each 32 is exact in integers, then scaled; scaled products are added in the
/// order of k, in one accumulator: the same for one token and for many.
///
/// # Panics
/// When the activations are no whole rows, or `out` is not of as many rows of `n`.
pub fn matmul_blocks(ctx: Ctx<'_>, activations: &[u8], weights: &PackedBlocks, out: &mut [f32]) {
    let row = weights.k() / ACTIVATION_BLOCK * ACTIVATION_BYTES;
    let tokens = activations.len().checked_div(row).unwrap_or(0);
    assert_eq!(tokens * row, activations.len(), "rows of {row} bytes");
    assert_eq!(tokens * weights.n(), out.len(), "{tokens} rows of {}", weights.n());
    weights.format.visit(Product { ctx, activations, weights, out: SharedMut::new(out) });
}

struct Product<'a> {
    ctx: Ctx<'a>,
    activations: &'a [u8],
    weights: &'a PackedBlocks,
    out: SharedMut<'a, f32>,
}

impl Visit for Product<'_> {
    type Output = ();

    fn with<W: Weights>(self) {
        let blocks = self.weights.k() / ACTIVATION_BLOCK;
        let tokens = self.activations.len().checked_div(blocks * ACTIVATION_BYTES).unwrap_or(0);
        let layout = W::layout(self.ctx.isa);
        with_scratch(Inputs::words(layout.form, tokens, blocks), |words| {
            let inputs = Inputs::new(self.ctx, layout, blocks, self.activations, words);
            self.multiply::<W>(&inputs);
        });
    }
}

impl Product<'_> {
    fn multiply<W: Weights>(&self, inputs: &Inputs<'_>) {
        let &Product { ctx, weights, out, .. } = self;
        let body = |panels| {
            let task = Task::<W> { weights, inputs, panels, out, format: PhantomData };
            let tokens = MOST_TOKENS.min(inputs.tokens());
            with_scratch(tokens + CHUNK * Scratch::<W>::LINES, |lines| {
                task.dispatch(ctx, Scratch::new(lines.split_at_mut(tokens)));
            });
        };
        let least = |products: usize| products / (weights.k() * inputs.tokens()).max(1);
        if inputs.tokens() < W::FEW {
            // Few tokens wait for the memory.
            ctx.pool.for_each_taper(weights.panels(), least(16 << 10), body);
        } else {
            // Many would read their inputs once more for each part.
            let grain = ctx.pool.grain(weights.panels(), least(64 << 10).max(1));
            ctx.pool.for_each_range(weights.panels(), grain, body);
        }
    }
}

/// What a task computes in.
struct Scratch<'s, W: Weights> {
    /// A row for each token that passes at once.
    sums: &'s mut [[f32; ROWS]],
    /// Units that are taken apart.
    units: &'s mut [W::Unit],
}

impl<'s, W: Weights> Scratch<'s, W> {
    /// Lines of a unit.
    const LINES: usize = {
        assert!(size_of::<W::Unit>().is_multiple_of(size_of::<Line>()), "units are whole lines");
        size_of::<W::Unit>() / size_of::<Line>()
    };

    fn new((sums, units): (&'s mut [Line], &'s mut [Line])) -> Self {
        let (sums, units) = (bytemuck::cast_slice_mut(sums), bytemuck::cast_slice_mut(units));
        Scratch { sums, units }
    }
}

/// Some panels, all tokens.
struct Task<'a, W> {
    weights: &'a PackedBlocks,
    inputs: &'a Inputs<'a>,
    panels: Range<usize>,
    out: SharedMut<'a, f32>,
    format: PhantomData<W>,
}

impl<W: Weights> Task<'_, W> {
    /// Runs the task with the widest instructions.
    fn dispatch(self, ctx: Ctx<'_>, scratch: Scratch<'_, W>) {
        match ctx.isa.level() {
            Level::Scalar => self.run::<Plain, PlainTiles>(scratch),
            // SAFETY: the CPU has the level.
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => unsafe { crate::cpu::run_avx512(InAvx512(self, scratch)) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            _ => unsafe { crate::cpu::run_avx2(InAvx2(self, scratch)) },
            #[cfg(target_arch = "aarch64")]
            Level::Neon => self.run::<Neon, NeonTiles<Pairwise>>(scratch),
            // SAFETY: the CPU has the level, and every wider one includes `dotprod`.
            #[cfg(target_arch = "aarch64")]
            _ => unsafe { crate::cpu::run_dotprod(InDotprod(self, scratch)) },
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            _ => self.run::<Plain, PlainTiles>(scratch),
        }
    }

    #[inline(always)]
    fn run<C: Convert, T: Tiles>(self, scratch: Scratch<'_, W>) {
        let Scratch { sums, units } = scratch;
        for first in (0..self.inputs.tokens()).step_by(T::TOKENS) {
            let tokens = first..self.inputs.tokens().min(first + T::TOKENS);
            for panel in self.panels.clone() {
                let pass = Pass { task: &self, panel, tokens: tokens.clone() };
                pass.run::<C, T>(sums, units);
            }
        }
    }

    #[inline(always)]
    fn store(&self, panel: usize, tokens: Range<usize>, sums: &[[f32; ROWS]]) {
        let n = self.weights.n();
        let width = ROWS.min(n - panel * ROWS);
        for (t, sums) in tokens.zip(sums) {
            let start = t * n + panel * ROWS;
            // SAFETY: each panel is computed by one task, which alone writes its columns.
            let out = unsafe { self.out.range(start..start + width) };
            match out.first_chunk_mut::<ROWS>() {
                // One vector or two, and no call.
                Some(out) => *out = *sums,
                None => out.copy_from_slice(&sums[..width]),
            }
        }
    }
}

/// Some tokens and one panel.
struct Pass<'a, W> {
    task: &'a Task<'a, W>,
    panel: usize,
    tokens: Range<usize>,
}

impl<W: Weights> Pass<'_, W> {
    /// Multiplies all units of the panel.
    #[inline(always)]
    fn run<C: Convert, T: Tiles>(&self, sums: &mut [[f32; ROWS]], units: &mut [W::Unit]) {
        let packed = self.task.weights.panel(self.panel);
        let few = self.tokens.len() < T::few::<W>();
        if W::DIRECT && few {
            let stored: &[W::Stored] = bytemuck::cast_slice(packed);
            for (c, stored) in stored.chunks(CHUNK).enumerate() {
                self.multiply::<T, _>(c * CHUNK, &stored, Ahead::NOTHING, sums);
            }
        } else if T::panels::<W>() && self.tokens.len() == 1 {
            self.run_whole::<T>(packed, sums);
        } else if W::BITS > 0 && T::PACKED && few {
            self.run_packed::<C, T>(packed, sums);
        } else {
            self.run_unpacked::<C, T>(packed, sums, units);
        }
    }

    /// Takes codes apart beforehand.
    #[inline(always)]
    fn run_unpacked<C: Convert, T: Tiles>(
        &self,
        packed: &[u8],
        sums: &mut [[f32; ROWS]],
        units: &mut [W::Unit],
    ) {
        let tiles = self.task.inputs.tiles(self.tokens.clone()).count();
        for (c, packed) in packed.chunks(CHUNK / W::UNITS * W::PACKED).enumerate() {
            let count = packed.len() / W::PACKED * W::UNITS;
            let parts = units.chunks_exact_mut(W::UNITS).zip(packed.chunks_exact(W::PACKED));
            // No closure: it would be compiled without the instructions.
            for (units, packed) in parts {
                W::unpack::<C>(packed, units);
            }
            // What is taken apart next lies behind, also where that is of the next panel.
            let ahead = Ahead::new(packed.as_ptr_range().end, packed.len(), tiles);
            self.multiply::<T, _>(c * CHUNK, &&units[..count], ahead, sums);
        }
    }

    /// Reads the panel front to back, heads and codes as they are packed: what one token waits for
    /// is the memory, which fetches ahead of such reads by itself.
    #[inline(always)]
    fn run_whole<T: Tiles>(&self, packed: &[u8], sums: &mut [[f32; ROWS]]) {
        let Pass { task, panel, ref tokens } = *self;
        let sums = &mut sums[..1];
        sums.fill([0.0; ROWS]);
        // SAFETY: as in `multiply`; the panel has as many blocks as the token.
        unsafe { T::panel::<W>(packed, task.inputs.at(tokens.start, 1, 0), fixed(sums)) };
        task.store(panel, tokens.clone(), sums);
    }

    /// Leaves codes as they are packed.
    #[inline(always)]
    fn run_packed<C: Convert, T: Tiles>(&self, packed: &[u8], sums: &mut [[f32; ROWS]]) {
        let mut heads = [<W::Unit as Unit>::Head::zeroed(); HEADS];
        let stride = if W::UNITS == 1 { W::PACKED } else { W::BITS * CODES / 8 };
        for (c, packed) in packed.chunks(HEADS / W::UNITS * W::PACKED).enumerate() {
            let heads = &mut heads[..packed.len() / W::PACKED * W::UNITS];
            let parts = heads.chunks_exact_mut(W::UNITS).zip(packed.chunks_exact(W::PACKED));
            for (heads, packed) in parts {
                W::heads::<C>(packed, heads.iter_mut());
            }
            let codes = Codes { first: packed[W::HEAD..].as_ptr(), stride };
            let units = PackedUnits::<W> { heads, codes };
            self.multiply::<T, _>(c * HEADS, &units, Ahead::NOTHING, sums);
        }
    }

    /// Multiplies units, the first of which is `block`, with all tokens. The sums of a tile start
    /// with the first block and are stored with the last: that waits for the memory while the next
    /// tile is computed.
    #[inline(always)]
    fn multiply<T: Tiles, P: Part<W>>(
        &self,
        block: usize,
        part: &P,
        mut ahead: Ahead,
        sums: &mut [[f32; ROWS]],
    ) {
        let first = self.tokens.start;
        let inputs = self.task.inputs;
        for tokens in inputs.tiles(self.tokens.clone()) {
            ahead.step();
            let sums = &mut sums[tokens.start - first..tokens.end - first];
            if block == 0 {
                sums.fill([0.0; ROWS]);
            }
            let tile = inputs.at(tokens.start, tokens.len(), block);
            // SAFETY: the inputs have the form of the unit, and all blocks of the row; the CPU
            // has what the tiles need, by `dispatch`.
            unsafe {
                match sums.len() {
                    8 if T::MOST == 8 => part.times::<T, 8>(tile, fixed(sums)),
                    4 => part.times::<T, 4>(tile, fixed(sums)),
                    2 => part.times::<T, 2>(tile, fixed(sums)),
                    _ => part.times::<T, 1>(tile, fixed(sums)),
                }
            }
            if block + part.count() == inputs.blocks() {
                self.task.store(self.panel, tokens, sums);
            }
        }
    }
}

/// Packed codes that are asked for while tiles are computed: taking them apart is so short that it
/// would wait for the memory.
struct Ahead {
    next: *const u8,
    /// Bytes that are asked for with each tile.
    step: usize,
}

impl Ahead {
    const NOTHING: Ahead = Ahead { next: std::ptr::null(), step: 0 };

    /// As many bytes from a place on, spread over as many tiles.
    #[inline(always)]
    fn new(next: *const u8, bytes: usize, tiles: usize) -> Ahead {
        Ahead { next, step: bytes.div_ceil(tiles.max(1)).next_multiple_of(size_of::<Line>()) }
    }

    #[inline(always)]
    fn step(&mut self) {
        for at in (0..self.step).step_by(size_of::<Line>()) {
            prefetch(self.next.wrapping_add(at));
        }
        self.next = self.next.wrapping_add(self.step);
    }
}

/// Units of one panel that follow each other.
trait Part<W: Weights> {
    /// How many.
    fn count(&self) -> usize;

    /// Adds their products with a tile to the sums.
    ///
    /// # Safety
    /// As [`Tiles::tile`].
    unsafe fn times<T: Tiles, const N: usize>(&self, tile: Tile, sums: &mut Sums<N>);
}

impl<W: Weights, U: FastUnit> Part<W> for &[U] {
    #[inline(always)]
    fn count(&self) -> usize {
        self.len()
    }

    #[inline(always)]
    unsafe fn times<T: Tiles, const N: usize>(&self, tile: Tile, sums: &mut Sums<N>) {
        // SAFETY: the caller's promise.
        unsafe { T::tile::<U, W, N>(self, tile, sums) }
    }
}

/// Units whose codes are in packed form; the codes belong to the heads.
struct PackedUnits<'a, W: Weights> {
    heads: &'a [<W::Unit as Unit>::Head],
    codes: Codes,
}

impl<W: Weights> Part<W> for PackedUnits<'_, W> {
    #[inline(always)]
    fn count(&self) -> usize {
        self.heads.len()
    }

    #[inline(always)]
    unsafe fn times<T: Tiles, const N: usize>(&self, tile: Tile, sums: &mut Sums<N>) {
        // SAFETY: the caller's promise.
        unsafe { T::packed::<W, N>(self.heads, self.codes, tile, sums) }
    }
}

#[inline(always)]
fn fixed<const T: usize>(sums: &mut [[f32; ROWS]]) -> &mut Sums<T> {
    sums.first_chunk_mut().expect("as many sums as tokens of the tile")
}

#[cfg(target_arch = "x86_64")]
struct InAvx2<'a, 's, W: Weights>(Task<'a, W>, Scratch<'s, W>);

#[cfg(target_arch = "x86_64")]
impl<W: Weights> Job for InAvx2<'_, '_, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.0.run::<super::x86_avx2::Avx2, Avx2Tiles>(self.1);
    }
}

#[cfg(target_arch = "aarch64")]
struct InDotprod<'a, 's, W: Weights>(Task<'a, W>, Scratch<'s, W>);

#[cfg(target_arch = "aarch64")]
impl<W: Weights> Job for InDotprod<'_, '_, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.0.run::<Neon, NeonTiles<Dotprod>>(self.1);
    }
}

#[cfg(target_arch = "x86_64")]
struct InAvx512<'a, 's, W: Weights>(Task<'a, W>, Scratch<'s, W>);

#[cfg(target_arch = "x86_64")]
impl<W: Weights> Job for InAvx512<'_, '_, W> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.0.run::<super::x86_avx2::Avx2, Avx512Tiles>(self.1);
    }
}

const _: () = assert!(MOST_TOKENS.is_multiple_of(MAX_TOKENS) && CHUNK.is_multiple_of(HEADS));
