//! Matrix products on 8-bit codes.

use super::dynamic;
use super::float::output_shape;
use crate::plan::integer::finish::{Finish, int8};
use crate::plan::integer::product::{Operands, Product, product, weight_zero};
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{DType, Node, NodeId, Result, Tensor, ValueId};
use fewbit_kernels::Isa;
use fewbit_kernels::gemm::{Matrix, PackedI8, gemm_i8};

/// The step for a product of codes with a constant; the inner error says why it stays float.
///
/// # Errors
/// Never at present.
pub(crate) fn lower_integer(
    lowering: &Lowering,
    id: NodeId,
    node: &Node,
) -> Result<Result<Lowered, String>> {
    match super::blocks::lower_integer(lowering, id, node) {
        Some(step) => Ok(Ok(step)),
        None => Ok(try_lower(lowering, id, node)),
    }
}

fn try_lower(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Lowered, String> {
    let b = node.input(1).ok_or("the weight is missing")?;
    if node.is("MatMul") && lowering.is_computed(b) {
        return dynamic::lower(lowering, id, node);
    }
    let (weight, found) = matched(lowering, node)?;
    let found = found.with_addition(lowering, Some(weight.n));
    Ok(step(lowering.scope.kernels.isa, id, node, weight, found))
}

/// The product of codes with a constant that a node is, if it is one.
pub(crate) fn coded(lowering: &Lowering, node: &Node) -> Option<Product> {
    matched(lowering, node).ok().map(|(_, found)| found)
}

/// How a weight lies.
struct WeightForm {
    k: usize,
    n: usize,
    transposed: bool,
}

fn matched(lowering: &Lowering, node: &Node) -> Result<(WeightForm, Product), String> {
    let b = node.input(1).ok_or("the weight is missing")?;
    let a = node.input(0).ok_or("an input is missing")?;
    let Some([rows, cols]) = lowering.ty(b).fixed_shape().as_deref().and_then(matrix) else {
        return Err("the weight is not one matrix".to_string());
    };
    if lowering.ty(a).rank().is_none_or(|rank| rank < 2) {
        return Err("the input's rank is not known".to_string());
    }
    let transposed = gemm_flags(node)?;
    let (k, n) = if transposed { (cols, rows) } else { (rows, cols) };
    let (bias, bias_node) = bias_of(lowering, node, n);
    let found = product(
        lowering,
        node,
        Operands {
            weight: b,
            weight_axis: if transposed { 0 } else { 1 },
            channels: n,
            bias,
            bias_node,
            allow_residual: true,
        },
    )?;
    Ok((WeightForm { k, n, transposed }, found))
}

fn matrix(shape: &[usize]) -> Option<[usize; 2]> {
    match *shape {
        [rows, cols] if rows > 0 && cols > 0 => Some([rows, cols]),
        _ => None,
    }
}

/// Whether `Gemm` transposes its weight; other factors are not for codes.
fn gemm_flags(node: &Node) -> Result<bool, String> {
    if !node.is("Gemm") {
        return Ok(false);
    }
    let int = |name| node.int(name).ok().flatten().unwrap_or(0);
    let float = |name| node.float(name).ok().flatten().unwrap_or(1.0);
    if int("transA") != 0 || float("alpha") != 1.0 || float("beta") != 1.0 {
        return Err("Gemm with alpha, beta or transA".to_string());
    }
    Ok(int("transB") != 0)
}

/// The bias, and the addition that brings it where `MatMul` has none of its own.
fn bias_of(lowering: &Lowering, node: &Node, n: usize) -> (Option<ValueId>, Option<NodeId>) {
    if node.is("Gemm") {
        return (node.input(2), None);
    }
    let added = || {
        let (id, add) = lowering.sole_reader(node).filter(|(_, next)| next.is("Add"))?;
        let other = add.inputs.iter().flatten().copied().find(|&v| Some(v) != node.output(0))?;
        let bias = lowering.constant(other)?;
        (bias.len() == n && bias.shape().last() == Some(&n) && bias.rank() <= 2)
            .then_some((other, id))
    };
    added().map_or((None, None), |(bias, id)| (Some(bias), Some(id)))
}

fn step(
    isa: Isa,
    id: NodeId,
    node: &Node,
    WeightForm { k, n, transposed }: WeightForm,
    found: Product,
) -> Lowered {
    let Product { input, weight, finish, tail, output, residual } = found;
    let matrix_only = node.is("Gemm");
    let pack = move || {
        let zeros = weight_zero(&weight.zeros);
        let codes = int8(&weight.codes, weight.codes.dtype())?;
        let weights = match transposed {
            true => PackedI8::new_transposed(isa, k, n, codes, zeros),
            false => PackedI8::new(isa, k, n, codes, zeros),
        };
        weight.codes.release();
        let (dtype, zero_point) = (input.dtype, input.affine.zero_point);
        let finish = finish.prepared(isa);
        Ok(IntegerMatMul { weights, dtype, zero_point, finish, matrix_only })
    };
    let mut nodes = vec![id];
    nodes.extend(tail);
    let mut inputs = vec![Some(input.value)];
    inputs.extend(residual.map(Some));
    let mut step = Lowered::packed(nodes, pack, inputs, output, Rule::Default);
    step.integer = true;
    step
}

/// The prepared step: `[a]` or `[a, residual]`.
pub(crate) struct IntegerMatMul {
    pub weights: PackedI8,
    pub dtype: DType,
    pub zero_point: i32,
    pub finish: Finish,
    pub matrix_only: bool,
}

impl Kernel for IntegerMatMul {
    fn name(&self) -> String {
        format!("gemm_{}", self.finish.suffix())
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let a = required(inputs, 0)?;
        let (k, n) = (self.weights.k(), self.weights.n());
        let shape = output_shape(a.shape(), k, n, self.matrix_only)?;
        let mut output = ctx.arena.tensor(self.finish.dtype(), shape)?;
        let left = Matrix { data: int8(a, self.dtype)?, stride: k };
        let data = self.finish.output(&mut output, inputs.get(1).and_then(Option::as_ref))?;
        let right = Matrix { data, stride: n };
        gemm_i8(*ctx.kernels, a.len() / k, left, self.zero_point, &self.weights, right);
        Ok(vec![output])
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        let outputs = outputs.first().map_or(0, Tensor::len);
        (outputs as u64).saturating_mul(self.weights.k() as u64)
    }
}
