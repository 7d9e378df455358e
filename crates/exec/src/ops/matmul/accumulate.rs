//! `MatMulInteger` with a constant matrix, and the scales and the bias behind it: what products are
//! written as whose inputs are quantized while the model runs.

use super::float::output_shape;
use super::lower::added;
use crate::plan::integer::finish::int8;
use crate::plan::integer::product::weight_zero;
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{DType, Error, Node, NodeId, Result, Tensor, ValueId};
use fewbit_kernels::gemm::{Dequantize, Matrix, Output, PackedI8, gemm_i8};

/// The step for such a product; `None` leaves it to the plain evaluation.
///
/// # Errors
/// When the zero points contradict the weight.
pub(crate) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Option<Lowered>> {
    let (Some(a), Some(y)) = (node.input(0), node.output(0)) else { return Ok(None) };
    let dtype = lowering.ty(a).dtype.filter(|dtype| is_byte(*dtype));
    let ranked = lowering.ty(a).rank().is_some_and(|rank| rank > 1);
    let zero = node.input(2);
    let one_zero = zero.is_none_or(|zero| is_number(lowering, zero));
    let (Some(dtype), Some(weight), true) =
        (dtype, Weight::of(lowering, node)?, ranked && one_zero)
    else {
        return Ok(None);
    };
    let mut nodes = vec![id];
    let mut inputs = vec![Some(a), zero];
    let (mut output, mut bias) = (y, None);
    let scaled = Scaled::behind(lowering, node, weight.n);
    let is_scaled = scaled.is_some();
    if let Some(scaled) = scaled {
        nodes.extend(scaled.nodes);
        inputs.push(Some(scaled.scale));
        (output, bias) = (scaled.output, scaled.bias);
    }
    let isa = lowering.scope.kernels.isa;
    let pack = move || {
        let zero = weight_zero(&weight.zeros);
        let codes = int8(&weight.codes, weight.codes.dtype())?;
        let weights = PackedI8::new(isa, weight.k, weight.n, codes, zero);
        weight.codes.release();
        Ok(Accumulated { weights, dtype, is_scaled, bias })
    };
    let mut step = Lowered::packed(nodes, pack, inputs, output, Rule::Default);
    step.integer = true;
    Ok(Some(step))
}

fn is_byte(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::I8)
}

/// Whether a value is known to be a single number.
fn is_number(lowering: &Lowering, value: ValueId) -> bool {
    lowering.ty(value).fixed_shape().is_some_and(|shape| matches!(shape[..], [] | [1]))
}

/// The right operand.
struct Weight {
    codes: Tensor,
    k: usize,
    n: usize,
    /// One for each column, or none.
    zeros: Vec<i32>,
}

impl Weight {
    fn of(lowering: &Lowering, node: &Node) -> Result<Option<Weight>> {
        let constant = |index: usize| node.input(index).and_then(|v| lowering.constant(v));
        let Some(codes) = constant(1).filter(|codes| is_byte(codes.dtype())) else {
            return Ok(None);
        };
        let zeros = constant(3).filter(|zeros| zeros.dtype() == codes.dtype());
        let (&[k, n], computed) = (codes.shape(), node.input(3).is_some() && zeros.is_none())
        else {
            return Ok(None);
        };
        let zeros = zeros.map(|zeros| zeros.to_i64()).transpose()?.unwrap_or_default();
        let fits = zeros.len() <= 1 || zeros.len() == n;
        if k == 0 || n == 0 || computed || !fits {
            return Ok(None);
        }
        let zeros = match zeros[..] {
            [zero] => vec![zero as i32; n],
            _ => zeros.into_iter().map(|zero| zero as i32).collect(),
        };
        Ok(Some(Weight { codes, k, n, zeros }))
    }
}

/// `Cast` to f32, `Mul` by scales, and maybe `Add` of a constant row.
struct Scaled {
    nodes: Vec<NodeId>,
    scale: ValueId,
    bias: Option<Vec<f32>>,
    output: ValueId,
}

impl Scaled {
    /// What stands behind a product of `n` columns, if it is that.
    fn behind(lowering: &Lowering, node: &Node, n: usize) -> Option<Scaled> {
        let (cast, casting) = lowering.sole_reader(node).filter(|(_, next)| next.is("Cast"))?;
        let float = i64::from(DType::F32.to_onnx());
        casting.int("to").ok().flatten().filter(|&to| to == float)?;
        let (mul, scaling) = lowering.sole_reader(casting).filter(|(_, next)| next.is("Mul"))?;
        let scale = other(scaling, casting.output(0)?)?;
        let ty = lowering.ty(scale);
        let shape = ty.fixed_shape()?;
        let fits = matches!(shape[..], [] | [1]) || shape[..] == [n];
        if ty.dtype != Some(DType::F32) || !fits {
            return None;
        }
        let (mut nodes, mut output) = (vec![cast, mul], scaling.output(0)?);
        let bias = added(lowering, scaling, n).map(|(add, bias, biased)| {
            nodes.push(add);
            output = biased;
            bias
        });
        Some(Scaled { nodes, scale, bias, output })
    }
}

/// The input of a node of two that is not `value`.
fn other(node: &Node, value: ValueId) -> Option<ValueId> {
    node.inputs.iter().flatten().copied().find(|&input| input != value)
}

/// The prepared step: `[a, zero point]`, and scales where it `is_scaled`.
struct Accumulated {
    weights: PackedI8,
    dtype: DType,
    is_scaled: bool,
    bias: Option<Vec<f32>>,
}

impl Kernel for Accumulated {
    fn name(&self) -> String {
        format!("gemm_i8_{}", if self.is_scaled { "f32" } else { "i32" })
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let a = required(inputs, 0)?;
        let (k, n) = (self.weights.k(), self.weights.n());
        let shape = output_shape(a.shape(), k, n, false)?;
        let zero = inputs.get(1).and_then(Option::as_ref);
        let zero = zero.map_or(Ok(0), |zero| self.zero_point(zero))?;
        let left = Matrix { data: int8(a, self.dtype)?, stride: k };
        let rows = a.len() / k;
        if !self.is_scaled {
            let mut output = ctx.arena.tensor(DType::I32, shape)?;
            let data = Output::I32(output.as_mut_slice()?);
            gemm_i8(*ctx.kernels, rows, left, zero, &self.weights, Matrix { data, stride: n });
            return Ok(vec![output]);
        }
        let mut scale = required(inputs, 2)?.to_f32()?;
        if let [only] = scale[..] {
            scale = vec![only; n];
        }
        if scale.len() != n {
            return Err(Error::bad_input(format!("{} scales for {n} columns", scale.len())));
        }
        let to = Dequantize { scale: &scale, bias: self.bias.as_deref(), clamp: None };
        let mut output = ctx.arena.tensor(DType::F32, shape)?;
        let data = Output::F32(output.as_mut_slice()?, to);
        gemm_i8(*ctx.kernels, rows, left, zero, &self.weights, Matrix { data, stride: n });
        Ok(vec![output])
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        let outputs = outputs.first().map_or(0, Tensor::len);
        (outputs as u64).saturating_mul(self.weights.k() as u64)
    }
}

impl Accumulated {
    /// The zero point of the left operand.
    fn zero_point(&self, tensor: &Tensor) -> Result<i32> {
        match tensor.to_i64()?[..] {
            [zero] if tensor.dtype() == self.dtype => Ok(zero as i32),
            _ => Err(Error::bad_input(format!(
                "a zero point {tensor:?} for codes of type {}",
                self.dtype
            ))),
        }
    }
}
