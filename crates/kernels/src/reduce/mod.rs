//! Sums, means, extrema and the like along an axis.
//!
//! The order is fixed: element `i` of an axis goes to lane `i % 16`, each lane runs in order, and
//! the lanes are joined as a tree (`l` with `l + 8`, then `+ 4`, `+ 2`, `+ 1`). It depends neither
//! on the vector width nor on whether the axis is the last one, so a mean over NCHW and one over
//! NHWC have the same bits.

mod axis;
mod codes;
mod lanes;
mod largest;

pub use axis::reduce_f32;
pub use codes::mean_codes;
pub(crate) use lanes::{Fold, MaxFold, MeanFold, SumFold, SumSquareFold, lanes};
pub use largest::{largest_f32, largest_i8, largest_u8};

/// Where the first element of output `at` lies, for an axis of `len` elements that are `inner` apart,
/// and how many outputs from it on have theirs side by side.
#[inline(always)]
fn columns_from(at: usize, len: usize, inner: usize) -> (usize, usize) {
    let (outer, column) = (at / inner, at % inner);
    (outer * len * inner + column, inner - column)
}

/// What to compute along an axis, as the ONNX operator `Reduce*` of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduce {
    /// The sum; 0 of nothing.
    Sum,
    /// The sum divided by the length; NaN of nothing.
    Mean,
    /// The largest, NaN if there is one; `-inf` of nothing.
    Max,
    /// The smallest, NaN if there is one; `inf` of nothing.
    Min,
    /// The product; 1 of nothing.
    Prod,
    /// The sum of magnitudes.
    L1,
    /// The root of the sum of squares.
    L2,
    /// The sum of squares.
    SumSquare,
    /// The logarithm of the sum.
    LogSum,
    /// `ln(sum of e^x)`, computed from the maximum down so that nothing overflows.
    LogSumExp,
}
