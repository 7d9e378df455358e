//! int8 convolutions one after another, through which all threads walk side by side.

use super::int8::{ConvInput, PackedConvI8, convolve};
use super::shape::ConvShape;
use crate::cpu::Ctx;
use crate::gemm::{Requantize, Residual, Sink};
use crate::int8::{Int8, Int8Mut};
use crate::scratch::Line;
use crate::threads::{Pool, SharedMut};
use std::ops::Range;

/// Where a convolution of a sequence finds values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An input of the sequence.
    Input(usize),
    /// A buffer that a convolution before it has filled.
    Buffer(usize),
}

/// One convolution of a sequence. Images are NHWC. In a buffer, they begin where
/// [`start_in_buffer`] says for their length: who reads a value sees all of it.
#[derive(Clone, Copy)]
pub struct Link<'a> {
    /// Sizes.
    pub shape: &'a ConvShape,
    /// Weights.
    pub weights: &'a PackedConvI8,
    /// Where the images are.
    pub from: Place,
    /// Their type and zero point; its values do not matter.
    pub input: ConvInput<'a>,
    /// What becomes of sums; the values of a residual that is no row do not matter.
    pub to: Requantize<'a>,
    /// Where such a residual is.
    pub residual: Option<Place>,
    /// Whether results are signed.
    pub signed: bool,
    /// The buffer that results are written to.
    pub buffer: usize,
}

/// Where a value of `len` bytes begins in a buffer of `room` bytes: so that it lies in the middle, but
/// at a cache line. Large and small values that use a buffer one after another are cut in two at the
/// same place then, and neither of two threads writes what is in the other one's cache: where caches
/// are far from each other, that can take as long as the convolution. Values in planes of channels, each
/// of which is cut, begin where the buffer does.
pub fn start_in_buffer(room: usize, len: usize, planes: bool) -> usize {
    let around = if planes { 0 } else { room.saturating_sub(len) };
    around / 2 / size_of::<Line>() * size_of::<Line>()
}

/// Runs `count` convolutions, each as [`conv2d_i8`](super::conv2d_i8) does, in `buffers`. `done` is
/// called after each of them, on the calling thread, when its share is done. Results are the same,
/// but threads meet where one reads what others wrote, instead of opening and closing loops.
///
/// # Panics
/// When a place is missing or too short, a convolution reads the buffer that it writes to, or as
/// [`conv2d_i8`](super::conv2d_i8).
pub fn conv2d_i8_sequence<'a>(
    ctx: Ctx<'_>,
    count: usize,
    link: impl Fn(usize) -> Link<'a> + Sync,
    inputs: &[&[u8]],
    buffers: Vec<&mut [u8]>,
    done: impl Fn(usize) + Sync,
) {
    let buffers: Vec<_> = buffers.into_iter().map(SharedMut::new).collect();
    let places = Places { inputs, buffers: &buffers };
    let run = |index, pool: &_| {
        // SAFETY: threads meet behind each convolution but those that `meetings` finds.
        unsafe { places.run(Ctx { isa: ctx.isa, pool }, &link(index)) }
    };
    ctx.pool.walk(count, |shares| meetings(count, &link, shares), run, done);
}

/// For each convolution, whether threads meet behind it.
fn meetings<'a>(count: usize, link: impl Fn(usize) -> Link<'a>, shares: usize) -> Vec<bool> {
    let mut since: Vec<Link<'a>> = Vec::new();
    let meets = |index: usize| {
        since.push(link(index));
        let meets = index + 1 == count || !link(index + 1).goes_on(&since, shares);
        if meets {
            since.clear();
        }
        meets
    };
    (0..count).map(meets).collect()
}

impl Link<'_> {
    /// Whether each of `shares` threads may run its lines of this convolution while others are at
    /// those `since` they last met: then it reads no line that others write there, and writes
    /// where nobody reads or writes there.
    fn goes_on(&self, since: &[Link<'_>], shares: usize) -> bool {
        let shape = self.shape;
        let reads = [
            (Some(self.from), [shape.in_w, shape.in_c]),
            (self.residual, [shape.out_w(), shape.out_c]),
        ];
        let is_own = |(place, line): (Option<Place>, [usize; 2])| {
            let mut writers = since.iter().filter(|link| place == Some(link.writes()));
            writers.all(|link| {
                let from = link.shape;
                let lines = from.batch * from.out_h() == shape.batch * shape.out_h();
                let line = line == [from.out_w(), from.out_c];
                lines && line && link.weights.writes_lines(from, shares)
            })
        };
        self.weights.goes_by_lines(shape, shares)
            && reads.into_iter().all(is_own)
            && !since.iter().any(|link| link.touches(self.writes()))
    }

    fn reads_own(&self) -> bool {
        self.from == self.writes() || self.residual == Some(self.writes())
    }

    fn writes(&self) -> Place {
        Place::Buffer(self.buffer)
    }

    fn touches(&self, place: Place) -> bool {
        [Some(self.from), self.residual, Some(self.writes())].contains(&Some(place))
    }
}

/// How long a value is, and whether it lies in planes of channels.
#[derive(Clone, Copy)]
struct Value {
    len: usize,
    planes: bool,
}

/// What the convolutions of a sequence read and write.
struct Places<'a> {
    inputs: &'a [&'a [u8]],
    buffers: &'a [SharedMut<'a, u8>],
}

impl Places<'_> {
    /// # Safety
    /// Nobody writes to a buffer that is read but threads that write other lines of it, where
    /// [`Link::goes_on`], and nobody touches the one that is written but threads that run other
    /// shares of this convolution.
    unsafe fn run(&self, ctx: Ctx<'_>, link: &Link<'_>) {
        let Link { shape, weights, .. } = *link;
        assert!(!link.reads_own(), "reads what it writes");
        let lines = shape.batch * shape.out_h();
        match ctx.pool.part(lines) {
            Some(part) if weights.goes_by_lines(shape, ctx.pool.threads()) => {
                let part_of = ConvShape { batch: 1, in_h: part.len(), ..*shape };
                let ctx = Ctx { isa: ctx.isa, pool: &Pool::single() };
                // SAFETY: as this function; others write other lines.
                unsafe { self.convolve(ctx, link, &part_of, part.start) }
            }
            // SAFETY: as this function.
            _ => unsafe { self.convolve(ctx, link, shape, 0) },
        }
    }

    /// Runs a convolution, all of it or a part of the size `shape` that begins at line `line`.
    ///
    /// # Safety
    /// As [`Places::run`], for the lines of the part.
    unsafe fn convolve(&self, ctx: Ctx<'_>, link: &Link<'_>, shape: &ConvShape, line: usize) {
        let Link { shape: whole, input, weights, .. } = *link;
        let part = |line_len: usize, len: usize| line * line_len..line * line_len + len;
        let from = part(shape.in_w * shape.in_c, shape.input_len());
        let to = part(shape.out_w() * shape.out_c, shape.output_len());
        let image = Value { len: whole.input_len(), planes: weights.reads_planes() };
        let result = Value { len: whole.output_len(), planes: weights.writes_planes() };
        // SAFETY: the caller's promise.
        let values = unsafe { self.read((link.from, image), from, input.values) };
        let mut finish = link.to;
        if let (Some(place), Some(Residual { values, .. })) = (link.residual, &mut finish.residual)
        {
            let added = Value { planes: false, ..result };
            // SAFETY: the caller's promise.
            *values = unsafe { self.read((place, added), to.clone(), *values) };
        }
        let like = if link.signed { Int8Mut::I8(&mut []) } else { Int8Mut::U8(&mut []) };
        let sink = Sink::Int8(self.value(link.buffer, result).part(to), like.limits(), finish);
        // SAFETY: the caller's promise.
        unsafe { convolve(ctx, shape, ConvInput { values, ..input }, weights, sink) }
    }

    /// A value in a buffer.
    fn value(&self, buffer: usize, Value { len, planes }: Value) -> SharedMut<'_, u8> {
        let buffer = &self.buffers[buffer];
        let start = start_in_buffer(buffer.len(), len, planes);
        buffer.part(start..start + len)
    }

    /// A part of a value in a place, of the type of `like`.
    ///
    /// # Safety
    /// Nobody writes to the part while it is alive.
    unsafe fn read(
        &self,
        (place, value): (Place, Value),
        part: Range<usize>,
        like: Int8<'_>,
    ) -> Int8<'_> {
        let bytes = match place {
            Place::Input(index) => &self.inputs[index][part],
            // SAFETY: the caller's promise.
            Place::Buffer(index) => unsafe { self.value(index, value).read(part) },
        };
        match like {
            Int8::U8(_) => Int8::U8(bytes),
            Int8::I8(_) => Int8::I8(bytemuck::cast_slice(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::int8::ConvInput;
    use super::*;
    use crate::cpu::{Isa, Level};
    use crate::gemm::WeightZero;

    const INPUT: ConvInput<'static> = ConvInput { values: Int8::U8(&[]), zero_point: 3 };

    fn requantize(multiplier: &[f32]) -> Requantize<'_> {
        Requantize { bias: None, multiplier, residual: None, zero_point: 90, lo: 0, hi: 255 }
    }

    /// Which of a wide, a depthwise, a narrow and a wide convolution threads meet behind, each in
    /// the buffer that is named.
    fn met(isa: Isa, lines: usize, buffers: [usize; 4], shares: usize) -> Vec<bool> {
        let shape = |in_c, out_c, kernel: usize, groups| ConvShape {
            batch: 1,
            in_h: lines,
            in_w: 14,
            in_c,
            out_c,
            kernel: [kernel; 2],
            stride: [1; 2],
            dilation: [1; 2],
            pads: [kernel / 2; 4],
            groups,
        };
        let shapes =
            [shape(32, 64, 1, 1), shape(64, 64, 3, 64), shape(64, 32, 1, 1), shape(32, 64, 1, 1)];
        let multiplier = [0.01; 64];
        let weights = shapes.each_ref().map(|shape| {
            let values = vec![1; shape.weights_len()];
            let mut packed = PackedConvI8::new(isa, shape, Int8::I8(&values), WeightZero::None);
            packed.prepare(INPUT, &requantize(&multiplier[..shape.out_c]));
            packed
        });
        let link = |index: usize| Link {
            shape: &shapes[index],
            weights: &weights[index],
            from: index.checked_sub(1).map_or(Place::Input(0), |i| Place::Buffer(buffers[i])),
            input: INPUT,
            to: requantize(&multiplier[..shapes[index].out_c]),
            residual: None,
            signed: false,
            buffer: buffers[index],
        };
        meetings(4, link, shares)
    }

    #[test]
    fn values_of_any_length_are_cut_in_two_at_the_same_place() {
        for len in [128, 1 << 10, 1 << 12] {
            assert_eq!(start_in_buffer(1 << 12, len, false) + len / 2, 1 << 11);
            assert_eq!(start_in_buffer(1 << 12, len, true), 0);
        }
        // At a cache line, and refused elsewhere.
        assert_eq!(
            [start_in_buffer(1000, 100, false), start_in_buffer(100, 1000, false)],
            [448, 0]
        );
    }

    #[test]
    fn threads_meet_where_they_read_lines_of_others_or_write_what_others_touch() {
        for isa in Isa::available() {
            // Only these depthwise kernels promise whose lines are written by whom.
            let promises = isa.level() == Level::Avx512;
            assert_eq!(met(isa, 28, [0, 1, 2, 3], 2), [true, !promises, false, true]);
            // The third writes what others may still read for the second, or the fourth for the
            // third.
            assert_eq!(met(isa, 28, [0, 1, 0, 3], 2), [true, true, false, true]);
            assert_eq!(met(isa, 28, [0, 1, 2, 1], 2), [true, !promises, true, true]);
            // Lines that cannot be shared out equally.
            assert_eq!(met(isa, 7, [0, 1, 2, 3], 2), [true; 4]);
        }
    }
}
