//! Lanes of f32 for convolutions in groups, and their scalar twins.

use crate::gemm::FloatFinish;
use crate::gemm::driver::Finish;
use crate::gemm::kernel::NR;

/// Lanes of the narrower registers; the wider ones have twice as many.
pub(super) const OCTET: usize = 8;

/// A register, or two, of f32. All functions want a CPU with its instructions.
pub(super) trait Lanes {
    type Register: Copy;
    const LANES: usize;
    /// The most outputs of a tile, for which there are registers: up to 14.
    const MOST: usize;

    /// Zeros.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn zero() -> Self::Register;

    /// # Safety
    /// The CPU has the instructions; as many numbers as lanes are readable.
    unsafe fn load(from: *const f32) -> Self::Register;

    /// The input `channel` of each lane's group, for the pixel at `from`: for lanes of one group,
    /// the same for all, for lanes of several groups, those that `pick` says.
    ///
    /// # Safety
    /// The CPU has the instructions; so many channels are readable, or eight and their picks.
    unsafe fn value(from: *const f32, channel: usize, pick: *const [i32; OCTET]) -> Self::Register;

    /// `sums + values * weights`, rounded once.
    ///
    /// # Safety
    /// The CPU has the instructions.
    unsafe fn add_product(
        sums: Self::Register,
        values: Self::Register,
        weights: Self::Register,
    ) -> Self::Register;

    /// Finishes and stores `width` columns from `col` on of the rows from `row` on.
    ///
    /// # Safety
    /// The CPU has the instructions; nobody else stores to the same place.
    unsafe fn finish<const P: usize>(
        to: &FloatFinish<'_>,
        row: usize,
        col: usize,
        width: usize,
        sums: [Self::Register; P],
    );
}

/// Plain Rust, for lanes of one group, or of several if `SHARED`.
pub(super) struct Plain<const WIDTH: usize, const SHARED: bool>;

impl<const WIDTH: usize, const SHARED: bool> Lanes for Plain<WIDTH, SHARED> {
    type Register = [f32; WIDTH];
    const LANES: usize = WIDTH;
    const MOST: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> [f32; WIDTH] {
        [0.0; WIDTH]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; WIDTH] {
        // SAFETY: the caller's promise.
        unsafe { *from.cast() }
    }

    #[inline(always)]
    unsafe fn value(from: *const f32, channel: usize, pick: *const [i32; OCTET]) -> [f32; WIDTH] {
        // SAFETY: the caller's promise.
        unsafe {
            if !SHARED {
                return [*from.add(channel); WIDTH];
            }
            let mut lanes = [0.0; WIDTH];
            for (lane, &place) in lanes.iter_mut().zip(&*pick) {
                *lane = *from.add(place as usize);
            }
            lanes
        }
    }

    #[inline(always)]
    unsafe fn add_product(
        mut sums: [f32; WIDTH],
        values: [f32; WIDTH],
        weights: [f32; WIDTH],
    ) -> [f32; WIDTH] {
        for lane in 0..WIDTH {
            sums[lane] = values[lane].mul_add(weights[lane], sums[lane]);
        }
        sums
    }

    #[inline(always)]
    unsafe fn finish<const P: usize>(
        to: &FloatFinish<'_>,
        row: usize,
        col: usize,
        width: usize,
        sums: [[f32; WIDTH]; P],
    ) {
        let columns = to.columns(col, width);
        for (p, sums) in sums.iter().enumerate() {
            let mut lanes = [0.0; NR];
            lanes[..WIDTH].copy_from_slice(sums);
            // SAFETY: the caller's promise.
            unsafe { to.row::<false>(&columns, row + p, col, width, &lanes) }
        }
    }
}
