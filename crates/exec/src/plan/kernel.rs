//! What a step of a session runs.

use super::axes::{move_attributes, move_inputs};
use super::program::{Program, execute};
use crate::def::OpDef;
use crate::eval::{EvalCtx, Subgraphs};
use crate::memory::Arena;
use crate::ops::conv::IntegerConv;
use fewbit_core::{Error, Node, Result, Tensor};
use fewbit_kernels::Ctx;
use std::mem::take;

/// Services of one run.
#[derive(Clone, Copy)]
pub(crate) struct RunCtx<'a> {
    /// Instruction set and threads.
    pub kernels: &'a Ctx<'a>,
    /// Where output buffers come from.
    pub arena: &'a Arena,
}

/// Inputs of one step, owned, so that a kernel can write in place where it is the last reader. What
/// it leaves goes back to the arena.
pub(crate) type Inputs = Vec<Option<Tensor>>;

/// One prepared step. Weights are inside, in the form the kernel reads.
pub(crate) trait Kernel: Send + Sync {
    /// Name for profiles and plans.
    fn name(&self) -> String;

    /// Computes the outputs.
    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>>;

    /// Multiply-accumulates of a run that gave `outputs`; 0 where they are not counted.
    fn macs(&self, _outputs: &[Tensor]) -> u64 {
        0
    }

    /// The convolution of codes that this is.
    fn integer_conv(&self) -> Option<&IntegerConv> {
        None
    }

    /// The same, to be changed.
    fn integer_conv_mut(&mut self) -> Option<&mut IntegerConv> {
        None
    }

    /// The order of axes, where the kernel does nothing but bring them to it.
    fn permutes(&self) -> Option<&[i64]> {
        None
    }

    /// Makes the kernel read and write `[N,...,C]` values of this rank instead of `[N,C,...]`.
    fn use_channels_last(&mut self, _rank: usize) {}
}

/// Input `index` of a kernel.
pub(crate) fn required(inputs: &[Option<Tensor>], index: usize) -> Result<&Tensor> {
    let found = inputs.get(index).and_then(Option::as_ref);
    found.ok_or_else(|| {
        Error::bad_input(format!("required input {index} is missing")).code("FB-3201")
    })
}

/// Any operator, evaluated as its row in the table says.
pub(crate) struct EvalKernel {
    node: Node,
    def: OpDef,
    opset: i64,
    subgraphs: Vec<Subgraph>,
    captures: usize,
    /// Rank of the values, where they lie `[N,...,C]`.
    last: Option<usize>,
}

/// Attribute name, prepared graph, and which of the node's captured values it reads.
pub(crate) type Subgraph = (String, Program, Vec<usize>);

impl EvalKernel {
    /// A node without subgraphs.
    pub fn new(node: Node, def: OpDef, opset: i64) -> Self {
        EvalKernel { node, def, opset, subgraphs: Vec::new(), captures: 0, last: None }
    }

    /// A node with its subgraphs prepared. The `captures` values of the outer graph that they
    /// read are given as inputs after the node's own.
    pub fn with_subgraphs(self, subgraphs: Vec<Subgraph>, captures: usize) -> Self {
        EvalKernel { subgraphs, captures, ..self }
    }
}

impl Kernel for EvalKernel {
    fn name(&self) -> String {
        self.node.op.clone()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let captured = inputs.split_off(inputs.len() - self.captures);
        if let Some(rank) = self.last {
            move_inputs(&self.node, inputs, rank)?;
        }
        let nested = Nested { kernel: self, captured: &captured, ctx };
        let mut eval = EvalCtx {
            node: &self.node,
            opset: self.opset,
            kernels: ctx.kernels,
            arena: ctx.arena,
            subgraphs: (!self.subgraphs.is_empty()).then_some(&nested as &dyn Subgraphs),
            inputs: take(inputs),
        };
        let outputs = (self.def.eval)(&mut eval)?;
        *inputs = eval.inputs;
        Ok(outputs)
    }

    fn permutes(&self) -> Option<&[i64]> {
        self.node.ints("perm").ok().flatten().filter(|_| self.node.is("Transpose"))
    }

    fn use_channels_last(&mut self, rank: usize) {
        move_attributes(&mut self.node, rank);
        self.last = Some(rank);
    }
}

/// The subgraphs of a node during one run.
struct Nested<'a> {
    kernel: &'a EvalKernel,
    captured: &'a [Option<Tensor>],
    ctx: &'a RunCtx<'a>,
}

impl Subgraphs for Nested<'_> {
    fn run(&self, attr: &str, inputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
        let mut subgraphs = self.kernel.subgraphs.iter();
        let Some((_, program, reads)) = subgraphs.find(|(name, _, _)| name == attr) else {
            return Err(Error::bad_input(format!("attribute `{attr}` with a graph is missing")));
        };
        let mut inputs = inputs;
        for &index in reads {
            let value = self.captured.get(index).cloned().flatten();
            inputs.push(value.ok_or_else(|| Error::internal("a captured value is missing"))?);
        }
        execute(program, self.ctx, inputs, None)
    }
}

/// Brings a value from one order of dimensions to the other.
pub(crate) struct Reorder {
    /// To `[N,...,C]`, or back to `[N,C,...]`.
    pub to_last: bool,
}

impl Kernel for Reorder {
    fn name(&self) -> String {
        if self.to_last { "to_channels_last" } else { "to_channels_first" }.to_string()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let input = inputs.pop().flatten().ok_or_else(|| Error::internal("nothing to reorder"))?;
        let output = match self.to_last {
            true => super::permute::to_last_in(&input, *ctx.kernels, ctx.arena)?,
            false => super::permute::to_default_in(&input, *ctx.kernels, ctx.arena)?,
        };
        ctx.arena.recycle(input);
        Ok(vec![output])
    }
}
