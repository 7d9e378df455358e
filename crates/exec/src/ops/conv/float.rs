//! Float convolution with weights packed once, over `[N,...,C]` values.

use super::geometry::{Geometry, Pads};
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::conv::{PackedConvF32, conv2d_f32};
use fewbit_kernels::gemm::{Clamp, Epilogue};

/// A float convolution of any rank up to 3, with what follows it.
pub(crate) struct FloatConv {
    pub geometry: Geometry,
    /// One plane of weights for each step along the depth axis; one for ranks 1 and 2.
    planes: Vec<PackedConvF32>,
    pub bias: Option<Vec<f32>>,
    pub clamp: Option<Clamp>,
}

impl FloatConv {
    /// Packs `weights`, the bytes of f32 `[M, C/group, k...]` at any address, multiplied by `scale`
    /// for each output channel.
    ///
    /// # Errors
    /// When the rank is above 3, or bias or scale have another length.
    pub fn new(
        geometry: Geometry,
        weights: &[u8],
        scale: Option<&[f32]>,
        bias: Option<Vec<f32>>,
    ) -> Result<FloatConv> {
        let rank = geometry.window.rank();
        if rank > 3 {
            return Err(Error::unsupported(format!(
                "a convolution over {rank} spatial dimensions"
            )));
        }
        for (what, values) in [("bias", bias.as_deref()), ("scale", scale)] {
            let len = values.map_or(geometry.out_c, <[f32]>::len);
            if len != geometry.out_c {
                return Err(Error::bad_input(format!(
                    "a {what} of {len} numbers for {} output channels",
                    geometry.out_c
                )));
            }
        }
        let planes = pack(&geometry, weights, scale);
        Ok(FloatConv { geometry, planes, bias, clamp: None })
    }

    /// Convolves an f32 `[N,...,C]` tensor; the residual has the shape of the output.
    ///
    /// # Errors
    /// When the input or the residual does not fit.
    pub fn run(&self, ctx: &RunCtx, input: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let (pads, shape) = self.geometry.of_input(input.shape())?;
        self.run_padded(ctx, input, residual, &pads, shape)
    }

    /// As [`run`](FloatConv::run), with padding and output shape given.
    ///
    /// # Errors
    /// As [`run`](FloatConv::run).
    pub fn run_padded(
        &self,
        ctx: &RunCtx,
        input: &Tensor,
        residual: Option<&Tensor>,
        pads: &Pads,
        shape: Vec<usize>,
    ) -> Result<Tensor> {
        if residual.is_some_and(|r| r.shape() != shape) {
            return Err(Error::internal("a residual has another shape than the output"));
        }
        let mut output = ctx.arena.tensor(DType::F32, shape)?;
        if output.is_empty() {
            return Ok(output);
        }
        let residual = residual.map(|r| r.as_slice::<f32>()).transpose()?;
        match self.geometry.window.rank() {
            3 => self.volume(ctx, input, residual, pads, &mut output)?,
            rank => {
                let spatial = &input.shape()[1..=rank];
                let shape = self.geometry.plane(input.shape()[0], spatial, pads);
                let epilogue = Epilogue { bias: self.bias.as_deref(), residual, clamp: self.clamp };
                let (x, y) = (input.as_slice::<f32>()?, output.as_mut_slice::<f32>()?);
                conv2d_f32(*ctx.kernels, &shape, x, &self.planes[0], epilogue, y);
            }
        }
        Ok(output)
    }

    /// Three spatial axes: each output plane is a sum of convolutions of input planes.
    fn volume(
        &self,
        ctx: &RunCtx,
        input: &Tensor,
        residual: Option<&[f32]>,
        pads: &Pads,
        output: &mut Tensor,
    ) -> Result<()> {
        let dims = input.shape().to_vec();
        let shape = self.geometry.plane(1, &dims[1..4], pads);
        let (plane, depth) = (shape.input_len(), output.shape()[1]);
        let x = input.as_slice::<f32>()?;
        let mut sum = ctx.arena.tensor(DType::F32, vec![shape.output_len()])?;
        let y = output.as_mut_slice::<f32>()?;
        for (index, out) in y.chunks_exact_mut(shape.output_len()).enumerate() {
            let (image, z) = (index / depth, index % depth);
            let rest = residual.map(|r| &r[index * out.len()..][..out.len()]);
            let taps: Vec<(usize, usize)> = self.taps(z, dims[1], pads[0].0);
            self.first(&shape, out);
            for (tap, z_in) in taps {
                let x = &x[(image * dims[1] + z_in) * plane..][..plane];
                sum.as_mut_slice::<f32>()?.copy_from_slice(out);
                let before = Some(sum.as_slice::<f32>()?);
                let epilogue = Epilogue { bias: None, residual: before, clamp: None };
                conv2d_f32(*ctx.kernels, &shape, x, &self.planes[tap], epilogue, out);
            }
            self.last(rest, out);
        }
        ctx.arena.recycle(sum);
        Ok(())
    }

    /// Which depth taps meet the input for output plane `z`, and the planes they meet.
    fn taps(&self, z: usize, depth: usize, pad: usize) -> Vec<(usize, usize)> {
        let window = &self.geometry.window;
        let start = z * window.strides[0];
        let meets = |tap: usize| {
            let at = (start + tap * window.dilations[0]).checked_sub(pad)?;
            (at < depth).then_some((tap, at))
        };
        (0..window.kernel[0]).filter_map(meets).collect()
    }

    fn first(&self, shape: &fewbit_kernels::conv::ConvShape, out: &mut [f32]) {
        match &self.bias {
            None => out.fill(0.0),
            Some(bias) => {
                out.chunks_exact_mut(shape.out_c).for_each(|pixel| pixel.copy_from_slice(bias));
            }
        }
    }

    fn last(&self, residual: Option<&[f32]>, out: &mut [f32]) {
        if let Some(residual) = residual {
            out.iter_mut().zip(residual).for_each(|(y, r)| *y += r);
        }
        if let Some(clamp) = self.clamp {
            out.iter_mut().for_each(|y| *y = clamp.apply(*y));
        }
    }
}

/// One packed plane for each depth tap.
fn pack(geometry: &Geometry, weights: &[u8], scale: Option<&[f32]>) -> Vec<PackedConvF32> {
    let shape = geometry.packing();
    let depth = if geometry.window.rank() == 3 { geometry.window.kernel[0] } else { 1 };
    if depth == 1 {
        return vec![PackedConvF32::of_bytes(&shape, weights, scale)];
    }
    let area = shape.kernel[0] * shape.kernel[1] * size_of::<f32>();
    let plane = |tap: usize| {
        let rows: Vec<&[u8]> = weights.chunks_exact(area).skip(tap).step_by(depth).collect();
        PackedConvF32::of_bytes(&shape, &rows.concat(), scale)
    };
    (0..depth).map(plane).collect()
}

/// The prepared step: `[x]` or `[x, residual]`, all channels-last.
pub(crate) struct FloatConvKernel(pub FloatConv);

impl Kernel for FloatConvKernel {
    fn name(&self) -> String {
        let geometry = &self.0.geometry;
        let kind =
            if geometry.groups == geometry.in_c && geometry.groups > 1 { "dwconv" } else { "conv" };
        format!("{kind}_f32")
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let residual = inputs.get(1).and_then(Option::as_ref);
        let output = self.0.run(ctx, required(inputs, 0)?, residual)?;
        Ok(vec![output])
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        self.0.geometry.macs(outputs.first().map_or(0, Tensor::len))
    }
}
