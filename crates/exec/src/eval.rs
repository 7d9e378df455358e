//! What an operator sees while it is evaluated.

use crate::memory::Arena;
use fewbit_core::{DType, Element, Error, Node, Result, Tensor};
use fewbit_kernels::Ctx;

/// Inputs, attributes and services of one evaluation.
pub struct EvalCtx<'a> {
    /// The node, with its attributes.
    pub node: &'a Node,
    /// Operator-set version the model imports for the node's domain.
    pub opset: i64,
    /// Instruction set and threads for the kernels.
    pub kernels: &'a Ctx<'a>,
    /// Where output buffers come from.
    pub arena: &'a Arena,
    /// Runs a subgraph (`If`, `Loop`, `Scan`), giving values by name.
    pub subgraphs: Option<&'a dyn Subgraphs>,
    /// Inputs; taken out by operators that work in place.
    pub inputs: Vec<Option<Tensor>>,
}

/// Runs the subgraphs of a node, which may read values of the surrounding graph.
pub trait Subgraphs {
    /// Runs the graph in attribute `attr` with its formal inputs given in order; returns its outputs in order.
    ///
    /// # Errors
    /// Whatever a node of the subgraph reports.
    fn run(&self, attr: &str, inputs: Vec<Tensor>) -> Result<Vec<Tensor>>;
}

impl<'a> EvalCtx<'a> {
    /// Input `index`.
    ///
    /// # Errors
    /// When a required input is missing.
    pub fn input(&self, index: usize) -> Result<&Tensor> {
        self.opt(index).ok_or_else(|| missing_input(index))
    }

    /// Optional input `index`.
    pub fn opt(&self, index: usize) -> Option<&Tensor> {
        self.inputs.get(index)?.as_ref()
    }

    /// Takes input `index` out. Its buffer can be written in place when nobody else reads it:
    /// [`Tensor::as_mut_slice`] copies only if it is shared.
    ///
    /// # Errors
    /// When a required input is missing.
    pub fn take(&mut self, index: usize) -> Result<Tensor> {
        self.inputs.get_mut(index).and_then(Option::take).ok_or_else(|| missing_input(index))
    }

    /// Number of input slots of the node.
    pub fn input_count(&self) -> usize {
        self.inputs.len()
    }

    /// An output tensor from the arena; its content is unspecified and must be written in full.
    ///
    /// # Errors
    /// When the size overflows or exceeds the limit for one tensor.
    pub fn alloc(&self, dtype: DType, shape: Vec<usize>) -> Result<Tensor> {
        self.arena.tensor(dtype, shape)
    }

    /// An output tensor filled by `fill`.
    ///
    /// # Errors
    /// As [`alloc`](EvalCtx::alloc), and whatever `fill` reports.
    pub fn output<T: Element>(
        &self,
        shape: Vec<usize>,
        fill: impl FnOnce(&mut [T]) -> Result<()>,
    ) -> Result<Tensor> {
        let mut tensor = self.alloc(T::DTYPE, shape)?;
        fill(tensor.as_mut_slice::<T>()?)?;
        Ok(tensor)
    }

    /// Integer attribute with a default.
    ///
    /// # Errors
    /// When the attribute is of another kind.
    pub fn int(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.node.int(name)?.unwrap_or(default))
    }

    /// Float attribute with a default.
    ///
    /// # Errors
    /// When the attribute is of another kind.
    pub fn float(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.node.float(name)?.unwrap_or(default))
    }

    /// String attribute with a default.
    ///
    /// # Errors
    /// When the attribute is of another kind.
    pub fn string(&self, name: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.node.string(name)?.unwrap_or(default))
    }
}

fn missing_input(index: usize) -> Error {
    Error::bad_input(format!("required input {index} is missing")).code("FB-3201")
}

/// Maps an axis from `-rank..rank` to `0..rank`.
///
/// # Errors
/// When the axis lies outside.
pub fn axis_index(axis: i64, rank: usize) -> Result<usize> {
    let signed = rank as i64;
    if (-signed..signed).contains(&axis) {
        return Ok(if axis < 0 { axis + signed } else { axis } as usize);
    }
    Err(Error::bad_input(format!("axis {axis} is outside a tensor of rank {rank}")).code("FB-3202"))
}
