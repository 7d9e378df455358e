//! `ConvTranspose` as a convolution: the input is spread out with zeros between its elements, the
//! kernel is mirrored (Dumoulin and Visin, "A guide to convolution arithmetic", section 4).

use super::geometry::{Geometry, Pads, groups};
use crate::ops::window::{AutoPad, Window, sizes};
use crate::plan::kernel::RunCtx;
use fewbit_core::{Error, Node, Result, Tensor};

/// Padding before and after each spatial axis; below 0 the output grows.
pub(crate) type SignedPads = Vec<(i64, i64)>;

/// A transposed convolution as far as it does not depend on the input's size.
#[derive(Clone, Debug)]
pub(crate) struct Transposed {
    /// The convolution over the spread input.
    pub conv: Geometry,
    /// The attributes as the node has them.
    window: Window,
    extra: Vec<usize>,
    output_shape: Option<Vec<usize>>,
}

impl Transposed {
    /// From the node and the shape `[C, M/group, k...]` of the weight.
    ///
    /// # Errors
    /// When attributes and weight contradict each other.
    pub fn new(node: &Node, weight: &[usize]) -> Result<Transposed> {
        let groups = groups(node)?;
        let ([in_c, group_out, ..], true) = (weight, weight.len() >= 3) else {
            return Err(Error::bad_input(format!(
                "a weight of shape {weight:?}; [C,M,k...] is expected"
            )));
        };
        if *in_c == 0 || *group_out == 0 || !in_c.is_multiple_of(groups) {
            return Err(Error::bad_input(format!(
                "{in_c} input channels do not form {groups} groups"
            ))
            .code("FB-3212"));
        }
        let out_c =
            group_out.checked_mul(groups).ok_or_else(|| Error::bad_input("group is too large"))?;
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
        let mut spread = window.clone();
        spread.strides = vec![1; rank];
        let conv = Geometry { window: spread, groups, in_c: *in_c, out_c };
        Ok(Transposed { conv, window, extra, output_shape })
    }

    /// The weight `[C, M/group, k...]` as that of the convolution, `[M, C/group, k...]` mirrored.
    pub fn weights<T: Copy>(&self, weights: &[T]) -> Vec<T> {
        let Geometry { groups, in_c, out_c, .. } = self.conv;
        let area: usize = self.window.kernel.iter().product();
        let (group_in, group_out) = (in_c / groups, out_c / groups);
        let mut mirrored = Vec::with_capacity(weights.len());
        for out in 0..out_c {
            let (group, o) = (out / group_out, out % group_out);
            for i in 0..group_in {
                let start = ((group * group_in + i) * group_out + o) * area;
                mirrored.extend(weights[start..start + area].iter().rev());
            }
        }
        mirrored
    }

    /// As [`weights`](Transposed::weights), of the bytes of f32.
    pub fn float_weights(&self, weights: &[u8]) -> Vec<u8> {
        self.weights(weights.as_chunks::<{ size_of::<f32>() }>().0).into_flattened()
    }

    /// Output sizes for a spatial input size, with the padding before and after each axis.
    ///
    /// # Errors
    /// When the padding leaves nothing.
    pub fn outputs(&self, input: &[usize]) -> Result<(Vec<usize>, SignedPads)> {
        if input.len() != self.window.rank() {
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
        let window = &self.window;
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
        match self.window.auto_pad {
            // A larger output than the input fills grows at its end.
            _ if total < 0 => (0, total),
            AutoPad::SameUpper => (half, total - half),
            _ => (total - half, half),
        }
    }

    /// Spreads a `[N,...,C]` input; returns it with padding and output shape of the convolution.
    /// `fill` is the byte that stands for zero.
    ///
    /// # Errors
    /// When the input does not fit, or there is no memory.
    pub fn spread(
        &self,
        ctx: &RunCtx,
        input: &Tensor,
        fill: u8,
    ) -> Result<(Tensor, Pads, Vec<usize>)> {
        let rank = self.window.rank();
        let dims = input.shape();
        if dims.len() != rank + 2 || dims[rank + 1] != self.conv.in_c {
            return Err(Error::bad_input(format!(
                "an input of shape {dims:?} (channels last) for a weight with {} input channels",
                self.conv.in_c
            ))
            .code("FB-3213"));
        }
        let (sizes, pads) = self.outputs(&dims[1..=rank])?;
        let axes: Vec<Axis> = (0..rank)
            .map(|a| {
                Axis::new(
                    dims[a + 1],
                    self.window.strides[a],
                    self.window.reach(a),
                    pads[a],
                    self.extra[a],
                )
            })
            .collect();
        let mut shape = vec![dims[0]];
        shape.extend(axes.iter().map(|axis| axis.len));
        shape.push(dims[rank + 1]);
        let mut spread = ctx.arena.tensor(input.dtype(), shape)?;
        let pixel = dims[rank + 1] * input.dtype().size().unwrap_or(1);
        let target = spread.bytes_mut();
        target.fill(fill);
        scatter(input.bytes(), target, dims[0], &axes, pixel);
        let mut output = vec![dims[0]];
        output.extend(sizes);
        output.push(self.conv.out_c);
        Ok((spread, axes.iter().map(|axis| axis.pads).collect(), output))
    }
}

/// One axis of the spread input: where the elements of the input go.
struct Axis {
    size: usize,
    stride: usize,
    /// Length after spreading and cutting.
    len: usize,
    /// Elements cut at the front, where the node's padding is larger than the kernel reaches.
    cut: usize,
    pads: (usize, usize),
}

impl Axis {
    fn new(size: usize, stride: usize, reach: usize, pads: (i64, i64), extra: usize) -> Axis {
        let reach = reach as i64 - 1;
        let (begin, end) = (reach - pads.0, reach - pads.1 + extra as i64);
        // Of the spread line and the endless zeros around it, `from..to` is convolved.
        let line = ((size - 1) * stride + 1) as i64;
        let (from, to) = (-begin, line + end);
        let first = from.clamp(0, line);
        let len = to.clamp(first, line) - first;
        let total = (to - from).max(len);
        let before = (-from).clamp(0, total - len);
        let count = |n: i64| n as usize;
        Axis {
            size,
            stride,
            len: count(len),
            cut: count(first),
            pads: (count(before), count(total - len - before)),
        }
    }

    /// Where element `index` of the input goes.
    fn place(&self, index: usize) -> Option<usize> {
        (index * self.stride).checked_sub(self.cut).filter(|&at| at < self.len)
    }
}

fn scatter(input: &[u8], output: &mut [u8], batch: usize, axes: &[Axis], pixel: usize) {
    let pixels: usize = axes.iter().map(|a| a.size).product();
    let spread: usize = axes.iter().map(|a| a.len).product();
    for image in 0..batch {
        for index in 0..pixels {
            let Some(at) = spread_index(axes, index) else { continue };
            let from = (image * pixels + index) * pixel;
            let to = (image * spread + at) * pixel;
            output[to..to + pixel].copy_from_slice(&input[from..from + pixel]);
        }
    }
}

fn spread_index(axes: &[Axis], mut index: usize) -> Option<usize> {
    let (mut at, mut step) = (0, 1);
    for axis in axes.iter().rev() {
        at += axis.place(index % axis.size)? * step;
        index /= axis.size;
        step *= axis.len;
    }
    Some(at)
}
