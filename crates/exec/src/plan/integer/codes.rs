//! Reading the quantization around a node: what its inputs and its output stand for.

use crate::plan::fuse::{clamp_of, scalar};
use crate::plan::lower::Lowering;
use fewbit_core::{DType, Node, NodeId, Tensor, ValueId};
use fewbit_kernels::gemm::Clamp;
use fewbit_kernels::quantize::{Affine, Quantizer};

/// 8-bit values with one scale and one zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Coded {
    /// The codes.
    pub value: ValueId,
    pub dtype: DType,
    pub affine: Affine,
}

/// Where the result of a node is quantized again.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Nodes from the activation to the quantization, both included.
    pub nodes: Vec<NodeId>,
    pub output: ValueId,
    pub dtype: DType,
    pub quantizer: Quantizer,
}

/// Why a node cannot be integer.
pub(crate) type Why = String;

/// The codes behind a dequantized value.
///
/// # Errors
/// What stands in the way.
pub(crate) fn coded(lowering: &Lowering, value: ValueId) -> Result<Coded, Why> {
    let producer = lowering.uses.producer(value).map(|id| lowering.graph.node(id));
    let Some(node) = producer.filter(|n| n.is("DequantizeLinear")) else {
        return Err("an input is not quantized".to_string());
    };
    let parameters = parameters(lowering, node, None)?;
    let value = node.input(0).ok_or("a DequantizeLinear has no input")?;
    Ok(Coded { value, dtype: parameters.0, affine: parameters.1 })
}

/// Element type and meaning of the codes of a Q or DQ node with one scale.
fn parameters(
    lowering: &Lowering,
    node: &Node,
    dtype: Option<DType>,
) -> Result<(DType, Affine), Why> {
    let constant = |index: usize| node.input(index).and_then(|v| lowering.constant(v));
    let scale = constant(1).ok_or("an activation scale is not constant")?;
    if scale.len() != 1 {
        return Err("an activation has a scale for each channel".to_string());
    }
    let scale = scalar(&scale).ok_or_else(|| format!("a scale of type {}", scale.dtype()))?;
    if scale.is_nan() || scale <= 0.0 || scale.is_infinite() {
        return Err(format!("a scale of {scale}"));
    }
    let zero = match node.input(2) {
        None => None,
        Some(_) => Some(constant(2).ok_or("a zero point is not constant")?),
    };
    let codes = node.input(0).and_then(|v| lowering.ty(v).dtype).filter(|d| d.is_int());
    let dtype = zero.as_ref().map(Tensor::dtype).or(dtype).or(codes).unwrap_or(DType::U8);
    if !matches!(dtype, DType::U8 | DType::I8) {
        return Err(format!("activations of {dtype}"));
    }
    let zero_point = match zero {
        None => 0,
        Some(zero) => match zero.to_i64().map_err(|e| e.to_string())?.as_slice() {
            [one] => *one as i32,
            _ => return Err("an activation has a zero point for each channel".to_string()),
        },
    };
    Ok((dtype, Affine { scale, zero_point }))
}

/// The quantization after `node`, over a clamping activation where there is one.
///
/// # Errors
/// What stands in the way.
pub(crate) fn target(lowering: &Lowering, node: &Node) -> Result<Target, Why> {
    let mut nodes = Vec::new();
    let mut clamp: Option<Clamp> = None;
    let unread = || "the output is not quantized, or is read elsewhere too".to_string();
    let (mut id, mut next) = lowering.sole_reader(node).ok_or_else(unread)?;
    if let Some(found) = clamp_of(lowering, next) {
        clamp = Some(found);
        nodes.push(id);
        (id, next) = lowering.sole_reader(next).ok_or_else(unread)?;
    }
    let (dtype, quantizer) = quantizer(lowering, next).map_err(|why| match next.op.as_str() {
        "QuantizeLinear" => why,
        _ => unread(),
    })?;
    nodes.push(id);
    let quantizer = match clamp {
        Some(Clamp { lo, hi }) => quantizer.clipped(lo, hi),
        None => quantizer,
    };
    let output = next.output(0).ok_or_else(unread)?;
    Ok(Target { nodes, output, dtype, quantizer })
}

/// What a `QuantizeLinear` node does.
///
/// # Errors
/// What stands in the way.
pub(crate) fn quantizer(lowering: &Lowering, node: &Node) -> Result<(DType, Quantizer), Why> {
    if !node.is("QuantizeLinear") {
        return Err("the output is not quantized".to_string());
    }
    let declared = node.int("output_dtype").ok().flatten().unwrap_or(0);
    let declared = i32::try_from(declared).ok().and_then(DType::from_onnx);
    let (dtype, affine) = parameters(lowering, node, declared.or(Some(DType::U8)))?;
    let (min, max) = limits(dtype);
    Ok((dtype, Quantizer::with_range(affine, min, max)))
}

/// Smallest and largest code of an 8-bit type.
pub(crate) fn limits(dtype: DType) -> (i32, i32) {
    if dtype == DType::I8 { (-128, 127) } else { (0, 255) }
}

/// A constant weight in codes, with a scale and a zero point for each output channel.
pub(crate) struct CodedWeight {
    pub codes: Tensor,
    pub scales: Vec<f32>,
    pub zeros: Vec<i32>,
    /// The dimension of the output channels.
    pub axis: usize,
}

/// The codes behind a weight with scales per tensor or along `axis`, which has `channels` entries.
///
/// # Errors
/// What stands in the way.
pub(crate) fn weight(
    lowering: &Lowering,
    value: ValueId,
    axis: usize,
    channels: usize,
) -> Result<CodedWeight, Why> {
    let producer = lowering.uses.producer(value).map(|id| lowering.graph.node(id));
    let Some(node) = producer.filter(|n| n.is("DequantizeLinear")) else {
        return Err("the weight is not quantized".to_string());
    };
    let constant = |index: usize| node.input(index).and_then(|v| lowering.graph.constant(v));
    let codes = constant(0).ok_or("the weight is not constant")?;
    let scales = constant(1).ok_or("the weight's scale is not constant")?;
    if !matches!(codes.dtype(), DType::U8 | DType::I8) {
        return Err(format!("the weight is {}", codes.dtype()));
    }
    if scales.dtype() != DType::F32 || scales.rank() > 1 {
        return Err(format!("the weight has scales {scales:?}"));
    }
    let along = node.int("axis").ok().flatten().unwrap_or(1);
    let along = if along < 0 { along + codes.rank() as i64 } else { along };
    if scales.len() != 1 && (along != axis as i64 || scales.len() != channels) {
        return Err("the weight's scales do not run along the output channels".to_string());
    }
    let zeros = match node.input(2) {
        None => vec![0],
        Some(_) => {
            let zeros = constant(2).ok_or("the weight's zero point is not constant")?;
            if zeros.dtype() != codes.dtype() {
                return Err(format!("the weight's zero point is {}", zeros.dtype()));
            }
            zeros.to_i64().map_err(|e| e.to_string())?.into_iter().map(|z| z as i32).collect()
        }
    };
    let scales = scales.to_f32().map_err(|e| e.to_string())?;
    let spread = |len: usize| if len == 1 { 0 } else { 1 };
    if zeros.len() != 1 && zeros.len() != channels {
        return Err("the weight's zero points do not run along the output channels".to_string());
    }
    Ok(CodedWeight {
        codes: codes.clone(),
        scales: (0..channels).map(|c| scales[c * spread(scales.len())]).collect(),
        zeros: (0..channels).map(|c| zeros[c * spread(zeros.len())]).collect(),
        axis,
    })
}

/// The bias of a product: exact in units of `input_scale * weight_scale`, or any numbers.
pub(crate) enum Bias {
    None,
    Exact(Vec<i32>),
    Float(Vec<f32>),
}

/// Reads a constant bias for sums whose unit is `units[c]`.
///
/// # Errors
/// What stands in the way.
pub(crate) fn bias(
    lowering: &Lowering,
    value: Option<ValueId>,
    units: &[f64],
) -> Result<Bias, Why> {
    let Some(value) = value else { return Ok(Bias::None) };
    let numbers = lowering.constant(value).ok_or("the bias is not constant")?;
    if numbers.dtype() != DType::F32 || numbers.len() != units.len() {
        return Err(format!("the bias is {numbers:?}"));
    }
    if let Some(exact) = exact_bias(lowering, value, units) {
        return Ok(Bias::Exact(exact));
    }
    Ok(Bias::Float(numbers.to_f32().map_err(|e| e.to_string())?))
}

/// The int32 codes of a bias whose scale is that of the sums, up to the rounding of their product.
fn exact_bias(lowering: &Lowering, value: ValueId, units: &[f64]) -> Option<Vec<i32>> {
    let node = lowering.graph.node(lowering.uses.producer(value)?);
    if !node.is("DequantizeLinear") {
        return None;
    }
    let constant = |index: usize| lowering.graph.constant(node.input(index)?);
    let codes = constant(0).filter(|codes| codes.dtype() == DType::I32)?;
    let scales = constant(1)?.to_f64().ok()?;
    let zeros = match node.input(2) {
        None => vec![0],
        Some(_) => constant(2)?.to_i64().ok()?,
    };
    let scale = |c: usize| scales.get(if scales.len() == 1 { 0 } else { c }).copied();
    let same =
        |(c, unit): (usize, &f64)| scale(c).is_some_and(|s| (s - unit).abs() <= 1e-6 * unit.abs());
    let exact = zeros.iter().all(|&z| z == 0) && units.iter().enumerate().all(same);
    exact.then(|| codes.to_vec::<i32>().ok()).flatten()
}
