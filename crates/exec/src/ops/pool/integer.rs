//! Mean pools on codes: dequantized, summed and quantized in one walk, in `Simulate`'s arithmetic.

use super::Pool;
use super::slide::Accumulate;
use crate::plan::integer::around;
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{DType, Element, Node, NodeId, Result, Tensor};
use fewbit_kernels::quantize::{Affine, Code, Quantizer};

/// The step for a mean pool of codes; the inner error says why it stays float.
///
/// # Errors
/// When an attribute is missing or no window can have it.
pub(crate) fn lower_integer(
    lowering: &Lowering,
    id: NodeId,
    node: &Node,
) -> Result<Result<Lowered, String>> {
    let pool = Pool::new(node)?;
    let (input, target) = match around(lowering, node) {
        Ok(found) => found,
        Err(why) => return Ok(Err(why)),
    };
    if lowering.ty(input.value).rank().is_none_or(|rank| rank < 3) || input.dtype != target.dtype {
        return Ok(Err("input and output have different 8-bit types".to_string()));
    }
    let mean = MeanOfCodes { input: input.affine, output: target.quantizer };
    let kernel = MeanKernel { pool, dtype: input.dtype, mean, name: node.op.clone() };
    let mut nodes = vec![id];
    nodes.extend(&target.nodes);
    let (inputs, rule) = (vec![Some(input.value)], Rule::Last { output: true });
    let mut step = Lowered::new(nodes, Box::new(kernel), inputs, target.output, rule);
    step.integer = true;
    Ok(Ok(step))
}

struct MeanKernel {
    pool: Pool,
    dtype: DType,
    mean: MeanOfCodes,
    name: String,
}

impl Kernel for MeanKernel {
    fn name(&self) -> String {
        format!("{}_i8", self.name)
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let output = match self.dtype {
            DType::I8 => self.pooled::<i8>(ctx, x)?,
            _ => self.pooled::<u8>(ctx, x)?,
        };
        Ok(vec![output])
    }
}

impl MeanKernel {
    fn pooled<T: Element + Code>(&self, ctx: &RunCtx, x: &Tensor) -> Result<Tensor> {
        let slide = self.pool.slide(x.shape())?;
        let mut out = ctx.arena.tensor(T::DTYPE, slide.output_shape(x.shape()[0]))?;
        slide.run(ctx.kernels, &self.mean, x.as_slice::<T>()?, out.as_mut_slice::<T>()?);
        Ok(out)
    }
}

struct MeanOfCodes {
    input: Affine,
    output: Quantizer,
}

impl<T: Code> Accumulate<T, T> for MeanOfCodes {
    type State = f32;
    const START: f32 = 0.0;
    #[inline(always)]
    fn add(&self, state: &mut f32, value: T, _position: usize) {
        *state += self.input.dequantize(value.widen());
    }
    #[inline(always)]
    fn finish(&self, state: f32, count: usize) -> T {
        T::narrow(self.output.code(state / count as f32))
    }
}
