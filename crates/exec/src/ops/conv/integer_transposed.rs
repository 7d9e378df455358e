//! Transposed convolutions on 8-bit codes, over `[N,...,C]` values.

use super::integer::{Input, IntegerConv};
use super::transposed::{Part, Transposed};
use crate::plan::integer::finish::Finish;
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use fewbit_core::{DType, Result, Tensor};
use fewbit_kernels::Isa;

/// The prepared step: `[x]`, channels-last.
pub(crate) struct IntegerTransposed {
    shape: Transposed,
    /// One for each part.
    convs: Vec<IntegerConv>,
    input: Input,
    dtype: DType,
    suffix: &'static str,
}

impl IntegerTransposed {
    /// Packs weights as the node has them.
    ///
    /// # Errors
    /// When the weights are not 8-bit.
    pub fn new(
        isa: Isa,
        shape: Transposed,
        codes: Tensor,
        zeros: &[i32],
        input: Input,
        finish: Finish,
    ) -> Result<IntegerTransposed> {
        let conv = |part: &Part| {
            // A code is one byte, whatever its sign.
            let weights =
                Tensor::vector(&part.weights(codes.bytes())).reinterpret(codes.dtype())?;
            let finish = finish.for_part(part);
            let zeros = part.channels(zeros);
            IntegerConv::new(isa, part.conv.clone(), weights, &zeros, input, finish)
        };
        let convs = shape.parts.iter().map(conv).collect::<Result<_>>()?;
        codes.release();
        let (dtype, suffix) = (finish.dtype(), finish.suffix());
        Ok(IntegerTransposed { shape, convs, input, dtype, suffix })
    }
}

impl Kernel for IntegerTransposed {
    fn name(&self) -> String {
        format!("conv_transpose_{}", self.suffix)
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        // The low byte of a zero point is its code.
        let types = (self.dtype, self.input.zero_point as u8);
        let convolve = |part: usize, x: &Tensor, pads: &_, shape| {
            self.convs[part].run_padded(ctx, x, pads, shape)
        };
        Ok(vec![self.shape.run(ctx, required(inputs, 0)?, types, convolve)?])
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        self.shape.macs(outputs.first().map_or(0, Tensor::len))
    }
}
