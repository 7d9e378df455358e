//! int8 convolutions.

use super::depthwise_i8::DepthwiseI8;
use super::im2col::PatchRows;
use super::merged::{Merged, merged};
use super::shape::ConvShape;
#[cfg(target_arch = "x86_64")]
use super::winograd::{self, Winograd};
use crate::cpu::{Ctx, Isa};
use crate::gemm::driver::Rows;
use crate::gemm::rows::{Convert, MatrixRows};
use crate::gemm::split::by_rows;
use crate::gemm::{
    Activations, Matrix, Output, PackedI8, Prepared, Requantize, Sink, Source, WeightZero, drive_i8,
};
use crate::int8::Int8;
use crate::planes::Planes;

/// The weights of an int8 convolution, packed once, for one instruction set.
pub struct PackedConvI8 {
    form: Form,
    /// Whether images are read in planes of channels.
    in_planes: bool,
    /// Whether results are written in planes of channels.
    out_planes: bool,
}

/// Parts of so many lines for each thread are equal enough.
const MANY_LINES: usize = 16;

enum Form {
    /// One matrix per group, or for several: see [`merged`].
    Groups(Vec<PackedI8>),
    Depthwise(DepthwiseI8),
    #[cfg(target_arch = "x86_64")]
    Winograd(Winograd),
}

impl PackedConvI8 {
    /// Packs `weights`, in the order out channel, in channel of the group, row, column (OIHW).
    /// Batch and image size of `shape` do not matter. Zero points per column are per out channel.
    ///
    /// # Panics
    /// When `weights` has not `shape.weights_len()` elements, a zero point is missing or beyond
    /// the weights' type, or `shape` contradicts itself.
    pub fn new(
        isa: Isa,
        shape: &ConvShape,
        weights: Int8<'_>,
        zero: WeightZero<'_>,
    ) -> PackedConvI8 {
        shape.check();
        assert_eq!(weights.len(), shape.weights_len(), "weights of {shape:?}");
        if shape.is_depthwise() {
            return Form::Depthwise(DepthwiseI8::new(isa, shape, weights, zero)).packed();
        }
        #[cfg(target_arch = "x86_64")]
        if winograd::applies(isa, shape) {
            return Form::Winograd(Winograd::new(isa, shape, weights, zero)).packed();
        }
        let to = merged(shape);
        let weights = Merged::new(shape, &to, weights, zero);
        let (shape, weights) = (&to, weights.weights());
        let (k, n) = (shape.k(), shape.group_out_c());
        let places = places(shape);
        let group = |first: usize| {
            let (columns, zero) = (weights.range(first * k, n * k), zero.columns(first, n));
            match &places {
                None => PackedI8::new_transposed(isa, k, n, columns, zero),
                Some(places) => PackedI8::new_placed(isa, places, n, columns, zero),
            }
        };
        let groups = (0..shape.groups).map(|g| group(g * n)).collect();
        Form::Groups(groups).packed()
    }

    /// Makes once what else each run would make of the zero point of inputs and of `to`. From then
    /// on, inputs have the type and the zero point of `input`, whose values do not matter, and what
    /// becomes of sums is `to`.
    pub fn prepare(&mut self, input: ConvInput<'_>, to: &Requantize<'_>) {
        if let Form::Depthwise(depthwise) = &mut self.form {
            depthwise.prepare(input, to);
        }
    }

    /// Lets this convolution write its results in planes of channels, where `next`, which is
    /// prepared, reads them quicker so: from then on, the output of this one is fit for nothing but
    /// to be the input of `next`. Says whether it is so; where there is no such way, or no gain,
    /// nothing changes.
    pub fn hand_planes(&mut self, next: &mut PackedConvI8) -> bool {
        let (Form::Groups(groups), Form::Depthwise(depthwise)) = (&self.form, &next.form) else {
            return false;
        };
        let whole = matches!(groups.as_slice(), [group] if Planes::pay(group.n()));
        let handed = whole && depthwise.reads_planes();
        if handed {
            (self.out_planes, next.in_planes) = (true, true);
        }
        handed
    }

    /// Whether results are written in planes, by [`PackedConvI8::hand_planes`].
    pub fn writes_planes(&self) -> bool {
        self.out_planes
    }

    /// Whether images are read in planes, by the same.
    pub(super) fn reads_planes(&self) -> bool {
        self.in_planes
    }

    /// Whether each output line comes from the input line of the same number, and `shares` threads
    /// do best to take their part of the lines each.
    pub(super) fn goes_by_lines(&self, shape: &ConvShape, shares: usize) -> bool {
        let lines = shape.batch * shape.out_h();
        let Form::Groups(groups) = &self.form else { return false };
        !self.out_planes
            && groups.len() == 1
            && shape.is_pointwise()
            && (lines.is_multiple_of(shares) || lines >= MANY_LINES * shares)
            && by_rows(shape.out_pixels(), shape.out_c)
    }

    /// Whether it is certain that each of `shares` threads writes its part of the output's lines.
    pub(super) fn writes_lines(&self, shape: &ConvShape, shares: usize) -> bool {
        match &self.form {
            Form::Depthwise(depthwise) => depthwise.writes_lines(shape, shares),
            _ => self.goes_by_lines(shape, shares),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.form {
            Form::Groups(groups) => groups.iter().map(PackedI8::bytes).sum(),
            Form::Depthwise(weights) => weights.bytes(),
            #[cfg(target_arch = "x86_64")]
            Form::Winograd(weights) => weights.bytes(),
        }
    }
}

impl Form {
    fn packed(self) -> PackedConvI8 {
        PackedConvI8 { form: self, in_planes: false, out_planes: false }
    }
}

/// Where the weights of an out channel lie, in the order tap, in channel, which is that of the sums;
/// they are stored in the order in channel, tap. `None` where that is the same.
fn places(shape: &ConvShape) -> Option<Vec<u32>> {
    let (taps, channels) = (shape.kernel[0] * shape.kernel[1], shape.group_in_c());
    let place = |tap: usize, channel: usize| {
        u32::try_from(channel * taps + tap).expect("sums are shorter than 2^32")
    };
    let tap = |tap: usize| (0..channels).map(move |channel| place(tap, channel));
    (taps > 1 && channels > 1).then(|| (0..taps).flat_map(tap).collect())
}

/// The input of an int8 convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvInput<'a> {
    /// Images, NHWC.
    pub values: Int8<'a>,
    /// The value that stands for 0, and fills the padding.
    pub zero_point: i32,
}

/// Convolves `input` (NHWC) into `output` (NHWC).
///
/// Sums are exact as those of [`crate::gemm::gemm_i8`]. Per-column values of the output are per
/// out channel.
///
/// # Panics
/// When a slice has not the length that `shape` says, a zero point is beyond its type, the weights
/// were packed for another shape or instruction set, or the output is not that of
/// [`PackedConvI8::prepare`] and [`PackedConvI8::hand_planes`].
pub fn conv2d_i8(
    ctx: Ctx<'_>,
    shape: &ConvShape,
    input: ConvInput<'_>,
    weights: &PackedConvI8,
    output: Output<'_>,
) {
    // SAFETY: the output is borrowed for this call.
    unsafe { convolve(ctx, shape, input, weights, output.shared()) }
}

/// As [`conv2d_i8`], in one loop or in some that do not depend on each other.
///
/// # Safety
/// Nobody touches the output meanwhile but threads that run other shares of this convolution.
pub(super) unsafe fn convolve(
    ctx: Ctx<'_>,
    shape: &ConvShape,
    input: ConvInput<'_>,
    weights: &PackedConvI8,
    output: Sink<'_>,
) {
    shape.check();
    assert_eq!(input.values.len(), shape.input_len(), "input of {shape:?}");
    assert_eq!(output.len(), shape.output_len(), "output of {shape:?}");
    match &weights.form {
        Form::Depthwise(depthwise) => depthwise.run(ctx, shape, input, weights.in_planes, output),
        #[cfg(target_arch = "x86_64")]
        Form::Winograd(winograd) => winograd.run(ctx, shape, input, output),
        Form::Groups(groups) => {
            let shape = &merged(shape);
            assert_eq!(groups.len(), shape.groups, "weights packed for other groups");
            for (index, group) in groups.iter().enumerate() {
                let place = (index, weights.out_planes);
                multiply(ctx, shape, input, place, group, output);
            }
        }
    }
}

fn multiply(
    ctx: Ctx<'_>,
    shape: &ConvShape,
    input: ConvInput<'_>,
    (index, out_planes): (usize, bool),
    weights: &PackedI8,
    output: Sink<'_>,
) {
    let (m, n) = (shape.out_pixels(), shape.group_out_c());
    assert!(weights.k() == shape.k() && weights.n() == n, "weights packed for another shape");
    let (values, zero_point) = (input.values, input.zero_point);
    let first_channel = index * shape.group_in_c();
    let output = Prepared::new(Matrix { data: output, stride: shape.out_c }, m, n, index * n);
    let output = if out_planes { output.in_planes(m) } else { output };
    if shape.is_pointwise() {
        let source = Pixels { input: values.bytes(), shape, first_channel };
        drive_i8(ctx, 0..m, Activations { source, values, zero_point }, weights, output);
    } else {
        let source = Patches { input: values.bytes(), shape, first_channel };
        drive_i8(ctx, 0..m, Activations { source, values, zero_point }, weights, output);
    }
}

/// Rows of a convolution whose outputs depend on one pixel each.
struct Pixels<'a> {
    input: &'a [u8],
    shape: &'a ConvShape,
    first_channel: usize,
}

impl Source for Pixels<'_> {
    fn rows<C: Convert<Src = u8>>(&self, convert: C, padded_k: usize) -> impl Rows<C::Dst> {
        let data = self.input.get(self.first_channel..).unwrap_or_default();
        MatrixRows { data, stride: self.shape.in_c, k: self.shape.k(), padded_k, convert }
    }
}

/// Rows of any other convolution.
struct Patches<'a> {
    input: &'a [u8],
    shape: &'a ConvShape,
    first_channel: usize,
}

impl Source for Patches<'_> {
    fn rows<C: Convert<Src = u8>>(&self, convert: C, padded_k: usize) -> impl Rows<C::Dst> {
        let (input, shape, first_channel) = (self.input, self.shape, self.first_channel);
        PatchRows { input, shape, first_channel, padded_k, convert }
    }
}
