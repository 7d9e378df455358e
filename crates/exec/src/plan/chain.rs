//! Elementwise operators that follow each other, as one step: a block of the value goes through
//! all of them while it is in the cache.

use super::fuse::scalar;
use super::kernel::{Inputs, Kernel, RunCtx};
use super::layout::Rule;
use super::lower::{Lowered, Lowering};
use fewbit_core::{DType, Error, Node, NodeId, Result, Tensor, ValueId};
use fewbit_kernels::elementwise::{Binary, Unary, binary_f32, unary_f32_in_place};

/// Elements of a block: three of them fit in the first-level cache.
const BLOCK: usize = 2048;

/// One operator of a chain: what becomes of the value so far.
#[derive(Clone, Copy)]
enum Step {
    Unary(Unary),
    /// With a number.
    Number(Binary, f32, Side),
    /// With what came into the chain.
    Input(Binary, Side),
}

/// Which operand the value so far is.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Left,
    Right,
}

/// The step for `node` and what follows it, where that is at least two operators on one value.
pub(crate) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Option<Lowered> {
    let input = first_input(lowering, node)?;
    let rank = lowering.ty(input).rank()?;
    if lowering.ty(input).dtype != Some(DType::F32) {
        return None;
    }
    let link = |node: &Node, value| step(lowering, node, value, (input, rank));
    let mut steps = vec![link(node, input)?];
    let (mut nodes, mut last) = (vec![id], node);
    while let Some((id, next)) = lowering.sole_reader(last) {
        let Some(step) = last.output(0).and_then(|value| link(next, value)) else { break };
        steps.push(step);
        nodes.push(id);
        last = next;
    }
    if steps.len() < 2 {
        return None;
    }
    let kernel = Box::new(Chain { steps });
    Some(Lowered::new(nodes, kernel, vec![Some(input)], last.output(0)?, Rule::AnyOfFirst))
}

/// The operand of a chain's first node that is no number.
fn first_input(lowering: &Lowering, node: &Node) -> Option<ValueId> {
    let computed = |value: &&ValueId| lowering.constant(**value).is_none();
    node.inputs.iter().flatten().find(computed).copied()
}

fn step(
    lowering: &Lowering,
    node: &Node,
    value: ValueId,
    (input, rank): (ValueId, usize),
) -> Option<Step> {
    if !matches!(node.domain.as_str(), "" | "ai.onnx") || lowering.scope.opset(node) < 7 {
        return None;
    }
    if let Some(function) = unary(node) {
        return (node.inputs.len() == 1 && node.input(0) == Some(value))
            .then_some(Step::Unary(function));
    }
    let function = binary(node)?;
    let [Some(a), Some(b)] = *node.inputs.as_slice() else { return None };
    let (other, side) = match (a == value, b == value) {
        (true, _) => (b, Side::Left),
        (_, true) => (a, Side::Right),
        _ => return None,
    };
    if other == input {
        return Some(Step::Input(function, side));
    }
    let constant = lowering.constant(other).filter(|c| c.rank() <= rank)?;
    scalar(&constant).map(|number| Step::Number(function, number, side))
}

fn unary(node: &Node) -> Option<Unary> {
    Some(match node.op.as_str() {
        "Erf" => Unary::Erf,
        "Exp" => Unary::Exp,
        "Sigmoid" => Unary::Sigmoid,
        "Sqrt" => Unary::Sqrt,
        "Tanh" => Unary::Tanh,
        _ => return None,
    })
}

fn binary(node: &Node) -> Option<Binary> {
    Some(match node.op.as_str() {
        "Add" => Binary::Add,
        "Div" => Binary::Div,
        "Mul" => Binary::Mul,
        "Pow" => Binary::Pow,
        "Sub" => Binary::Sub,
        _ => return None,
    })
}

struct Chain {
    steps: Vec<Step>,
}

impl Kernel for Chain {
    fn name(&self) -> String {
        "elementwise_f32".to_string()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let input = inputs.iter_mut().find_map(Option::take);
        let mut value = input.ok_or_else(|| Error::internal("a chain has no input"))?;
        let data = value.as_mut_slice::<f32>()?;
        let blocks = data.len().div_ceil(BLOCK);
        let grain = ctx.kernels.pool.grain(blocks, 8) * BLOCK;
        ctx.kernels.pool.for_each_chunk(data, grain, |_, data| {
            let mut buffers = [[0f32; BLOCK]; 2];
            data.chunks_mut(BLOCK).for_each(|block| self.block(ctx, block, &mut buffers));
        });
        Ok(vec![value])
    }
}

impl Chain {
    /// Takes one block through all steps.
    fn block(&self, ctx: &RunCtx, block: &mut [f32], [input, before]: &mut [[f32; BLOCK]; 2]) {
        let len = block.len();
        let (input, before) = (&mut input[..len], &mut before[..len]);
        input.copy_from_slice(block);
        for step in &self.steps {
            let (function, side, number) = match step {
                Step::Unary(function) => {
                    unary_f32_in_place(*ctx.kernels, *function, block);
                    continue;
                }
                Step::Number(function, number, side) => (*function, *side, Some(*number)),
                Step::Input(function, side) => (*function, *side, None),
            };
            before.copy_from_slice(block);
            let number = number.map(|number| [number]);
            let other: (&[f32], &[usize]) = match &number {
                Some(number) => (number, &[1]),
                None => (&*input, &[len]),
            };
            let own: (&[f32], &[usize]) = (&*before, &[len]);
            let (a, b) = if side == Side::Left { (own, other) } else { (other, own) };
            binary_f32(*ctx.kernels, function, a, b, (&mut *block, &[len]));
        }
    }
}
