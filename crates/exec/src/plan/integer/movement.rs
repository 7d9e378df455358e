//! Operators that only move or select elements, run on the codes themselves.

use super::around;
use super::codes::{Target, Why, coded, target};
use super::pointwise::{Table, take};
use crate::ops;
use crate::plan::axes::move_attributes;
use crate::plan::kernel::{EvalKernel, Inputs, Kernel, RunCtx};
use crate::plan::layout::{Rule, rule_of};
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{Attr, DType, Error, Node, NodeId, Result, Tensor, ValueId};

/// Whether an operator moves elements of its first input without computing on them, or selects
/// the largest of them, which codes and numbers agree on.
pub(crate) fn moves(node: &Node) -> bool {
    match node.op.as_str() {
        "Reshape" | "Transpose" | "Flatten" | "Squeeze" | "Unsqueeze" | "Slice"
        | "DepthToSpace" | "SpaceToDepth" | "Gather" | "Expand" | "Tile" | "Pad" | "MaxPool"
        | "GlobalMaxPool" => true,
        "Resize" | "Upsample" => {
            matches!(node.string("mode"), Ok(None | Some("nearest")))
        }
        _ => false,
    }
}

/// The step for a node that moves codes.
///
/// # Errors
/// The outer one when the node contradicts itself; the inner one says why it stays float.
pub(crate) fn lower_move(
    lowering: &Lowering,
    id: NodeId,
    node: &Node,
) -> Result<Result<Lowered, Why>> {
    let (input, target) = match around(lowering, node) {
        Ok(found) => found,
        Err(why) => return Ok(Err(why)),
    };
    let table = Table::requantize(input, target.dtype, target.quantizer);
    let inner: Box<dyn Kernel>;
    let rule;
    if node.op.ends_with("Pool") && lowering.ty(input.value).rank().is_some_and(|r| r >= 3) {
        inner = ops::pool::kernel(node)?;
        rule = Rule::Last { output: true };
    } else {
        let def = *lowering.scope.def(node)?;
        inner = Box::new(EvalKernel::new(node.clone(), def, lowering.scope.opset(node)));
        rule = rule_of(lowering, node);
    }
    let zero = match node.op.as_str() {
        "Pad" if !pads_with_zero(lowering, node) => {
            return Ok(Err("its border is not 0".to_string()));
        }
        "Pad" => Some(Tensor::from_f64(input.dtype, vec![], &[input.affine.zero_point.into()])?),
        _ => None,
    };
    let kernel = MoveKernel { inner, input: input.dtype, zero, table };
    let mut inputs = node.inputs.clone();
    inputs[0] = Some(input.value);
    Ok(Ok(integer_step(id, &target, Box::new(kernel), inputs, rule)))
}

/// Whether the elements that a `Pad` adds are 0 or those at the edges.
fn pads_with_zero(lowering: &Lowering, node: &Node) -> bool {
    let fill = match node.input(2) {
        Some(fill) => lowering.constant(fill).and_then(|fill| fill.to_f32().ok()),
        None => node.float("value").ok().map(|fill| vec![fill.unwrap_or(0.0)]),
    };
    let constant = matches!(node.string("mode"), Ok(None | Some("constant")));
    !constant || fill.is_some_and(|fill| fill == [0.0])
}

fn integer_step(
    id: NodeId,
    target: &Target,
    kernel: Box<dyn Kernel>,
    inputs: Vec<Option<ValueId>>,
    rule: Rule,
) -> Lowered {
    let mut nodes = vec![id];
    nodes.extend(&target.nodes);
    let mut step = Lowered::new(nodes, kernel, inputs, target.output, rule);
    step.integer = true;
    step
}

struct MoveKernel {
    inner: Box<dyn Kernel>,
    input: DType,
    /// The code of the elements that a `Pad` adds.
    zero: Option<Tensor>,
    table: Option<Table>,
}

impl Kernel for MoveKernel {
    fn name(&self) -> String {
        let suffix = if self.table.is_some() { "_requantize" } else { "" };
        format!("{}_i8{suffix}", self.inner.name())
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let codes = take(inputs, 0, self.input)?;
        inputs[0] = Some(codes);
        if let Some(zero) = &self.zero {
            inputs.resize(inputs.len().max(3), None);
            inputs[2] = Some(zero.clone());
        }
        let outputs = self.inner.run(ctx, inputs)?;
        let Some(table) = &self.table else { return Ok(outputs) };
        outputs.into_iter().map(|codes| table.apply(ctx, codes)).collect()
    }

    fn permutes(&self) -> Option<&[i64]> {
        self.inner.permutes().filter(|_| self.table.is_none())
    }

    fn use_channels_last(&mut self, rank: usize) {
        self.inner.use_channels_last(rank);
    }
}

/// The step for a join of coded tensors.
///
/// # Errors
/// Why it stays float.
pub(crate) fn lower_concat(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Lowered, Why> {
    let target = target(lowering, node)?;
    let mut inputs = Vec::with_capacity(node.inputs.len());
    let mut parts = Vec::with_capacity(node.inputs.len());
    for value in &node.inputs {
        let codes = coded(lowering, value.ok_or("an input is missing")?)?;
        inputs.push(Some(codes.value));
        parts.push((codes.dtype, Table::requantize(codes, target.dtype, target.quantizer)));
    }
    let kernel = ConcatKernel { node: node.clone(), parts, dtype: target.dtype };
    Ok(integer_step(id, &target, Box::new(kernel), inputs, Rule::AnyOfAll))
}

struct ConcatKernel {
    node: Node,
    /// Type of each input, and how its codes become those of the output.
    parts: Vec<(DType, Option<Table>)>,
    dtype: DType,
}

impl Kernel for ConcatKernel {
    fn name(&self) -> String {
        let same = self.parts.iter().all(|(_, table)| table.is_none());
        if same { "concat_i8" } else { "concat_i8_requantize" }.to_string()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let mut parts = Vec::with_capacity(inputs.len());
        for (index, (dtype, table)) in self.parts.iter().enumerate() {
            let codes = take(inputs, index, *dtype)?;
            parts.push(match table {
                Some(table) => table.apply(ctx, codes)?,
                None => codes,
            });
        }
        let output = join(ctx, &parts, self.axis(parts.first())?, self.dtype)?;
        parts.into_iter().for_each(|t| ctx.arena.recycle(t));
        Ok(vec![output])
    }

    fn use_channels_last(&mut self, rank: usize) {
        move_attributes(&mut self.node, rank);
    }
}

impl ConcatKernel {
    fn axis(&self, first: Option<&Tensor>) -> Result<usize> {
        let Some(Attr::Int(axis)) = self.node.attr("axis") else {
            return Err(Error::bad_input("attribute `axis` is missing"));
        };
        crate::eval::axis_index(*axis, first.map_or(0, Tensor::rank))
    }
}

/// Joins byte tensors along `axis`.
fn join(ctx: &RunCtx, parts: &[Tensor], axis: usize, dtype: DType) -> Result<Tensor> {
    let Some(first) = parts.first() else { return Err(Error::bad_input("nothing to join")) };
    let mut shape = first.shape().to_vec();
    let fits = |t: &Tensor| {
        let pairs = t.shape().iter().zip(&shape).enumerate();
        t.rank() == shape.len() && pairs.fold(true, |ok, (i, (a, b))| ok && (i == axis || a == b))
    };
    if !parts.iter().all(fits) {
        return Err(Error::bad_input("tensors of different shapes are joined"));
    }
    shape[axis] = parts.iter().map(|t| t.shape()[axis]).sum();
    let inner: usize = shape[axis + 1..].iter().product();
    let mut output = ctx.arena.tensor(dtype, shape.clone())?;
    let row = shape[axis] * inner;
    if row == 0 {
        return Ok(output);
    }
    for (index, out) in output.bytes_mut().chunks_exact_mut(row).enumerate() {
        let mut at = 0;
        for part in parts {
            let len = part.shape()[axis] * inner;
            out[at..at + len].copy_from_slice(&part.bytes()[index * len..][..len]);
            at += len;
        }
    }
    Ok(output)
}
