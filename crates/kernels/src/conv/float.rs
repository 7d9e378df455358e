//! f32 convolutions.

use super::depthwise_f32::DepthwiseF32;
use super::grouped::GroupedF32;
use super::im2col::PatchRows;
use super::shape::ConvShape;
use crate::cpu::Ctx;
use crate::gemm::pack_f32::{Columns, Raw};
use crate::gemm::rows::{MatrixRows, Same};
use crate::gemm::{Epilogue, FloatFinish, Matrix, PackedF32, drive_f32};

/// The weights of an f32 convolution, packed once.
pub struct PackedConvF32(Form);

enum Form {
    /// One matrix per group.
    Groups(Vec<PackedF32>),
    Depthwise(DepthwiseF32),
    Grouped(GroupedF32),
}

impl PackedConvF32 {
    /// Packs `weights`, in the order out channel, in channel of the group, row, column (OIHW).
    /// Batch and image size of `shape` do not matter.
    ///
    /// # Panics
    /// When `weights` has not `shape.weights_len()` elements, or `shape` contradicts itself.
    pub fn new(shape: &ConvShape, weights: &[f32]) -> PackedConvF32 {
        PackedConvF32::of_bytes(shape, bytemuck::cast_slice(weights), None)
    }

    /// As [`PackedConvF32::new`], of the bytes of the weights, which may lie at any address. Those
    /// of an output channel are multiplied with its `scale`.
    ///
    /// # Panics
    /// When `weights` has not the bytes of `shape.weights_len()` elements, `scale` not one for each
    /// output channel, or `shape` contradicts itself.
    pub fn of_bytes(shape: &ConvShape, weights: &[u8], scale: Option<&[f32]>) -> PackedConvF32 {
        shape.check();
        let fits = weights.len() == shape.weights_len() * size_of::<Raw>();
        assert!(fits, "{} bytes of weights for {shape:?}", weights.len());
        assert!(scale.is_none_or(|s| s.len() == shape.out_c), "scales of {shape:?}");
        let (k, n) = (shape.k(), shape.group_out_c());
        let values = weights.as_chunks().0;
        if shape.is_depthwise() {
            let weights = scaled(values, k, scale);
            return PackedConvF32(Form::Depthwise(DepthwiseF32::new(shape, &weights)));
        }
        if GroupedF32::applies(shape) {
            let weights = scaled(values, k, scale);
            return PackedConvF32(Form::Grouped(GroupedF32::new(shape, &weights)));
        }
        let group = |first: usize| {
            let (values, taps) = (&values[first * k..][..n * k], shape.kernel[0] * shape.kernel[1]);
            let scale = scale.map(|scale| &scale[first..][..n]);
            PackedF32::of_columns(Columns { values, k, n, taps, scale })
        };
        PackedConvF32(Form::Groups((0..shape.groups).map(|g| group(g * n)).collect()))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Form::Groups(groups) => groups.iter().map(PackedF32::bytes).sum(),
            Form::Depthwise(weights) => weights.bytes(),
            Form::Grouped(weights) => weights.bytes(),
        }
    }
}

/// `k` weights for each output channel, times its scale.
fn scaled(weights: &[Raw], k: usize, scale: Option<&[f32]>) -> Vec<f32> {
    let mut scaled: Vec<f32> = weights.iter().map(|&w| f32::from_ne_bytes(w)).collect();
    for (weights, scale) in scaled.chunks_exact_mut(k.max(1)).zip(scale.into_iter().flatten()) {
        weights.iter_mut().for_each(|w| *w *= scale);
    }
    scaled
}

/// Convolves `input` (NHWC) into `output` (NHWC).
///
/// Each sum starts at 0 and runs over kernel rows, kernel columns and input channels in this
/// order, with fused multiply-add. Padding is zeros.
///
/// # Panics
/// When a slice has not the length that `shape` says, or the weights were packed for others.
pub fn conv2d_f32(
    ctx: Ctx<'_>,
    shape: &ConvShape,
    input: &[f32],
    weights: &PackedConvF32,
    epilogue: Epilogue<'_>,
    output: &mut [f32],
) {
    shape.check();
    assert_eq!(input.len(), shape.input_len(), "input of {shape:?}");
    assert_eq!(output.len(), shape.output_len(), "output of {shape:?}");
    match &weights.0 {
        Form::Depthwise(weights) => weights.run(ctx, shape, input, epilogue, output),
        Form::Grouped(weights) => weights.run(ctx, shape, input, epilogue, output),
        Form::Groups(groups) => {
            assert_eq!(groups.len(), shape.groups, "weights packed for other groups");
            for (index, weights) in groups.iter().enumerate() {
                group(ctx, shape, input, index, weights, epilogue, output);
            }
        }
    }
}

fn group(
    ctx: Ctx<'_>,
    shape: &ConvShape,
    input: &[f32],
    index: usize,
    weights: &PackedF32,
    epilogue: Epilogue<'_>,
    output: &mut [f32],
) {
    let (m, n, k) = (shape.out_pixels(), shape.group_out_c(), shape.k());
    assert!(weights.k() == k && weights.n() == n, "weights packed for another shape");
    let (first_channel, stride) = (index * shape.group_in_c(), shape.out_c);
    let output = Matrix { data: output, stride };
    let finish = FloatFinish::new(epilogue, m, n, index * n, output);
    if shape.is_pointwise() {
        let data = input.get(first_channel..).unwrap_or_default();
        let rows = MatrixRows { data, stride: shape.in_c, k, padded_k: k, convert: Same };
        drive_f32(ctx, m, weights, &rows, &finish);
    } else {
        let rows = PatchRows { input, shape, first_channel, padded_k: k, convert: Same };
        drive_f32(ctx, m, weights, &rows, &finish);
    }
}
