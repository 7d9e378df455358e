//! The tensors that one matrix becomes.

use super::kind::FolderType;
use fewbit_core::{DType, Error, Result};
use fewbit_formats::packed::{Order, Packing};
use fewbit_formats::safetensors::TensorSpec;
use fewbit_quant::algo::grid::{Codes, Grid, Quantized};
use half::{bf16, f16};

/// A matrix `[rows, columns]` and what becomes of it.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    /// Name of the layer: that of the tensor without `.weight`.
    pub(super) layer: String,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) ty: FolderType,
    pub(super) grid: Grid,
}

impl Matrix {
    fn groups(&self) -> usize {
        self.columns / self.grid.group.max(1)
    }

    fn packing(&self) -> Option<Packing> {
        let Matrix { rows, columns, .. } = *self;
        let bits = match self.grid.codes {
            Codes::Integers { bits } => bits as usize,
            Codes::Float8 => 8,
        };
        Some(Packing { rows, columns, bits, order: self.ty.order()? })
    }

    /// Names, types and shapes of the tensors, in the order in which [`bytes`](Matrix::bytes)
    /// gives them.
    ///
    /// # Errors
    /// When the layout cannot hold a matrix of this size.
    pub(super) fn specs(&self) -> Result<Vec<TensorSpec>> {
        let (rows, groups) = (self.rows, self.groups());
        let spec = |name: &str, dtype: DType, shape: Vec<usize>| TensorSpec {
            name: format!("{}.{name}", self.layer),
            dtype,
            shape,
        };
        let scales = spec("weight_scale", self.grid.scales, vec![rows, groups]);
        let words = self.packing().map(|p| p.shape()).transpose()?.map(Vec::from);
        Ok(match (self.ty.order(), words) {
            (Some(Order::Rows), Some(words)) => vec![
                spec("weight_packed", DType::I32, words),
                scales,
                spec("weight_shape", DType::I64, vec![2]),
            ],
            (Some(order), Some(words)) => {
                let zeros = self.zeros()?.shape()?;
                let mut specs = vec![
                    spec("qweight", DType::I32, words),
                    spec("qzeros", DType::I32, zeros.into()),
                    spec("scales", DType::F16, vec![groups, rows]),
                ];
                if order == Order::Columns {
                    specs.push(spec("g_idx", DType::I32, vec![self.columns]));
                }
                specs
            }
            _ => {
                let dtype = match self.grid.codes {
                    Codes::Float8 => DType::F8E4M3FN,
                    Codes::Integers { .. } => DType::I8,
                };
                vec![spec("weight", dtype, vec![rows, self.columns]), scales]
            }
        })
    }

    /// Zero points, packed along the outputs. Those of GPTQ lie neighbour by neighbour, as rows
    /// of one group do.
    fn zeros(&self) -> Result<Packing> {
        let packing = self.packing().ok_or_else(|| Error::internal("zero points of no words"))?;
        Ok(match packing.order {
            Order::Awq => Packing { columns: self.groups(), ..packing },
            _ => Packing {
                rows: self.groups(),
                columns: self.rows.next_multiple_of(packing.per_word()),
                order: Order::Rows,
                ..packing
            },
        })
    }

    /// The bytes of the tensors.
    ///
    /// # Errors
    /// As [`specs`](Matrix::specs).
    pub(super) fn bytes(&self, quantized: &Quantized) -> Result<Vec<Vec<u8>>> {
        let scales = self.scales(&quantized.scales);
        let Some(packing) = self.packing() else {
            return Ok(vec![quantized.codes.clone(), scales]);
        };
        let half = 1u8 << (packing.bits - 1);
        let mask = if packing.bits == 8 { 0xff } else { (1u8 << packing.bits) - 1 };
        // Words hold codes from 0 on.
        let codes: Vec<u8> =
            quantized.codes.iter().map(|code| code.wrapping_add(half) & mask).collect();
        let words = packing.pack(&codes)?;
        if packing.order == Order::Rows {
            let shape = [self.rows as i64, self.columns as i64];
            return Ok(vec![words, scales, shape.iter().flat_map(|n| n.to_le_bytes()).collect()]);
        }
        let zeros = self.zeros()?;
        // The first version of the format stores one less.
        let zero = if packing.order == Order::Columns { half - 1 } else { half };
        let zeros = zeros.pack(&vec![zero; zeros.rows * zeros.columns])?;
        let mut tensors = vec![words, zeros, self.turned(&quantized.scales)];
        if packing.order == Order::Columns {
            let group = |column: usize| ((column / self.grid.group.max(1)) as i32).to_le_bytes();
            tensors.push((0..self.columns).flat_map(group).collect());
        }
        Ok(tensors)
    }

    fn scales(&self, scales: &[f32]) -> Vec<u8> {
        match self.grid.scales {
            DType::F16 => scales.iter().flat_map(|s| f16::from_f32(*s).to_le_bytes()).collect(),
            DType::BF16 => scales.iter().flat_map(|s| bf16::from_f32(*s).to_le_bytes()).collect(),
            _ => scales.iter().flat_map(|s| s.to_le_bytes()).collect(),
        }
    }

    /// Scales as `f16[groups, rows]`.
    fn turned(&self, scales: &[f32]) -> Vec<u8> {
        let groups = self.groups();
        let at = |group: usize| (0..self.rows).map(move |row| row * groups + group);
        let halves = (0..groups).flat_map(at).map(|i| f16::from_f32(scales[i]));
        halves.flat_map(|scale| scale.to_le_bytes()).collect()
    }
}
