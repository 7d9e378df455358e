//! Convolutions and matrix products on codes.

use super::codes::{Bias, Coded, CodedWeight, Target, Why, bias, coded, target, weight};
use super::finish::{Addend, Codes, Finish};
use crate::plan::fuse::{clamp_of, same_shape};
use crate::plan::lower::Lowering;
use fewbit_core::{Node, NodeId, ValueId};
use fewbit_kernels::gemm::{Clamp, OwnCodes, WeightZero};
use fewbit_kernels::quantize::Affine;

/// A product on codes: what it reads, and what becomes of its sums.
pub(crate) struct Product {
    pub input: Coded,
    pub weight: CodedWeight,
    pub finish: Finish,
    /// Nodes after the product that are part of the step.
    pub tail: Vec<NodeId>,
    pub output: ValueId,
    /// Codes that are added: of the same shape, or a row.
    pub residual: Option<ValueId>,
}

/// Where a product's operands stand.
pub(crate) struct Operands {
    pub weight: ValueId,
    pub weight_axis: usize,
    pub channels: usize,
    pub bias: Option<ValueId>,
    /// An addition of the bias, where that is a node of its own.
    pub bias_node: Option<NodeId>,
    pub allow_residual: bool,
}

/// Matches the quantization around a product.
///
/// # Errors
/// Why it cannot be computed on codes.
pub(crate) fn product(
    lowering: &Lowering,
    node: &Node,
    operands: Operands,
) -> Result<Product, Why> {
    let input = coded(lowering, node.input(0).ok_or("an input is missing")?)?;
    let Operands { weight: w, weight_axis, channels, .. } = operands;
    let weight = weight(lowering, w, weight_axis, channels)?;
    let scale = f64::from(input.affine.scale);
    let units: Vec<f64> = weight.scales.iter().map(|&w| scale * f64::from(w)).collect();
    let bias = bias(lowering, operands.bias, &units)?;
    let mut tail: Vec<NodeId> = operands.bias_node.into_iter().collect();
    let last = operands.bias_node.map_or(node, |id| lowering.graph.node(id));
    let bias = match bias {
        Bias::None => None,
        Bias::Exact(codes) => Some(codes),
        Bias::Float(numbers) => {
            let ends = Ends { input, weight, units, tail };
            return float_output(lowering, last, ends, Some(numbers));
        }
    };
    let Some(found) = requantized(lowering, last, operands.allow_residual) else {
        let numbers = bias.map(|codes| {
            codes.iter().zip(&units).map(|(&b, unit)| (f64::from(b) * unit) as f32).collect()
        });
        let ends = Ends { input, weight, units, tail };
        return float_output(lowering, last, ends, numbers);
    };
    tail.extend(&found.target.nodes);
    let finish = Finish::Codes(found.codes(bias, &units));
    let (output, residual) = (found.target.output, found.residual.map(|r| r.value));
    Ok(Product { input, weight, finish, tail, output, residual })
}

/// What is known of a product before its output.
struct Ends {
    input: Coded,
    weight: CodedWeight,
    /// What one unit of each channel's sums stands for.
    units: Vec<f64>,
    tail: Vec<NodeId>,
}

fn float_output(
    lowering: &Lowering,
    last: &Node,
    ends: Ends,
    bias: Option<Vec<f32>>,
) -> Result<Product, Why> {
    let Ends { input, weight, units, mut tail } = ends;
    let mut output = last.output(0).ok_or("no output")?;
    let mut clamp: Option<Clamp> = None;
    let clamped = lowering
        .sole_reader(last)
        .and_then(|(id, next)| Some((id, clamp_of(lowering, next)?, next.output(0)?)));
    if let Some((id, found, value)) = clamped {
        tail.push(id);
        output = value;
        clamp = Some(found);
    }
    let scale = units.iter().map(|&u| u as f32).collect();
    let finish = Finish::Float { scale, bias, clamp };
    Ok(Product { input, weight, finish, tail, output, residual: None })
}

/// A quantized output, perhaps after the addition of other codes.
struct Requantized {
    target: Target,
    residual: Option<Coded>,
}

fn requantized(lowering: &Lowering, node: &Node, residual: bool) -> Option<Requantized> {
    if let Ok(target) = target(lowering, node) {
        return Some(Requantized { target, residual: None });
    }
    let (id, add) = lowering.sole_reader(node).filter(|_| residual)?;
    let codes = addend(lowering, node, add)?;
    let mut target = target(lowering, add).ok()?;
    target.nodes.insert(0, id);
    Some(Requantized { target, residual: Some(codes) })
}

/// The codes that `add` adds to the output of `node`, which has their shape.
fn addend(lowering: &Lowering, node: &Node, add: &Node) -> Option<Coded> {
    let (output, other) = (node.output(0)?, other_addend(node, add)?);
    let codes = coded(lowering, other).ok()?;
    let dynamic = lowering.graph.constant(codes.value).is_none();
    (dynamic && same_shape(lowering.ty(other), lowering.ty(output))).then_some(codes)
}

/// The constant codes that `add` adds to each row of `columns` elements of the output of `node`.
fn row(lowering: &Lowering, node: &Node, add: &Node, columns: usize) -> Option<Coded> {
    let codes = coded(lowering, other_addend(node, add)?).ok()?;
    let constant = lowering.graph.constant(codes.value)?;
    let rank = lowering.ty(node.output(0)?).rank()?;
    let is_row = constant.len() == columns && constant.shape().last() == Some(&columns);
    (is_row && constant.rank() <= rank).then_some(codes)
}

/// What `add` adds to the output of `node`.
fn other_addend(node: &Node, add: &Node) -> Option<ValueId> {
    let output = node.output(0)?;
    if !add.is("Add") || add.inputs.len() != 2 {
        return None;
    }
    match (add.input(0)?, add.input(1)?) {
        (a, b) if a == output && b != output => Some(b),
        (a, b) if b == output && a != output => Some(a),
        _ => None,
    }
}

impl Product {
    /// The product with the addition of other codes behind its own, where nothing else reads
    /// them: both roundings are done, as the nodes say, in one pass. Where channels come last in
    /// the output, there are `columns` of them, and what is added may be a row of constants.
    pub fn with_addition(mut self, lowering: &Lowering, columns: Option<usize>) -> Product {
        if let Finish::Codes(codes) = &mut self.finish
            && let Some(added) = Added::find(lowering, self.output, codes, columns)
        {
            added.apply(codes);
            self.tail.extend(added.nodes);
            (self.output, self.residual) = (added.target.output, Some(added.other.value));
        }
        self
    }
}

/// An addition of codes to those of a product.
struct Added {
    /// From the dequantization to the quantization.
    nodes: Vec<NodeId>,
    /// What the codes of the product stand for.
    scale: f32,
    other: Coded,
    is_row: bool,
    target: Target,
}

impl Added {
    fn find(
        lowering: &Lowering,
        value: ValueId,
        codes: &Codes,
        columns: Option<usize>,
    ) -> Option<Added> {
        let dequantize = lowering.uses.sole_consumer(value).filter(|&id| !lowering.is_taken(id))?;
        let node = lowering.graph.node(dequantize);
        let own = coded(lowering, node.output(0)?).ok()?;
        let (id, add) = lowering.sole_reader(node)?;
        let row = columns.and_then(|columns| row(lowering, node, add, columns));
        let (other, is_row) = (row.or_else(|| addend(lowering, node, add))?, row.is_some());
        let target = target(lowering, add).ok()?;
        let same = own.value == value && own.affine.zero_point == codes.zero_point;
        let mut nodes = vec![dequantize, id];
        nodes.extend(&target.nodes);
        let found = Added { nodes, scale: own.affine.scale, other, is_row, target };
        (same && codes.residual.is_none() && found.is_finite()).then_some(found)
    }

    /// Whether no number on the way can leave `f32`.
    fn is_finite(&self) -> bool {
        let (ours, theirs) = (self.scale, self.other.affine.scale);
        let step = self.target.quantizer.affine().scale;
        [ours, theirs, step].iter().all(|scale| (1e-15..1e15).contains(scale))
    }

    fn apply(&self, codes: &mut Codes) {
        let affine = self.target.quantizer.affine();
        let (lo, hi) = (codes.lo - codes.zero_point, codes.hi - codes.zero_point);
        codes.own = Some(OwnCodes { lo, hi, scale: self.scale, step: affine.scale, fused: None });
        codes.residual = Some(self.other.addend(self.is_row, 1.0));
        (codes.dtype, codes.zero_point) = (self.target.dtype, affine.zero_point);
        (codes.lo, codes.hi) = self.target.quantizer.range();
    }
}

impl Coded {
    /// These codes as a residual of an output in steps of `step`.
    fn addend(&self, is_row: bool, step: f32) -> Addend {
        let Affine { scale, zero_point } = self.affine;
        Addend { dtype: self.dtype, is_row, zero_point, multiplier: scale / step }
    }
}

impl Requantized {
    fn codes(&self, bias: Option<Vec<i32>>, units: &[f64]) -> Codes {
        let affine = self.target.quantizer.affine();
        let (lo, hi) = self.target.quantizer.range();
        let step = affine.scale;
        let residual = self.residual.map(|codes| codes.addend(false, step));
        Codes {
            dtype: self.target.dtype,
            bias,
            // Rounded twice, as other engines do it: then their codes are ours.
            multiplier: units.iter().map(|&unit| unit as f32 / step).collect(),
            zero_point: affine.zero_point,
            lo,
            hi,
            residual,
            own: None,
        }
    }
}

/// A product of two coded tensors, and what becomes of its sums.
pub(crate) struct CodedPair {
    pub inputs: [Coded; 2],
    pub finish: Finish,
    /// Nodes after the product that are part of the step.
    pub tail: Vec<NodeId>,
    pub output: ValueId,
}

/// Matches the quantization around a product with `columns` columns of which no operand is
/// constant.
///
/// # Errors
/// Why it cannot be computed on codes.
pub(crate) fn coded_pair(
    lowering: &Lowering,
    node: &Node,
    columns: usize,
) -> Result<CodedPair, Why> {
    let operand = |index: usize| coded(lowering, node.input(index).ok_or("an input is missing")?);
    let inputs = [operand(0)?, operand(1)?];
    let unit = f64::from(inputs[0].affine.scale) * f64::from(inputs[1].affine.scale);
    let Ok(target) = target(lowering, node) else {
        let finish = Finish::Float { scale: vec![unit as f32; columns], bias: None, clamp: None };
        let output = node.output(0).ok_or("no output")?;
        return Ok(CodedPair { inputs, finish, tail: Vec::new(), output });
    };
    let (output, tail) = (target.output, target.nodes.clone());
    let codes = Requantized { target, residual: None }.codes(None, &vec![unit; columns]);
    Ok(CodedPair { inputs, finish: Finish::Codes(codes), tail, output })
}

/// The kernels' view of the zero points of a weight.
pub(crate) fn weight_zero(zeros: &[i32]) -> WeightZero<'_> {
    match zeros.iter().all(|&z| z == 0) {
        true => WeightZero::None,
        false => WeightZero::Column(zeros),
    }
}
