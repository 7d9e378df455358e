//! Sizes of a convolution and the checks that make the kernels safe to call.

use crate::ops::window::Window;
use fewbit_core::{Error, Node, Result};
use fewbit_kernels::conv::ConvShape;

/// A convolution as far as it does not depend on the input's size.
#[derive(Clone, Debug)]
pub(crate) struct Geometry {
    pub window: Window,
    pub groups: usize,
    pub in_c: usize,
    pub out_c: usize,
}

/// Padding before and after, for each spatial axis.
pub(crate) type Pads = Vec<(usize, usize)>;

impl Geometry {
    /// From the node and the shape `[M, C/group, k...]` of the weight.
    ///
    /// # Errors
    /// When attributes and weight contradict each other.
    pub fn of_conv(node: &Node, weight: &[usize]) -> Result<Geometry> {
        let [groups, out_c, in_c] = channels(node, weight, ["M", "C"], ["output", "input"])?;
        Ok(Geometry { window: Window::new(node, &weight[2..])?, groups, in_c, out_c })
    }

    /// Batch size, spatial size, padding and output shape for an input `[N,...,C]`.
    ///
    /// # Errors
    /// When the input does not fit the weight.
    pub fn of_input(&self, input: &[usize]) -> Result<(Pads, Vec<usize>)> {
        let rank = self.window.rank();
        if input.len() != rank + 2 || input[rank + 1] != self.in_c {
            return Err(Error::bad_input(format!(
                "an input of shape {input:?} (channels last) for a weight with {} input channels \
                 and {rank} spatial dimensions",
                self.in_c
            ))
            .code("FB-3213"));
        }
        let spatial = &input[1..=rank];
        let mut output = Vec::with_capacity(input.len());
        output.push(input[0]);
        self.window.extend_outputs(spatial, &mut output)?;
        output.push(self.out_c);
        let pads = spatial.iter().enumerate().map(|(axis, &size)| self.window.pads(axis, size));
        Ok((pads.collect(), output))
    }

    /// The kernel's view of the last two spatial axes; a single axis gets height 1.
    pub fn plane(&self, batch: usize, spatial: &[usize], pads: &[(usize, usize)]) -> ConvShape {
        let window = &self.window;
        let skip = window.rank().saturating_sub(2);
        let pair = |items: &[usize], fill| match &items[skip..] {
            [w] => [fill, *w],
            [h, w] => [*h, *w],
            _ => [fill, fill],
        };
        let [in_h, in_w] = pair(spatial, 1);
        let [(top, bottom), (left, right)] = match &pads[skip..] {
            [across] => [(0, 0), *across],
            [down, across] => [*down, *across],
            _ => [(0, 0); 2],
        };
        ConvShape {
            batch,
            in_h,
            in_w,
            in_c: self.in_c,
            out_c: self.out_c,
            kernel: pair(&window.kernel, 1),
            stride: pair(&window.strides, 1),
            dilation: pair(&window.dilations, 1),
            pads: [top, left, bottom, right],
            groups: self.groups,
        }
    }

    /// The view for packing weights, which does not depend on the input.
    pub fn packing(&self) -> ConvShape {
        let rank = self.window.rank();
        self.plane(1, &vec![1; rank], &vec![(0, 0); rank])
    }

    /// Multiply-accumulates behind `outputs` output elements.
    pub fn macs(&self, outputs: usize) -> u64 {
        let taps: usize = self.window.kernel.iter().product();
        (outputs as u64).saturating_mul((taps * (self.in_c / self.groups)) as u64)
    }
}

/// Groups, and all channels that the first two dimensions of a weight stand for: the second one has
/// those of a group. `dims` and `kinds` are what messages call them.
///
/// # Errors
/// When they do not fit together.
pub(super) fn channels(
    node: &Node,
    weight: &[usize],
    dims: [&str; 2],
    kinds: [&str; 2],
) -> Result<[usize; 3]> {
    let groups = groups(node)?;
    let (&[all, of_group, ..], true) = (weight, weight.len() >= 3) else {
        return Err(Error::bad_input(format!(
            "a weight of shape {weight:?}; [{},{},k...] is expected",
            dims[0], dims[1]
        )));
    };
    if all == 0 || of_group == 0 || !all.is_multiple_of(groups) {
        return Err(Error::bad_input(format!(
            "{all} {} and {of_group} {} channels do not form {groups} groups",
            kinds[0], kinds[1]
        ))
        .code("FB-3212"));
    }
    let others = of_group.checked_mul(groups);
    Ok([groups, all, others.ok_or_else(|| Error::bad_input("group is too large"))?])
}

/// The `group` attribute.
///
/// # Errors
/// When it is below 1.
pub(crate) fn groups(node: &Node) -> Result<usize> {
    match node.int("group")?.unwrap_or(1) {
        groups @ 1..=0x7fff_ffff => Ok(groups as usize),
        other => {
            Err(Error::bad_input(format!("attribute `group` is {other}; it must be at least 1"))
                .code("FB-3212"))
        }
    }
}
