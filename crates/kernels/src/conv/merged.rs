//! Groups of few channels as fewer groups of more: a matrix that has the weights of several groups
//! along its diagonal, and zeros elsewhere.
//!
//! A panel of columns costs the same however many of them there are, so those of several groups fill
//! it for nothing. Sums of integers do not change by products with zeros; those of floats would,
//! where a factor is infinite.

use std::borrow::Cow;

use super::shape::ConvShape;
use crate::gemm::WeightZero;
use crate::gemm::kernel::NR;
use crate::int8::Int8;

/// The same convolution with as many groups in one as fill a panel.
pub(super) fn merged(shape: &ConvShape) -> ConvShape {
    let most = (NR / shape.group_out_c().max(1)).clamp(1, shape.groups);
    let together = (1..=most).rev().find(|&n| shape.groups.is_multiple_of(n)).unwrap_or(1);
    ConvShape { groups: shape.groups / together, ..*shape }
}

/// Weights in the order out channel, in channel of the group, and what belongs to each pair.
pub(super) enum Merged<'a> {
    U8(Cow<'a, [u8]>),
    I8(Cow<'a, [i8]>),
}

impl<'a> Merged<'a> {
    /// The weights of `shape` as those of `to`, which [`merged`] made of it.
    pub(super) fn new(
        shape: &ConvShape,
        to: &ConvShape,
        weights: Int8<'a>,
        zero: WeightZero<'_>,
    ) -> Merged<'a> {
        let zero = |col| zero.get(col);
        match weights {
            Int8::U8(values) => Merged::U8(along(shape, to, values, |col| zero(col) as u8)),
            Int8::I8(values) => Merged::I8(along(shape, to, values, |col| zero(col) as i8)),
        }
    }

    pub(super) fn weights(&self) -> Int8<'_> {
        match self {
            Merged::U8(values) => Int8::U8(values),
            Merged::I8(values) => Int8::I8(values),
        }
    }
}

/// `weights` along the diagonals of larger matrices; elsewhere, what `zero` says for the column.
fn along<'a, T: Copy>(
    shape: &ConvShape,
    to: &ConvShape,
    weights: &'a [T],
    zero: impl Fn(usize) -> T,
) -> Cow<'a, [T]> {
    if to.groups == shape.groups {
        return Cow::Borrowed(weights);
    }
    let (few, many) = (shape.k(), to.k());
    let mut all = Vec::with_capacity(shape.out_c * many);
    for col in 0..shape.out_c {
        let place = col % to.group_out_c() / shape.group_out_c() * few;
        let start = all.len();
        all.resize(start + many, zero(col));
        all[start + place..][..few].copy_from_slice(&weights[col * few..][..few]);
    }
    Cow::Owned(all)
}
