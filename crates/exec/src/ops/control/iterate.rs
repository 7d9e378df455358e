//! `Loop`: a subgraph until a condition or a count ends it.

use super::branch::{declared, subgraphs, truth};
use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use fewbit_core::{AlignedBytes, DType, Dim, Error, Result, Tensor, ValueType, max_tensor_bytes};

pub(super) const DEF: OpDef = OpDef::new("Loop", infer, eval);

/// A loop that runs longer is taken for one that never ends.
const MAX_ITERATIONS: u64 = 1_000_000;

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let Some(body) = ctx.node.graph("body")? else {
        return Err(Error::bad_input("Loop needs a body"));
    };
    let carried = ctx.inputs.len().saturating_sub(2);
    let one = |index: usize| {
        let ty = declared(body, index + 1);
        match index < carried {
            // The shape may differ from iteration to iteration.
            true => ValueType { dtype: ty.dtype.or(ctx.dtype(index + 2)), ..Default::default() },
            false => stacked(ty),
        }
    };
    Ok((0..ctx.node.outputs.len()).map(one).collect())
}

/// The type of values stacked along a new first axis.
pub(super) fn stacked(ty: ValueType) -> ValueType {
    let shape = ty.shape.map(|mut shape| {
        shape.insert(0, Dim::Unknown);
        shape
    });
    ValueType { shape, ..ty }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let body = subgraphs(ctx)?;
    let limit = match ctx.opt(0) {
        Some(count) => Some(count.to_i64()?.first().copied().unwrap_or(0).max(0) as u64),
        None => None,
    };
    let mut goes_on = ctx.opt(1).map(truth).transpose()?.unwrap_or(true);
    let mut carried: Vec<Tensor> =
        (2..ctx.input_count()).map(|i| ctx.take(i)).collect::<Result<_>>()?;
    let count = carried.len();
    let scans = ctx.node.outputs.len().saturating_sub(count);
    let mut stacks: Vec<Stack> = (0..scans).map(|_| Stack::default()).collect();
    let mut iteration = 0u64;
    while goes_on && limit.is_none_or(|limit| iteration < limit) {
        if iteration == MAX_ITERATIONS {
            return Err(Error::resource(format!("Loop ran {MAX_ITERATIONS} times without an end"))
                .code("FB-5102"));
        }
        let mut inputs =
            vec![Tensor::scalar(iteration as i64), Tensor::from_bools(vec![], &[goes_on])?];
        inputs.append(&mut carried);
        let mut outputs = body.run("body", inputs)?;
        if outputs.len() < 1 + count + scans {
            return Err(Error::bad_input(format!("the body gives {} outputs", outputs.len())));
        }
        let scanned = outputs.split_off(1 + count);
        stacks.iter_mut().zip(&scanned).try_for_each(|(stack, t)| stack.push(t))?;
        carried = outputs.split_off(1);
        goes_on = truth(&outputs[0])?;
        iteration += 1;
    }
    let body_graph = ctx.node.graph("body")?;
    for (index, stack) in stacks.into_iter().enumerate() {
        let ty = body_graph.map(|g| declared(g, 1 + count + index)).unwrap_or_default();
        carried.push(stack.finish(&ty)?);
    }
    Ok(carried)
}

/// Values collected along a new first axis.
#[derive(Default)]
pub(super) struct Stack {
    first: Option<(DType, Vec<usize>)>,
    count: usize,
    bytes: Vec<u8>,
}

impl Stack {
    /// Appends one value.
    ///
    /// # Errors
    /// When it differs in type from the first, or the whole gets too large.
    pub fn push(&mut self, tensor: &Tensor) -> Result<()> {
        let ty = (tensor.dtype(), tensor.shape().to_vec());
        if self.first.get_or_insert_with(|| ty.clone()) != &ty {
            return Err(Error::bad_input(format!("a scan output changes its shape to {tensor:?}")));
        }
        if tensor.dtype().size().is_none() {
            return Err(Error::unsupported(format!("a scan output of {}", tensor.dtype())));
        }
        if self.bytes.len().saturating_add(tensor.bytes().len()) > max_tensor_bytes() {
            return Err(Error::resource("a scan output exceeds the limit for one tensor"));
        }
        self.bytes.extend_from_slice(tensor.bytes());
        self.count += 1;
        Ok(())
    }

    /// The stacked tensor; without any value, an empty one of the declared type.
    ///
    /// # Errors
    /// When the size overflows.
    pub fn finish(self, declared: &ValueType) -> Result<Tensor> {
        let (dtype, item) = self.first.unwrap_or_else(|| {
            let dims = declared.shape.iter().flatten().map(|d| d.known().unwrap_or(0));
            (declared.dtype.unwrap_or(DType::F32), dims.collect())
        });
        let mut shape = vec![self.count];
        shape.extend(item);
        Tensor::from_bytes(dtype, shape, AlignedBytes::copy_of(&self.bytes).into())
    }
}
