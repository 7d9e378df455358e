//! Means of codes along some axes: dequantized, summed and quantized in one walk, in `Simulate`'s
//! arithmetic.

use super::axes::Reduced;
use crate::plan::axes::{reduced_axes, reduces_in_any_order};
use crate::plan::integer::around;
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use crate::plan::permute::axis_in_last;
use fewbit_core::{DType, Element, Error, Node, NodeId, Result, Tensor};
use fewbit_kernels::quantize::{Affine, Code, Quantizer};
use fewbit_kernels::reduce::mean_codes;

/// The step for a `ReduceMean` of codes, or why it stays float.
///
/// # Errors
/// What stands in the way.
pub(crate) fn lower_integer(
    lowering: &Lowering,
    id: NodeId,
    node: &Node,
) -> Result<Lowered, String> {
    let (input, target) = around(lowering, node)?;
    if input.dtype != target.dtype {
        return Err("input and output have different 8-bit types".to_string());
    }
    let (mut axes, keep) = reduced_axes(lowering, node).ok_or("its axes are not known")?;
    axes.sort_unstable();
    let places = axes.iter().all(|&axis| axis > 1) || axes.len() == 1;
    if !places || axes.windows(2).any(|pair| pair[0] + 1 != pair[1]) {
        return Err("its axes do not lie side by side".to_string());
    }
    let rule = if reduces_in_any_order(lowering, node) { Rule::AnyOfFirst } else { Rule::Default };
    let (dtype, affine, quantizer) = (input.dtype, input.affine, target.quantizer);
    let kernel = MeanKernel { axes, keep, dtype, affine, quantizer };
    let mut nodes = vec![id];
    nodes.extend(&target.nodes);
    let inputs = vec![Some(input.value)];
    let mut step = Lowered::new(nodes, Box::new(kernel), inputs, target.output, rule);
    step.integer = true;
    Ok(step)
}

struct MeanKernel {
    /// In order, side by side.
    axes: Vec<usize>,
    keep: bool,
    dtype: DType,
    affine: Affine,
    quantizer: Quantizer,
}

impl Kernel for MeanKernel {
    fn name(&self) -> String {
        "reduce_mean_i8".to_string()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let x = required(inputs, 0)?;
        let output = match self.dtype {
            DType::I8 => self.reduced::<i8>(ctx, x)?,
            _ => self.reduced::<u8>(ctx, x)?,
        };
        Ok(vec![output])
    }

    fn use_channels_last(&mut self, rank: usize) {
        self.axes.iter_mut().for_each(|axis| *axis = axis_in_last(*axis, rank));
    }
}

impl MeanKernel {
    fn reduced<T: Element + Code>(&self, ctx: &RunCtx, x: &Tensor) -> Result<Tensor> {
        let axes: Vec<i64> = self.axes.iter().map(|&axis| axis as i64).collect();
        let axes = Reduced::of(&axes, x.shape(), self.keep)?;
        let dims = axes.as_one_run().ok_or_else(|| Error::internal("axes lie apart"))?;
        let mut out = ctx.arena.tensor(T::DTYPE, axes.output_shape())?;
        let to = (out.as_mut_slice::<T>()?, self.quantizer);
        mean_codes(*ctx.kernels, (x.as_slice::<T>()?, self.affine), dims, to);
        Ok(out)
    }
}
