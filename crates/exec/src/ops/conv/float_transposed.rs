//! Float transposed convolution with weights packed once, over `[N,...,C]` values.

use super::float::FloatConv;
use super::transposed::{Part, Transposed};
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::gemm::Clamp;

/// The prepared step: `[x]`, channels-last.
pub(crate) struct FloatTransposed {
    shape: Transposed,
    /// One for each part.
    convs: Vec<FloatConv>,
}

impl FloatTransposed {
    /// Packs `weights`, the bytes of f32 `[C, M/group, k...]` at any address, multiplied by `scale`
    /// for each output channel.
    ///
    /// # Errors
    /// When the rank is above 3, or bias or scale have another length.
    pub fn new(
        shape: Transposed,
        weights: &[u8],
        scale: Option<&[f32]>,
        bias: Option<&[f32]>,
        clamp: Option<Clamp>,
    ) -> Result<FloatTransposed> {
        let channels = shape.whole.out_c;
        for (what, values) in [("bias", bias), ("scale", scale)] {
            let len = values.map_or(channels, <[f32]>::len);
            if len != channels {
                return Err(Error::bad_input(format!(
                    "a {what} of {len} numbers for {channels} output channels"
                )));
            }
        }
        let conv = |part: &Part| {
            let weights = part.weights(weights.as_chunks::<{ size_of::<f32>() }>().0);
            let [scale, bias] = [scale, bias].map(|values| values.map(|v| part.channels(v)));
            let weights = weights.as_flattened();
            let mut conv = FloatConv::new(part.conv.clone(), weights, scale.as_deref(), bias)?;
            conv.clamp = clamp;
            Ok(conv)
        };
        let convs = shape.parts.iter().map(conv).collect::<Result<_>>()?;
        Ok(FloatTransposed { shape, convs })
    }

    /// Convolves an f32 `[N,...,C]` tensor.
    ///
    /// # Errors
    /// When the input does not fit.
    pub fn convolve(&self, ctx: &RunCtx, input: &Tensor) -> Result<Tensor> {
        self.shape.run(ctx, input, (DType::F32, 0), |part, input, pads, shape| {
            self.convs[part].run_padded(ctx, input, None, pads, shape)
        })
    }
}

impl Kernel for FloatTransposed {
    fn name(&self) -> String {
        "conv_transpose_f32".to_string()
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        Ok(vec![self.convolve(ctx, required(inputs, 0)?)?])
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        self.shape.macs(outputs.first().map_or(0, Tensor::len))
    }
}
