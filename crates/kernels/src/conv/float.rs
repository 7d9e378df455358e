//! f32 convolutions.

use super::depthwise_f32::DepthwiseF32;
use super::im2col::PatchRows;
use super::shape::ConvShape;
use crate::cpu::Ctx;
use crate::gemm::rows::{MatrixRows, Same};
use crate::gemm::{Epilogue, FloatFinish, Matrix, PackedF32, drive_f32};

/// The weights of an f32 convolution, packed once.
pub struct PackedConvF32(Form);

enum Form {
    /// One matrix per group.
    Groups(Vec<PackedF32>),
    Depthwise(DepthwiseF32),
}

impl PackedConvF32 {
    /// Packs `weights`, in the order out channel, in channel of the group, row, column (OIHW).
    /// Batch and image size of `shape` do not matter.
    ///
    /// # Panics
    /// When `weights` has not `shape.weights_len()` elements, or `shape` contradicts itself.
    pub fn new(shape: &ConvShape, weights: &[f32]) -> PackedConvF32 {
        shape.check();
        assert_eq!(weights.len(), shape.weights_len(), "weights of {shape:?}");
        if shape.is_depthwise() {
            return PackedConvF32(Form::Depthwise(DepthwiseF32::new(shape, weights)));
        }
        let n = shape.group_out_c();
        let group = |first: usize| {
            let at = |k, col| weights[shape.weight_index(k, first + col)];
            PackedF32::from_fn(shape.k(), n, at)
        };
        PackedConvF32(Form::Groups((0..shape.groups).map(|g| group(g * n)).collect()))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.0 {
            Form::Groups(groups) => groups.iter().map(PackedF32::bytes).sum(),
            Form::Depthwise(weights) => weights.bytes(),
        }
    }
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
