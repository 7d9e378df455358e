//! Matrix products of two tensors of 8-bit codes, as in attention.

use super::shape::{Product, product};
use crate::plan::integer::codes::Coded;
use crate::plan::integer::finish::{Finish, int8};
use crate::plan::integer::product::{CodedPair, coded_pair};
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{Error, Node, NodeId, Result, Tensor};
use fewbit_kernels::gemm::{Matrix, PackedI8, WeightZero, gemm_i8, gemm_i8_batches};

/// The step for a product of which no operand is constant.
///
/// # Errors
/// Why it stays float.
pub(super) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Lowered, String> {
    let shape = node.input(1).and_then(|b| lowering.ty(b).shape.as_ref());
    let columns = match shape.map(Vec::as_slice) {
        Some([_, .., columns]) => columns.known(),
        _ => None,
    };
    let columns = columns.ok_or("the number of columns is not known")?;
    let CodedPair { inputs, finish, tail, output } = coded_pair(lowering, node, columns)?;
    let values = inputs.iter().map(|input| Some(input.value)).collect();
    let depth = match shape.map(Vec::as_slice) {
        Some([.., rows, _]) => rows.known().unwrap_or(0),
        _ => 0,
    };
    let kernel = DynamicMatMul { inputs, finish, columns, depth };
    let mut nodes = vec![id];
    nodes.extend(tail);
    let mut step = Lowered::new(nodes, Box::new(kernel), values, output, Rule::Default);
    step.integer = true;
    Ok(step)
}

/// The prepared step: `[a, b]`, batches broadcast as ONNX's `MatMul` says.
struct DynamicMatMul {
    inputs: [Coded; 2],
    finish: Finish,
    columns: usize,
    /// Length of the sums where it is declared, else 0.
    depth: usize,
}

impl DynamicMatMul {
    fn multiply(&self, ctx: &RunCtx, a: &Tensor, b: &Tensor, output: &mut Tensor) -> Result<()> {
        let shape = product(a.shape(), b.shape())?;
        let Product { m, k, n, .. } = shape;
        let [left, right] = &self.inputs;
        let (x, w) = (int8(a, left.dtype)?, int8(b, right.dtype)?);
        let zero = WeightZero::Tensor(right.affine.zero_point);
        let mut out = self.finish.output(output, None)?;
        let batches: Vec<(usize, usize)> = shape.batches().collect();
        if batches.iter().enumerate().all(|(batch, (i, _))| batch == *i) {
            let matrices: Vec<usize> = batches.iter().map(|(_, j)| *j).collect();
            let operands = ((x, left.affine.zero_point), (w, right.affine.zero_point));
            gemm_i8_batches(*ctx.kernels, &matrices, [m, k, n], operands.0, operands.1, out);
            return Ok(());
        }
        let mut packed: Option<(usize, PackedI8)> = None;
        for (batch, (i, j)) in batches.into_iter().enumerate() {
            if packed.as_ref().is_none_or(|(at, _)| *at != j) {
                let matrix = w.range(j * k * n, k * n);
                packed = Some((j, PackedI8::new(ctx.kernels.isa, k, n, matrix, zero)));
            }
            let Some((_, weights)) = &packed else { continue };
            let a = Matrix { data: x.range(i * m * k, m * k), stride: k };
            let c = Matrix { data: out.range(batch * m * n, m * n), stride: n };
            gemm_i8(*ctx.kernels, m, a, left.affine.zero_point, weights, c);
        }
        Ok(())
    }
}

impl Kernel for DynamicMatMul {
    fn name(&self) -> String {
        format!("matmul_{}", self.finish.suffix())
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let (a, b) = (required(inputs, 0)?, required(inputs, 1)?);
        let shape = product(a.shape(), b.shape())?.output;
        if b.shape().last() != Some(&self.columns) {
            return Err(Error::bad_input(format!(
                "a right operand of shape {:?} where {} columns were declared",
                b.shape(),
                self.columns
            )));
        }
        let mut output = ctx.arena.tensor(self.finish.dtype(), shape)?;
        if !output.is_empty() {
            self.multiply(ctx, a, b, &mut output)?;
        }
        Ok(vec![output])
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        outputs.first().map_or(0, |y| y.len() as u64).saturating_mul(self.depth as u64)
    }
}
