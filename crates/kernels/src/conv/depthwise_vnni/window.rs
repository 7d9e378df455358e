//! Kernels of three rows and three columns: the words of a column go from where they are made to
//! the results in registers. [`super::pairs`] makes two rows at steps of 1, [`super::steps`] one at
//! steps of 2.
//!
//! Both loops are laid out for processors that look few vector instructions ahead: what a turn makes
//! of the sums of one output does not wait for what it does for the next ones.

use super::QUAD;
use super::factors::Factors;
use super::stack::{Inputs, Outputs};
use crate::scratch::Line;

/// Rows and columns of the kernel.
pub(super) const TAPS: usize = 3;

/// `ROWS` output rows of a block of channels, or of `STACK` narrower blocks below each other.
pub(super) struct Window<'a, const STACK: usize, const ROWS: usize> {
    pub(super) inputs: [Inputs<STACK>; QUAD],
    pub(super) outputs: [Outputs<STACK>; ROWS],
    /// From one column to the next, in inputs and in outputs.
    pub(super) steps: [usize; 2],
    pub(super) columns: Columns,
    /// By register, tap and output row.
    pub(super) weights: &'a [Line],
    pub(super) factors: &'a Factors,
    /// Turns a byte into its unsigned form.
    pub(super) flip: u8,
    /// What surrounds the image, in unsigned form.
    pub(super) zero: u8,
    /// Room for half results: a line for each output, where there are two rows.
    pub(super) halves: &'a mut [Line],
}

/// The columns that some outputs see.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    /// Those before the image; where the first one lies in the image, as many less than none.
    pub(super) before: usize,
    pub(super) inside: usize,
    /// Outputs side by side.
    pub(super) outputs: usize,
}
