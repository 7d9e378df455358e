//! `ConvTranspose` as convolutions over its input as it is: outputs that meet the same taps are
//! channels of one [`Part`], and then go to their places. Zeros between the elements of the input
//! would say the same, with a product for each.

mod part;
mod place;

pub(crate) use part::Part;

use super::geometry::{Geometry, Pads, channels};
use crate::ops::window::{AutoPad, Window, sizes};
use crate::plan::kernel::RunCtx;
use fewbit_core::{DType, Error, Node, Result, Tensor};
use place::{Line, Places};

/// Padding before and after each spatial axis; below 0 the output grows.
pub(crate) type SignedPads = Vec<(i64, i64)>;

/// A transposed convolution as far as it does not depend on the input's size.
#[derive(Clone, Debug)]
pub(crate) struct Transposed {
    /// Channels and groups; the window is as the node has it.
    pub whole: Geometry,
    /// What computes each output once.
    pub parts: Vec<Part>,
    extra: Vec<usize>,
    output_shape: Option<Vec<usize>>,
}

impl Transposed {
    /// From the node and the shape `[C, M/group, k...]` of the weight.
    ///
    /// # Errors
    /// When attributes and weight contradict each other.
    pub fn new(node: &Node, weight: &[usize]) -> Result<Transposed> {
        let [groups, in_c, out_c] = channels(node, weight, ["C", "M"], ["input", "output"])?;
        let window = Window::new(node, &weight[2..])?;
        let rank = window.rank();
        let output_shape = match node.ints("output_shape")? {
            // Some exporters write batch and channels too.
            Some(shape) => Some(
                sizes(node, "output_shape", shape.len(), 0, 0)?
                    .split_off(shape.len().saturating_sub(rank)),
            ),
            None => None,
        };
        if output_shape.as_ref().is_some_and(|s| s.len() != rank) {
            return Err(Error::bad_input("attribute `output_shape` has another rank"));
        }
        let extra = sizes(node, "output_padding", rank, 0, 0)?;
        let whole = Geometry { window, groups, in_c, out_c };
        let parts = Part::all(&whole);
        Ok(Transposed { whole, parts, extra, output_shape })
    }

    /// Output sizes for a spatial input size, with the padding before and after each axis.
    ///
    /// # Errors
    /// When the padding leaves nothing.
    pub fn outputs(&self, input: &[usize]) -> Result<(Vec<usize>, SignedPads)> {
        if input.len() != self.whole.window.rank() {
            return Err(Error::bad_input("the input has another rank than the kernel"));
        }
        let both: Vec<(usize, (i64, i64))> = input
            .iter()
            .enumerate()
            .map(|(axis, &size)| self.output(axis, size))
            .collect::<Result<_>>()?;
        Ok(both.into_iter().unzip())
    }

    fn output(&self, axis: usize, size: usize) -> Result<(usize, (i64, i64))> {
        let window = &self.whole.window;
        let too_large = || Error::bad_input(format!("spatial size {size} is too large"));
        let signed =
            |n: usize| i64::try_from(n).ok().filter(|&n| n <= 1 << 40).ok_or_else(too_large);
        let (stride, extra) = (signed(window.strides[axis])?, signed(self.extra[axis])?);
        let full = stride
            .checked_mul(signed(size)? - 1)
            .and_then(|n| n.checked_add(extra + window.reach(axis) as i64))
            .ok_or_else(too_large)?;
        let wanted = match (&self.output_shape, window.auto_pad) {
            (Some(shape), _) => Some(signed(shape[axis])?),
            (None, AutoPad::SameUpper | AutoPad::SameLower) => stride.checked_mul(signed(size)?),
            _ => None,
        };
        let (begin, end) = match wanted {
            Some(wanted) => self.split(full - wanted),
            None => (window.begin[axis] as i64, window.end[axis] as i64),
        };
        match usize::try_from(full - begin - end) {
            Ok(output) if size > 0 => Ok((output, (begin, end))),
            _ => Err(Error::bad_input(format!(
                "padding {begin} and {end} leaves nothing of {full} outputs"
            ))),
        }
    }

    fn split(&self, total: i64) -> (i64, i64) {
        let half = total / 2;
        match self.whole.window.auto_pad {
            // A larger output than the input fills grows at its end.
            _ if total < 0 => (0, total),
            AutoPad::SameUpper => (half, total - half),
            _ => (total - half, half),
        }
    }

    /// Multiply-accumulates behind `outputs` output elements, those at the edges taken for whole.
    pub fn macs(&self, outputs: usize) -> u64 {
        let share: usize = self.whole.window.strides.iter().product();
        self.whole.macs(outputs) / share.max(1) as u64
    }

    /// Output of type `dtype` for a `[N,...,C]` input. `convolve` computes the part of an index over
    /// an input with padding, into a shape; `zero` is the byte that zeros of the input consist of.
    ///
    /// # Errors
    /// When the input does not fit, there is no memory, or `convolve` fails.
    pub fn run(
        &self,
        ctx: &RunCtx,
        input: &Tensor,
        (dtype, zero): (DType, u8),
        convolve: impl Fn(usize, &Tensor, &Pads, Vec<usize>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (window, dims) = (&self.whole.window, input.shape());
        let rank = window.rank();
        if dims.len() != rank + 2 || dims[rank + 1] != self.whole.in_c {
            return Err(Error::bad_input(format!(
                "an input of shape {dims:?} (channels last) for a weight with {} input channels",
                self.whole.in_c
            ))
            .code("FB-3213"));
        }
        let (sizes, pads) = self.outputs(&dims[1..=rank])?;
        let shape = [&dims[..1], sizes.as_slice(), &[self.whole.out_c]].concat();
        let mut output = ctx.arena.tensor(dtype, shape)?;
        if output.is_empty() {
            return Ok(output);
        }
        if part::leaves_gaps(window) {
            let blank = self.blank(ctx, input.dtype(), zero, &convolve)?;
            place::repeat(blank.bytes(), output.bytes_mut());
        }
        for (index, part) in self.parts.iter().enumerate() {
            let line =
                |axis: usize| Line::new(part, axis, dims[axis + 1], pads[axis].0, sizes[axis]);
            let Some(lines) = (0..rank).map(line).collect::<Option<Vec<Line>>>() else { continue };
            let around = lines.iter().map(|line| line.pads).collect();
            let long = lines.iter().map(|line| line.len);
            let own = [dims[0]].into_iter().chain(long).chain([part.conv.out_c]).collect();
            let results = convolve(index, input, &around, own)?;
            let places = Places::new(part, lines, dtype.size().unwrap_or(1));
            places.fill(ctx.kernels.pool, results.bytes(), output.bytes_mut());
            ctx.arena.recycle(results);
        }
        Ok(output)
    }

    /// A pixel of outputs that meet no tap.
    fn blank(
        &self,
        ctx: &RunCtx,
        dtype: DType,
        zero: u8,
        convolve: impl Fn(usize, &Tensor, &Pads, Vec<usize>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let (part, rank) = (&self.parts[0], self.whole.window.rank());
        let pixel = |channels: usize| [vec![1; rank + 1], vec![channels]].concat();
        let mut zeros = ctx.arena.tensor(dtype, pixel(self.whole.in_c))?;
        zeros.bytes_mut().fill(zero);
        let before = (0..rank).map(|axis| (part.conv.window.reach(axis) - 1, 0)).collect();
        let results = convolve(0, &zeros, &before, pixel(part.conv.out_c))?;
        let size = results.dtype().size().unwrap_or(1);
        let mut blank = ctx.arena.tensor(results.dtype(), pixel(self.whole.out_c))?;
        let of_group = self.whole.out_c / self.whole.groups * size;
        let groups = results.bytes().chunks_exact(of_group * part.lanes());
        for (to, from) in blank.bytes_mut().chunks_exact_mut(of_group).zip(groups) {
            to.copy_from_slice(&from[..of_group]);
        }
        Ok(blank)
    }
}
