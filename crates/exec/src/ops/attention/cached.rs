//! Attention over keys and values that lie in another form than floats: a `Cast` from `f16`, or a
//! `DequantizeBlocks`, that only the attention reads is computed row by row where it is needed.

use super::heads::Heads;
use super::scaled::attend;
use crate::eval::EvalCtx;
use crate::ops::quantize::dequantize_blocks::{block_type, element_shape};
use crate::plan::kernel::{Inputs, Kernel, RunCtx};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use crate::plan::weights::is_blocks;
use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_core::{DType, Node, NodeId, Result, Tensor, ValueId};
use fewbit_kernels::cache::{BLOCK, Rows, Stored};
use std::borrow::Cow;

/// How keys or values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Floats,
    Halves,
    Bytes,
    Nibbles,
}

impl Form {
    fn block(self) -> Option<BlockType> {
        match self {
            Form::Floats | Form::Halves => None,
            Form::Bytes => Some(BlockType::Q8_0),
            Form::Nibbles => Some(BlockType::Q4_0),
        }
    }

    /// The shape in elements.
    ///
    /// # Errors
    /// When the tensor holds no whole blocks.
    pub fn shape(self, tensor: &Tensor) -> Result<Vec<usize>> {
        match self.block() {
            None => Ok(tensor.shape().to_vec()),
            Some(ty) => element_shape(ty, tensor),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Form::Floats => "f32",
            Form::Halves => "f16",
            Form::Bytes => "q8_0",
            Form::Nibbles => "q4_0",
        }
    }
}

/// Heads with their numbers as they are stored.
pub(super) struct Kept<'a> {
    numbers: Numbers<'a>,
    pub heads: Heads,
}

enum Numbers<'a> {
    Floats(Cow<'a, [f32]>),
    Stored(Form, &'a [u8]),
}

impl<'a> Kept<'a> {
    /// # Errors
    /// When the tensor is not of the form.
    pub fn of(tensor: &'a Tensor, heads: Heads, form: Form) -> Result<Kept<'a>> {
        let numbers = match form.block() {
            None if form == Form::Floats => Numbers::Floats(tensor.cow::<f32>()?),
            // Heads that share a block are no rows of blocks.
            Some(ty) if !heads.size.is_multiple_of(BLOCK) => {
                let elements = tensor.bytes().len() / ty.bytes() * ty.elements();
                let mut values = vec![0.0; elements];
                dequantize(ty, tensor.bytes(), &mut values)?;
                Numbers::Floats(Cow::Owned(values))
            }
            _ => Numbers::Stored(form, tensor.bytes()),
        };
        Ok(Kept { numbers, heads })
    }

    /// The rows of one head.
    pub fn head(&self, batch: usize, head: usize) -> Rows<'_> {
        let stored = match &self.numbers {
            Numbers::Floats(values) => Stored::F32(values),
            Numbers::Stored(Form::Bytes, bytes) => Stored::Q8_0(bytes),
            Numbers::Stored(Form::Nibbles, bytes) => Stored::Q4_0(bytes),
            Numbers::Stored(_, bytes) => Stored::F16(bytes),
        };
        let (start, stride) = (self.heads.start(batch, head), self.heads.stride());
        Rows { stored, start, stride, size: self.heads.size }
    }

    /// All numbers, where they are floats.
    pub fn floats(&self) -> &[f32] {
        match &self.numbers {
            Numbers::Floats(values) => values,
            Numbers::Stored(..) => &[],
        }
    }
}

/// What turns a stored cache into floats: its form, and where it comes from.
fn source(lowering: &Lowering, value: ValueId) -> Option<(Form, ValueId)> {
    let node = lowering.graph.node(lowering.uses.producer(value)?);
    let from = node.input(0)?;
    if node.is("Cast") {
        let floats = node.int("to").ok()?? == i64::from(DType::F32.to_onnx());
        let halves = lowering.ty(from).dtype == Some(DType::F16);
        return (floats && halves).then_some((Form::Halves, from));
    }
    if !is_blocks(node, "DequantizeBlocks")
        || !matches!(node.int("output_dtype"), Ok(None | Some(0 | 1)))
    {
        return None;
    }
    match block_type(node).ok()? {
        BlockType::Q8_0 => Some((Form::Bytes, from)),
        BlockType::Q4_0 => Some((Form::Nibbles, from)),
        _ => None,
    }
}

/// The step of an attention that reads a stored cache; `None` for others.
pub(crate) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Option<Lowered> {
    let plain = node.outputs.len() == 1 && node.input(4).is_none() && node.input(5).is_none();
    let queries = lowering.ty(node.input(0)?).dtype;
    if !plain || queries != Some(DType::F32) {
        return None;
    }
    let mut inputs = node.inputs.clone();
    let mut forms = [Form::Floats; 2];
    for (form, input) in forms.iter_mut().zip(1..) {
        let value = node.input(input)?;
        match source(lowering, value) {
            Some((stored, from)) => {
                *form = stored;
                inputs[input] = Some(from);
            }
            None if lowering.ty(value).dtype == Some(DType::F32) => {}
            None => return None,
        }
    }
    if forms == [Form::Floats; 2] {
        return None;
    }
    let opset = lowering.scope.opset(node);
    let kernel = CachedAttention { node: node.clone(), opset, forms };
    Some(Lowered::new(vec![id], Box::new(kernel), inputs, node.output(0)?, Rule::Default))
}

struct CachedAttention {
    node: Node,
    opset: i64,
    forms: [Form; 2],
}

impl Kernel for CachedAttention {
    fn name(&self) -> String {
        let [keys, values] = self.forms.map(Form::name);
        if keys == values {
            format!("attention_{keys}")
        } else {
            format!("attention_{keys}_{values}")
        }
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let eval = EvalCtx {
            node: &self.node,
            opset: self.opset,
            kernels: ctx.kernels,
            arena: ctx.arena,
            subgraphs: None,
            inputs: std::mem::take(inputs),
        };
        let outputs = attend(&eval, self.forms)?;
        *inputs = eval.inputs;
        Ok(outputs)
    }
}
