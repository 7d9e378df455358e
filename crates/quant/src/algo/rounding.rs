//! Rows of numbers into block types, rounded by [`gptq`](super::gptq).
//!
//! The scales are those of [`RowEncoder`], found with the diagonal of the moments as importance;
//! then the codes are chosen anew, and both are refined.

use super::blocks::RowEncoder;
use super::factor::Factor;
use super::gptq::{Levels, Steps, round};
use super::refine::refine;
use fewbit_core::codec::block::BlockType;
use fewbit_core::{Error, Result};
use fewbit_kernels::Ctx;
use fewbit_kernels::encode::Loss;
use half::f16;
use std::sync::Mutex;

/// Elements of a block; the types with scales over several blocks are not among these.
const BLOCK: usize = 32;

/// The values of IQ4_NL (`kvalues_iq4nl` of ggml).
const IQ4: [f32; 16] = [
    -127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0,
    89.0, 113.0,
];

/// Writes the codes of a block behind its numbers.
type Put = fn(&[u8], &mut [u8]);

/// How a block is laid out: one or two half floats, then codes.
#[derive(Clone, Copy, Debug)]
struct Layout {
    levels: Levels,
    minimum: bool,
    put: Put,
}

/// `None` for types whose codes cannot be chosen apart from their scales.
fn layout(ty: BlockType) -> Option<Layout> {
    let integers = |low: i32, high: i32| Levels::Integers { low, high };
    let (levels, minimum, put): (_, _, Put) = match ty {
        BlockType::Q4_0 => (integers(-8, 7), false, nibbles),
        BlockType::Q4_1 => (integers(0, 15), true, nibbles),
        BlockType::Q5_0 => (integers(-16, 15), false, fives),
        BlockType::Q5_1 => (integers(0, 31), true, fives),
        BlockType::Q8_0 => (integers(-127, 127), false, bytes),
        BlockType::Iq4Nl => (Levels::Table(&IQ4), false, nibbles),
        _ => return None,
    };
    Some(Layout { levels, minimum, put })
}

/// Byte `j` holds the lower four bits of codes `j` and `j + 16`.
fn nibbles(codes: &[u8], out: &mut [u8]) {
    let (first, second) = codes.split_at(BLOCK / 2);
    for (out, (a, b)) in out.iter_mut().zip(first.iter().zip(second)) {
        *out = a & 15 | b << 4;
    }
}

/// Four bytes with the fifth bits, then the nibbles.
fn fives(codes: &[u8], out: &mut [u8]) {
    let high = codes.iter().enumerate().fold(0_u32, |bits, (j, &c)| bits | u32::from(c >> 4) << j);
    let (ends, rest) = out.split_at_mut(4);
    ends.copy_from_slice(&high.to_le_bytes());
    nibbles(codes, rest);
}

/// Signed bytes.
fn bytes(codes: &[u8], out: &mut [u8]) {
    out.iter_mut().zip(codes).for_each(|(out, code)| *out = code.wrapping_sub(127));
}

/// Writes rows of one matrix in one type, each column taking up the errors of others.
#[derive(Clone, Debug)]
pub struct CalibratedEncoder {
    encoder: RowEncoder,
    layout: Layout,
}

impl CalibratedEncoder {
    /// Whether a type can be written so.
    pub fn knows(ty: BlockType) -> bool {
        layout(ty).is_some()
    }

    /// An encoder that takes its scales from `encoder`; `None` where [`knows`] says no.
    ///
    /// [`knows`]: CalibratedEncoder::knows
    pub fn new(encoder: RowEncoder) -> Option<CalibratedEncoder> {
        let layout = layout(encoder.block_type())?;
        Some(CalibratedEncoder { encoder, layout })
    }

    /// Writes whole rows; `out` has their bytes. The loss is that of the outputs.
    ///
    /// # Errors
    /// When a number is not finite, or lengths do not fit.
    pub fn encode(&self, ctx: Ctx<'_>, x: &[f32], factor: &Factor, out: &mut [u8]) -> Result<Loss> {
        encode_rows(ctx, &self.encoder, factor.columns(), x, out)?;
        let mut steps = self.steps(out);
        let levels = self.layout.levels;
        let mut rounded = round(ctx, x, factor, levels, &steps);
        let stored = |scale: f32| f16::from_f32(scale).to_f32();
        refine(ctx, x, factor, levels, &mut steps, &mut rounded, stored);
        let head = if self.layout.minimum { 4 } else { 2 };
        let blocks = out.chunks_exact_mut(self.encoder.block_type().bytes());
        let new = rounded.codes.chunks_exact(BLOCK).zip(&steps.scales);
        for (block, (codes, scale)) in blocks.zip(new) {
            block[..2].copy_from_slice(&f16::from_f32(*scale).to_le_bytes());
            (self.layout.put)(codes, &mut block[head..]);
        }
        Ok(rounded.loss)
    }

    /// The scales and minima of blocks.
    fn steps(&self, blocks: &[u8]) -> Steps {
        let blocks = blocks.chunks_exact(self.encoder.block_type().bytes());
        let number = |block: &[u8], at: usize| f16::from_le_bytes([block[at], block[at + 1]]);
        let scales = blocks.clone().map(|block| number(block, 0).to_f32()).collect();
        let minima = match self.layout.minimum {
            true => blocks.map(|block| number(block, 2).to_f32()).collect(),
            false => Vec::new(),
        };
        Steps { group: BLOCK, scales, minima }
    }
}

/// Encodes rows to the nearest codes, on all threads.
///
/// # Errors
/// When a number is not finite, or lengths do not fit.
pub fn encode_rows(
    ctx: Ctx<'_>,
    encoder: &RowEncoder,
    columns: usize,
    x: &[f32],
    out: &mut [u8],
) -> Result<Loss> {
    const ROWS: usize = 32;
    let row_bytes = encoder.row_bytes();
    if columns == 0 || out.len() != x.len() / columns * row_bytes {
        return Err(Error::internal("rows and their bytes do not fit each other"));
    }
    let parts = x.len().div_ceil(ROWS * columns);
    let losses: Mutex<Vec<Option<Result<Loss>>>> = Mutex::new((0..parts).map(|_| None).collect());
    ctx.pool.for_each_chunk(out, ROWS * row_bytes, |part, out| {
        let start = part * ROWS * columns;
        let rows = &x[start..x.len().min(start + ROWS * columns)];
        let loss = encoder.encode(ctx.isa, rows, out);
        losses.lock().unwrap_or_else(|e| e.into_inner())[part] = Some(loss);
    });
    let losses = losses.into_inner().unwrap_or_else(|e| e.into_inner());
    losses.into_iter().flatten().try_fold(Loss::default(), |sum, loss| Ok(sum.merge(loss?)))
}
