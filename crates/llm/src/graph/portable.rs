//! Weights in blocks, in operators that every program knows: `MatMulNBits` of ONNX Runtime for
//! products, plain arithmetic on gathered codes for tables.
//!
//! Only types whose numbers are codes times the scale of 16 or 32 have such a form. Codes are
//! unsigned there, with a zero point in the middle; those of 5 and 6 bits take 8.

use super::builder::Builder;
use crate::source::Weight;
use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_core::{Attr, DType, Error, Node, Result, Tensor, ValueId};

/// Domain of ONNX Runtime's operators.
pub(super) const MICROSOFT: &str = "com.microsoft";
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

impl BlockForm {
    /// Whether a type of blocks has a portable form of its own.
    pub fn has_portable(ty: BlockType) -> bool {
        Shape::of(ty).is_some()
    }
}

/// Bits of a code, and how many share a scale.
#[derive(Clone, Copy)]
struct Shape {
    bits: usize,
    block: usize,
}

impl Shape {
    /// For the types that have a form.
    fn of(ty: BlockType) -> Option<Shape> {
        match ty {
            BlockType::Q4_0 => Some(Shape { bits: 4, block: 32 }),
            BlockType::Q5_0 | BlockType::Q8_0 => Some(Shape { bits: 8, block: 32 }),
            BlockType::Q6K => Some(Shape { bits: 8, block: 16 }),
            _ => None,
        }
    }
}

/// A matrix as codes and scales.
struct Grid {
    shape: Shape,
    rows: usize,
    columns: usize,
    /// `u8[rows, blocks, block * bits / 8]`, first element in the low bits.
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
        match Shape::of(ty) {
            Some(_) => Ok(true),
            None if floats => Ok(false),
            None => Err(Error::unsupported(format!("{ty} has no form in ONNX"))
                .code("FB-4722")
                .hint("Q4_0, Q5_0, Q8_0 and Q6_K have one; --floats stores other types as floats")),
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
            .with("bits", Attr::Int(grid.shape.bits as i64))
            .with("block_size", Attr::Int(grid.shape.block as i64));
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
        let Shape { bits, block } = grid.shape;
        if bits == 4 {
            codes = self.nibbles(&format!("{name}.rows"), codes, block)?;
        }
        let codes = self.cast(&part("numbers"), codes, DType::F32)?;
        let middle = self.number(&part("middle"), (1 << (bits - 1)) as f32)?;
        let codes = self.simple("Sub", part("steps"), &[codes, middle])?;
        let scales = self.simple("Gather", part("scales"), &[grid.scales, ids])?;
        let last = self.integers("last_axis", &[-1])?;
        let scales = self.simple("Unsqueeze", part("scale"), &[scales, last])?;
        let numbers = self.simple("Mul", part("blocks"), &[codes, scales])?;
        let shape = [0, 0, grid.columns as i64];
        self.reshape(&format!("{name}.picked"), numbers, &shape).map(Some)
    }

    /// Codes of 4 bits apart: `[.., block / 2]` bytes to `[.., block]`.
    fn nibbles(&mut self, name: &str, bytes: ValueId, block: usize) -> Result<ValueId> {
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
        self.reshape(&format!("{name}.apart"), pairs, &[0, 0, 0, block as i64])
    }

    fn grid(&mut self, name: &str, weight: &Weight) -> Result<Grid> {
        let form = weight.block.and_then(|ty| Some((ty, Shape::of(ty)?)));
        let (Some((ty, shape)), &[rows, columns]) = (form, weight.shape.as_slice()) else {
            return Err(Error::internal("no matrix in blocks"));
        };
        let names = [format!("{name}.codes"), format!("{name}.scales")];
        let found = (self.graph.find_value(&names[0]), self.graph.find_value(&names[1]));
        if let (Some(codes), Some(scales)) = found {
            return Ok(Grid { shape, rows, columns, codes, scales });
        }
        let Shape { bits, block } = shape;
        let blocks = columns / block;
        let (codes, scales) = separate(ty, weight.tensor.bytes())?;
        weight.tensor.release();
        let codes = Tensor::from_slice(vec![rows, blocks, block * bits / 8], &codes)?;
        let scales = Tensor::from_slice(vec![rows, blocks], &scales)?;
        let codes = self.graph.add_constant(&names[0], codes)?;
        let scales = self.graph.add_constant(&names[1], scales)?;
        Ok(Grid { shape, rows, columns, codes, scales })
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

/// Codes and scales of whole blocks, apart.
fn separate(ty: BlockType, bytes: &[u8]) -> Result<(Vec<u8>, Vec<f32>)> {
    let blocks = bytes.chunks_exact(ty.bytes());
    let mut codes = Vec::with_capacity(blocks.len() * ty.elements());
    let mut scales = Vec::with_capacity(blocks.len() * ty.elements() / 16);
    for block in blocks {
        let at = if ty == BlockType::Q6K { 208 } else { 0 };
        let mut scale = [0.0];
        dequantize(BlockType::F16, &block[at..at + 2], &mut scale)?;
        let nibble = |first: usize, i: usize| block[first + i % 16] >> (i / 16 * 4) & 15;
        match ty {
            BlockType::Q4_0 => {
                codes.extend((0..16).map(|i| nibble(2, 2 * i) | nibble(2, 2 * i + 1) << 4));
            }
            BlockType::Q5_0 => {
                let fifth = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
                let high = |i: usize| ((fifth >> i & 1) as u8) << 4;
                codes.extend((0..32).map(|i| (nibble(6, i) | high(i)) + 112));
            }
            BlockType::Q6K => {
                codes.extend((0..256).map(|i| six_bits(block, i) + 96));
                let signed = |&code: &u8| scale[0] * f32::from(code as i8);
                scales.extend(block[192..208].iter().map(signed));
                continue;
            }
            _ => codes.extend(block[2..].iter().map(|&code| code.wrapping_add(128))),
        }
        scales.push(scale[0]);
    }
    Ok((codes, scales))
}

/// Code `i` of a `Q6_K` block, whose halves of 128 have four runs of 32 each: low bits in 64 bytes
/// (two runs in the low nibbles, two in the high ones), the upper two bits in 32.
fn six_bits(block: &[u8], i: usize) -> u8 {
    let (half, run, l) = (i / 128, i % 128 / 32, i % 32);
    let low = block[half * 64 + run % 2 * 32 + l] >> (run / 2 * 4) & 15;
    let high = block[128 + half * 32 + l] >> (2 * run) & 3;
    low | high << 4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separate_codes_are_the_numbers_of_the_blocks() {
        for ty in [BlockType::Q4_0, BlockType::Q5_0, BlockType::Q8_0, BlockType::Q6K] {
            let bytes: Vec<u8> = (0..ty.bytes() as u32 * 7)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 0xbb)
                .collect();
            let mut expected = vec![0.0; 7 * ty.elements()];
            dequantize(ty, &bytes, &mut expected).unwrap();
            let (codes, scales) = separate(ty, &bytes).unwrap();
            let Shape { bits, block } = Shape::of(ty).unwrap();
            let middle = 1i32 << (bits - 1);
            for (i, &expected) in expected.iter().enumerate() {
                let code = match bits {
                    4 => codes[i / 2] >> (i % 2 * 4) & 15,
                    _ => codes[i],
                };
                let found = (i32::from(code) - middle) as f32 * scales[i / block];
                assert_eq!(found, expected, "{ty} {i}");
            }
        }
    }
}
