//! Weights in blocks, in operators that every program knows: `MatMulNBits` of ONNX Runtime for
//! products, plain arithmetic on gathered codes for tables.
//!
//! Only types whose numbers are codes times the scale of 32 have such a form. Codes are unsigned
//! there, with a zero point in the middle; those of 5 bits take 8.

use super::builder::Builder;
use crate::source::Weight;
use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_core::{Attr, DType, Error, Node, Result, Tensor, ValueId};

/// Domain of ONNX Runtime's operators.
pub(super) const MICROSOFT: &str = "com.microsoft";
/// Elements of a block.
const BLOCK: usize = 32;

/// What becomes of weights in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BlockForm {
    /// They stay as they are; fewbit's own operators decode them, and quantize the inputs of
    /// products as the kernels want them.
    #[default]
    Stored,
    /// Operators that others know; types that have no such form become floats, where that is
    /// allowed.
    Portable {
        /// Whether such types may become floats.
        floats: bool,
    },
}

/// A matrix in blocks with one scale for each 32 elements of a row.
struct Grid {
    bits: usize,
    rows: usize,
    columns: usize,
    /// `u8[rows, blocks, 4 * bits]`, first element in the low bits.
    codes: ValueId,
    /// `f32[rows, blocks]`.
    scales: ValueId,
}

impl Builder<'_> {
    /// Whether a matrix is written as a grid of codes.
    ///
    /// # Errors
    /// When it has no such form and may not become floats.
    fn is_grid(&self, weight: &Weight) -> Result<bool> {
        let (Some(ty), BlockForm::Portable { floats }) = (weight.block, self.form) else {
            return Ok(false);
        };
        match bits(ty) {
            Some(_) => Ok(true),
            None if floats => Ok(false),
            None => Err(Error::unsupported(format!("{ty} has no form in ONNX"))
                .code("FB-4722")
                .hint("Q4_0, Q5_0 and Q8_0 have one; --floats stores other types as floats")),
        }
    }

    /// The product with a matrix in blocks, where that is one operator; and its outputs.
    pub(super) fn grid_product(
        &mut self,
        name: &str,
        x: ValueId,
        weight: &Weight,
    ) -> Result<Option<ValueId>> {
        if !self.is_grid(weight)? {
            return Ok(None);
        }
        let grid = self.grid(&format!("{name}.weight"), weight)?;
        let node = Node::new("MatMulNBits", name, &[x, grid.codes, grid.scales], &[])
            .with("K", Attr::Int(grid.columns as i64))
            .with("N", Attr::Int(grid.rows as i64))
            .with("bits", Attr::Int(grid.bits as i64))
            .with("block_size", Attr::Int(BLOCK as i64));
        self.op(Node { domain: MICROSOFT.to_string(), ..node }).map(Some)
    }

    /// Rows of a matrix in blocks, as numbers.
    pub(super) fn grid_rows(
        &mut self,
        name: &str,
        ids: ValueId,
        weight: &Weight,
    ) -> Result<Option<ValueId>> {
        if !self.is_grid(weight)? {
            return Ok(None);
        }
        let grid = self.grid(name, weight)?;
        let part = |part: &str| format!("{name}.rows.{part}");
        let mut codes = self.simple("Gather", part("codes"), &[grid.codes, ids])?;
        if grid.bits == 4 {
            codes = self.nibbles(&format!("{name}.rows"), codes)?;
        }
        let codes = self.cast(&part("numbers"), codes, DType::F32)?;
        let middle = self.number(&part("middle"), (1 << (grid.bits - 1)) as f32)?;
        let codes = self.simple("Sub", part("steps"), &[codes, middle])?;
        let scales = self.simple("Gather", part("scales"), &[grid.scales, ids])?;
        let last = self.integers("last_axis", &[-1])?;
        let scales = self.simple("Unsqueeze", part("scale"), &[scales, last])?;
        let numbers = self.simple("Mul", part("blocks"), &[codes, scales])?;
        let shape = [0, 0, grid.columns as i64];
        self.reshape(&format!("{name}.picked"), numbers, &shape).map(Some)
    }

    /// Codes of 4 bits apart: `[.., 16]` bytes to `[.., 32]`.
    fn nibbles(&mut self, name: &str, bytes: ValueId) -> Result<ValueId> {
        let byte = |value: u8| move || Tensor::from_slice(vec![], &[value]);
        let mask = self.constant(&format!("{name}.mask"), byte(15))?;
        let shift = self.constant(&format!("{name}.shift"), byte(4))?;
        let low = self.simple("BitwiseAnd", format!("{name}.low"), &[bytes, mask])?;
        let high = Node::new("BitShift", format!("{name}.high"), &[bytes, shift], &[]);
        let high = self.op(high.with("direction", Attr::String("RIGHT".into())))?;
        let last = self.integers("last_axis", &[-1])?;
        let mut apart = [low, high];
        for (value, which) in apart.iter_mut().zip(["low", "high"]) {
            *value = self.simple("Unsqueeze", format!("{name}.{which}.column"), &[*value, last])?;
        }
        let pairs = Node::new("Concat", format!("{name}.pairs"), &apart, &[]);
        let pairs = self.op(pairs.with("axis", Attr::Int(-1)))?;
        self.reshape(&format!("{name}.apart"), pairs, &[0, 0, 0, BLOCK as i64])
    }

    fn grid(&mut self, name: &str, weight: &Weight) -> Result<Grid> {
        let (Some((ty, bits)), &[rows, columns]) =
            (weight.block.and_then(|ty| Some((ty, bits(ty)?))), weight.shape.as_slice())
        else {
            return Err(Error::internal("no matrix in blocks"));
        };
        let names = [format!("{name}.codes"), format!("{name}.scales")];
        let found = (self.graph.find_value(&names[0]), self.graph.find_value(&names[1]));
        if let (Some(codes), Some(scales)) = found {
            return Ok(Grid { bits, rows, columns, codes, scales });
        }
        let blocks = columns / BLOCK;
        let (codes, scales) = separate(ty, weight.tensor.bytes())?;
        weight.tensor.release();
        let codes = Tensor::from_slice(vec![rows, blocks, 4 * bits], &codes)?;
        let scales = Tensor::from_slice(vec![rows, blocks], &scales)?;
        let codes = self.graph.add_constant(&names[0], codes)?;
        let scales = self.graph.add_constant(&names[1], scales)?;
        Ok(Grid { bits, rows, columns, codes, scales })
    }

    /// A matrix in blocks as a constant of floats, where it is written so.
    pub(super) fn block_floats(&mut self, name: &str, weight: &Weight) -> Result<Option<ValueId>> {
        let (Some(ty), BlockForm::Portable { floats: true }) = (weight.block, self.form) else {
            return Ok(None);
        };
        let elements = weight.shape.iter().product();
        let make = || {
            let mut values = vec![0.0; elements];
            dequantize(ty, weight.tensor.bytes(), &mut values)?;
            weight.tensor.release();
            Tensor::from_slice(weight.shape.clone(), &values)
        };
        self.constant(&format!("{name}.f32"), make).map(Some)
    }
}

/// Bits of a code, for the types that have a form.
fn bits(ty: BlockType) -> Option<usize> {
    match ty {
        BlockType::Q4_0 => Some(4),
        BlockType::Q5_0 | BlockType::Q8_0 => Some(8),
        _ => None,
    }
}

/// Codes and scales of whole blocks, apart.
fn separate(ty: BlockType, bytes: &[u8]) -> Result<(Vec<u8>, Vec<f32>)> {
    let blocks = bytes.chunks_exact(ty.bytes());
    let mut codes = Vec::with_capacity(blocks.len() * BLOCK);
    let mut scales = vec![0.0; blocks.len()];
    for (block, scale) in blocks.zip(&mut scales) {
        dequantize(BlockType::F16, &block[..2], std::slice::from_mut(scale))?;
        match ty {
            BlockType::Q4_0 => {
                let code = |i: usize| block[2 + i % 16] >> (i / 16 * 4) & 15;
                codes.extend((0..BLOCK / 2).map(|i| code(2 * i) | code(2 * i + 1) << 4));
            }
            BlockType::Q5_0 => {
                let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
                let code = |i: usize| {
                    let low = block[6 + i % 16] >> (i / 16 * 4) & 15;
                    low | ((fifth >> i & 1) as u8) << 4
                };
                codes.extend((0..BLOCK).map(|i| code(i) + 112));
            }
            _ => codes.extend(block[2..].iter().map(|&code| code.wrapping_add(128))),
        }
    }
    Ok((codes, scales))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separate_codes_are_the_numbers_of_the_blocks() {
        for ty in [BlockType::Q4_0, BlockType::Q5_0, BlockType::Q8_0] {
            let bytes: Vec<u8> = (0..ty.bytes() as u32 * 7)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 0xbb)
                .collect();
            let mut expected = vec![0.0; 7 * BLOCK];
            dequantize(ty, &bytes, &mut expected).unwrap();
            let (codes, scales) = separate(ty, &bytes).unwrap();
            let bits = bits(ty).unwrap();
            let middle = 1i32 << (bits - 1);
            for (i, &expected) in expected.iter().enumerate() {
                let code = match bits {
                    4 => codes[i / 2] >> (i % 2 * 4) & 15,
                    _ => codes[i],
                };
                assert_eq!((i32::from(code) - middle) as f32 * scales[i / BLOCK], expected);
            }
        }
    }
}
