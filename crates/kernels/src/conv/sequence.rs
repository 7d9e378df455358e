//! int8 convolutions one after another, through which all threads walk side by side.

use super::int8::{ConvInput, PackedConvI8, convolve};
use super::shape::ConvShape;
use crate::cpu::Ctx;
use crate::gemm::{Requantize, Residual, Sink};
use crate::int8::{Int8, Int8Mut};
use crate::threads::SharedMut;

/// Where a convolution of a sequence finds values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// An input of the sequence.
    Input(usize),
    /// A buffer that a convolution before it has filled.
    Buffer(usize),
}

/// One convolution of a sequence. Images are NHWC, from the beginning of their place on.
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

/// Runs `count` convolutions, each as [`conv2d_i8`](super::conv2d_i8) does, in `buffers`. `done` is
/// called after each of them, on the calling thread. Results are the same, but threads meet once a
/// convolution, where loops are opened and closed otherwise.
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
        // SAFETY: threads run shares of the same convolution, and meet before the next one.
        unsafe { places.run(Ctx { isa: ctx.isa, pool }, &link(index)) }
    };
    ctx.pool.walk(count, run, done);
}

/// What the convolutions of a sequence read and write.
struct Places<'a> {
    inputs: &'a [&'a [u8]],
    buffers: &'a [SharedMut<'a, u8>],
}

impl Places<'_> {
    /// # Safety
    /// Nobody writes to a buffer but threads that run shares of the same convolution.
    unsafe fn run(&self, ctx: Ctx<'_>, link: &Link<'_>) {
        let Link { shape, input, weights, .. } = *link;
        let own = Some(Place::Buffer(link.buffer));
        assert!(Some(link.from) != own && link.residual != own, "reads what it writes");
        // SAFETY: only this convolution writes meanwhile, and to another buffer.
        let read = |place, len, like| unsafe { self.read(place, len, like) };
        let values = read(link.from, shape.input_len(), input.values);
        let mut to = link.to;
        if let (Some(place), Some(Residual { values, .. })) = (link.residual, &mut to.residual) {
            *values = read(place, shape.output_len(), *values);
        }
        let like = if link.signed { Int8Mut::I8(&mut []) } else { Int8Mut::U8(&mut []) };
        let out = self.buffers[link.buffer].part(0..shape.output_len());
        // SAFETY: as this function.
        unsafe {
            convolve(
                ctx,
                shape,
                ConvInput { values, ..input },
                weights,
                Sink::Int8(out, like.limits(), to),
            );
        }
    }

    /// The first `len` values of a place, of the type of `like`.
    ///
    /// # Safety
    /// Nobody writes to them while they are alive.
    unsafe fn read(&self, place: Place, len: usize, like: Int8<'_>) -> Int8<'_> {
        let bytes = match place {
            Place::Input(index) => &self.inputs[index][..len],
            // SAFETY: the caller's promise.
            Place::Buffer(index) => unsafe { self.buffers[index].read(0..len) },
        };
        match like {
            Int8::U8(_) => Int8::U8(bytes),
            Int8::I8(_) => Int8::I8(bytemuck::cast_slice(bytes)),
        }
    }
}
