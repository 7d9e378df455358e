//! Outputs of a transposed convolution that meet equally many taps, as one convolution.

use crate::ops::conv::geometry::Geometry;
use crate::ops::window::{AutoPad, Window};

/// Along an axis, element `i` of the input meets output `i * stride + k * dilation` at tap `k`. Taps
/// a *step* apart reach the same outputs, so the first taps below the step, the *lanes*, share them
/// out. The lanes of a part have the same number of taps, and are output channels of a convolution
/// with steps of 1: its result at `v` belongs to output `v * stride + lane * dilation`.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Output channels go by group, then lane, then channel of the group.
    pub conv: Geometry,
    whole: Window,
    pub axes: Vec<Lanes>,
}

/// The lanes of a part along an axis.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lanes {
    pub first: usize,
    pub count: usize,
    /// Between the taps of a lane.
    step: usize,
    taps: usize,
    /// Between the elements of the input that taps of a lane meet.
    apart: usize,
    pub stride: usize,
    pub dilation: usize,
}

impl Lanes {
    /// All lanes of an axis: those with as many taps as can be, and those with one less.
    fn all(window: &Window, axis: usize) -> Vec<Lanes> {
        let (stride, dilation) = (window.strides[axis], window.dilations[axis]);
        let kernel = window.kernel[axis];
        let common = common(stride, dilation);
        let (step, apart) = (stride / common, dilation / common);
        let taps = kernel.div_ceil(step);
        let long = kernel - (taps - 1) * step;
        let lanes =
            |first, count, taps| Lanes { first, count, step, taps, apart, stride, dilation };
        let mut all = vec![lanes(0, long, taps)];
        if taps > 1 && long < step {
            all.push(lanes(long, step - long, taps - 1));
        }
        all
    }
}

impl Part {
    /// What computes each output of `whole` that meets a tap once.
    pub fn all(whole: &Geometry) -> Vec<Part> {
        let mut parts: Vec<Vec<Lanes>> = vec![Vec::new()];
        for axis in 0..whole.window.rank() {
            let lanes = Lanes::all(&whole.window, axis);
            let with = |part: &Vec<Lanes>| {
                let part = part.clone();
                lanes.clone().into_iter().map(move |lane| [part.as_slice(), &[lane]].concat())
            };
            parts = parts.iter().flat_map(with).collect();
        }
        parts.into_iter().map(|axes| Part::new(whole, axes)).collect()
    }

    fn new(whole: &Geometry, axes: Vec<Lanes>) -> Part {
        let rank = axes.len();
        let lanes: usize = axes.iter().map(|lanes| lanes.count).product();
        let window = Window {
            kernel: axes.iter().map(|lanes| lanes.taps).collect(),
            strides: vec![1; rank],
            dilations: axes.iter().map(|lanes| lanes.apart).collect(),
            begin: vec![0; rank],
            end: vec![0; rank],
            auto_pad: AutoPad::Explicit,
            ceil: false,
        };
        let conv = Geometry { window, out_c: whole.out_c * lanes, ..whole.clone() };
        Part { conv, whole: whole.window.clone(), axes }
    }

    /// Number of lanes.
    pub fn lanes(&self) -> usize {
        self.axes.iter().map(|lanes| lanes.count).product()
    }

    /// The weight `[C, M/group, k...]` of the node as that of the convolution.
    pub fn weights<T: Copy>(&self, weights: &[T]) -> Vec<T> {
        let Geometry { groups, in_c, out_c, .. } = self.conv;
        let area: usize = self.whole.kernel.iter().product();
        let (group_in, group_out) = (in_c / groups, out_c / groups / self.lanes());
        let taps: Vec<Vec<usize>> = (0..self.lanes()).map(|lane| self.taps(lane)).collect();
        let mut own = Vec::with_capacity(self.conv.packing().weights_len());
        for group in 0..groups {
            for (taps, o) in taps.iter().flat_map(|taps| (0..group_out).map(move |o| (taps, o))) {
                for i in 0..group_in {
                    let start = ((group * group_in + i) * group_out + o) * area;
                    own.extend(taps.iter().map(|tap| weights[start + tap]));
                }
            }
        }
        own
    }

    /// Taps of the node's kernel that a lane has, the last one first.
    fn taps(&self, mut lane: usize) -> Vec<usize> {
        let (mut all, mut size) = (vec![0], 1);
        for (lanes, kernel) in self.axes.iter().zip(&self.whole.kernel).rev() {
            let first = lanes.first + lane % lanes.count;
            lane /= lanes.count;
            let along = (0..lanes.taps).rev().map(|tap| (first + tap * lanes.step) * size);
            all = along.flat_map(|at| all.iter().map(move |inner| at + inner)).collect();
            size *= kernel;
        }
        all
    }

    /// Numbers that output channels of the node have, for those of the convolution.
    pub fn channels<T: Copy>(&self, values: &[T]) -> Vec<T> {
        let of_group = values.len() / self.conv.groups;
        values.chunks_exact(of_group).flat_map(|group| group.repeat(self.lanes())).collect()
    }
}

/// Whether there are outputs that no tap reaches.
pub(super) fn leaves_gaps(window: &Window) -> bool {
    let axes = window.strides.iter().zip(&window.dilations).zip(&window.kernel);
    axes.into_iter().any(|((&stride, &dilation), &kernel)| {
        kernel < stride || (stride > 1 && common(stride, dilation) > 1)
    })
}

/// Greatest common divisor.
fn common(mut a: usize, mut b: usize) -> usize {
    while b > 0 {
        (a, b) = (b, a % b);
    }
    a
}
