//! f32 matrix products.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::ops::Range;

#[cfg(target_arch = "aarch64")]
use super::arm_neon::NeonF32;
use super::driver::Finish;
use super::kernel::{NR, prefetch};
use super::pack_f32::{Columns, of_rows};
use super::panels::Panels;
use super::parts::{LeftParts, RightParts, drive_parts};
use super::rows::{MatrixRows, Same};
use super::scalar::ScalarF32;
#[cfg(target_arch = "x86_64")]
use super::{
    x86_avx2::Avx2F32,
    x86_avx512_f32::Avx512F32,
    x86_finish::{ToFloats, first_lanes},
};
use crate::cpu::{Ctx, Isa, Level};
use crate::threads::SharedMut;

/// The range that an activation such as ReLU or ReLU6 clamps to. NaN passes through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Clamp {
    /// Smallest result.
    pub lo: f32,
    /// Largest result.
    pub hi: f32,
}

impl Clamp {
    /// ReLU: no negative results.
    pub const RELU: Clamp = Clamp { lo: 0.0, hi: f32::INFINITY };

    /// `value`, moved into the range.
    #[inline(always)]
    pub fn apply(self, value: f32) -> f32 {
        let value = if self.lo > value { self.lo } else { value };
        if self.hi < value { self.hi } else { value }
    }
}

/// What happens to a sum before it is stored: `clamp((sum + bias[column]) + residual)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One value per column (output channel).
    pub bias: Option<&'a [f32]>,
    /// A tensor of the layout of the output.
    pub residual: Option<&'a [f32]>,
    /// The activation.
    pub clamp: Option<Clamp>,
}

/// The right operand of an f32 product, packed once.
pub struct PackedF32 {
    k: usize,
    panels: Panels<f32>,
}

impl PackedF32 {
    /// Packs `b`, row-major with `k` rows and `n` columns.
    ///
    /// # Panics
    /// When `b` has not `k * n` elements.
    pub fn new(k: usize, n: usize, b: &[f32]) -> PackedF32 {
        PackedF32::of_bytes(k, n, bytemuck::cast_slice(b))
    }

    /// As [`PackedF32::new`], of the bytes of the elements, which may lie at any address.
    ///
    /// # Panics
    /// When `b` has not the bytes of `k * n` elements.
    pub fn of_bytes(k: usize, n: usize, b: &[u8]) -> PackedF32 {
        assert_eq!(b.len(), k * n * size_of::<f32>(), "B is {k} x {n}");
        PackedF32 { k, panels: of_rows(k, n, b.as_chunks().0) }
    }

    /// Packs the transpose of `b`, which is row-major with `n` rows and `k` columns.
    ///
    /// # Panics
    /// When `b` has not `k * n` elements.
    pub fn new_transposed(k: usize, n: usize, b: &[f32]) -> PackedF32 {
        PackedF32::of_bytes_transposed(k, n, bytemuck::cast_slice(b))
    }

    /// As [`PackedF32::new_transposed`], of the bytes of the elements, which may lie at any
    /// address.
    ///
    /// # Panics
    /// When `b` has not the bytes of `k * n` elements.
    pub fn of_bytes_transposed(k: usize, n: usize, b: &[u8]) -> PackedF32 {
        assert_eq!(b.len(), k * n * size_of::<f32>(), "B is {n} x {k}, transposed");
        PackedF32::of_columns(Columns { values: b.as_chunks().0, k, n, taps: 1, scale: None })
    }

    /// Packs the matrix of these columns.
    pub(crate) fn of_columns(columns: Columns<'_>) -> PackedF32 {
        PackedF32 { k: columns.k, panels: columns.panels(Isa::best()) }
    }

    /// Number of rows: the length of the sums.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of columns.
    pub fn n(&self) -> usize {
        self.panels.n()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.panels.bytes()
    }

    /// Panel `index`: [`NR`] columns, row by row.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn panel(&self, index: usize) -> &[f32] {
        self.panels.panel(index)
    }

    /// Number of panels.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn count(&self) -> usize {
        self.panels.count()
    }
}

/// `c[m][n] = epilogue(sum over k of a[m][k] * b[k][n])`.
///
/// `a` and `c` have `m` rows; the residual lies in memory as `c` does. Each sum starts at 0 and runs over k in order with fused multiply-add.
///
/// # Panics
/// When a slice is shorter than its shape says.
pub fn gemm_f32(
    ctx: Ctx<'_>,
    m: usize,
    a: Matrix<&[f32]>,
    b: &PackedF32,
    epilogue: Epilogue<'_>,
    c: Matrix<&mut [f32]>,
) {
    let (k, n) = (b.k(), b.n());
    assert!(matrix_fits(a.data.len(), m, k, a.stride), "A is shorter than {m} rows of {k}");
    let finish = FloatFinish::new(epilogue, m, n, 0, c);
    #[cfg(target_arch = "x86_64")]
    if super::few::multiply(ctx, m, a, b, &finish) {
        return;
    }
    let rows = MatrixRows { data: a.data, stride: a.stride, k, padded_k: k, convert: Same };
    drive_f32(ctx, m, b, &rows, &finish);
}

/// Rows in memory, row-major.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<S> {
    /// The elements, from the first of the first row on.
    pub data: S,
    /// Distance of two rows in elements.
    pub stride: usize,
}

/// Whether `len` elements hold `rows` rows of `cols` that lie `stride` apart.
pub(crate) fn matrix_fits(len: usize, rows: usize, cols: usize, stride: usize) -> bool {
    rows == 0 || (stride >= cols && len >= (rows - 1) * stride + cols)
}

/// Runs the microkernel of the instruction set.
pub(crate) fn drive_f32<R: LeftParts>(
    ctx: Ctx<'_>,
    m: usize,
    right: &dyn RightParts,
    rows: &R,
    finish: &FloatFinish<'_>,
) {
    // SAFETY: the CPU has the level of `ctx.isa`; `FloatFinish::new` checked the output.
    unsafe {
        match ctx.isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => drive_parts::<Avx2F32, _>(ctx.pool, m, right, rows, finish),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => drive_parts::<Avx512F32, _>(ctx.pool, m, right, rows, finish),
            #[cfg(target_arch = "aarch64")]
            Level::Neon | Level::Dotprod | Level::I8mm => {
                drive_parts::<NeonF32, _>(ctx.pool, m, right, rows, finish);
            }
            _ => drive_parts::<ScalarF32, _>(ctx.pool, m, right, rows, finish),
        }
    }
}

impl RightParts for PackedF32 {
    fn size(&self) -> (usize, usize) {
        (self.k, self.panels.n())
    }

    fn step(&self) -> usize {
        1
    }

    fn part<'s>(
        &'s self,
        index: usize,
        k: Range<usize>,
        _: &'s mut [[f32; NR]],
    ) -> &'s [[f32; NR]] {
        &self.panels.panel(index).as_chunks().0[k]
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn bytes(&self, index: usize, k: Range<usize>) -> &[u8] {
        bytemuck::cast_slice(&self.panels.panel(index)[k.start * NR..k.end * NR])
    }
}

/// Adds bias and residual, clamps, stores.
#[derive(Clone, Copy)]
pub(crate) struct FloatFinish<'a> {
    epilogue: Epilogue<'a>,
    out: SharedMut<'a, f32>,
    stride: usize,
    first_col: usize,
}

impl<'a> FloatFinish<'a> {
    /// Writes `m` rows of `n` columns from `first_col` on.
    pub(crate) fn new(
        epilogue: Epilogue<'a>,
        m: usize,
        n: usize,
        first_col: usize,
        out: Matrix<&'a mut [f32]>,
    ) -> FloatFinish<'a> {
        let Matrix { data: out, stride } = out;
        let end = first_col + n;
        assert!(matrix_fits(out.len(), m, end, stride), "the output is too short");
        let residual = epilogue.residual.is_none_or(|r| matrix_fits(r.len(), m, end, stride));
        assert!(residual, "the residual is shorter than the output");
        assert!(epilogue.bias.is_none_or(|b| b.len() >= end), "the bias is too short");
        FloatFinish { epilogue, out: SharedMut::new(out), stride, first_col }
    }

    /// Where `rows` rows of `width` results from (`row`, `col`) on go, and what is done to them.
    ///
    /// # Panics
    /// When they are not in the output.
    #[inline(always)]
    pub(super) fn place(&self, row: usize, col: usize, width: usize, rows: usize) -> Place {
        let first = row * self.stride + self.first_col + col;
        let range = first..first + rows.saturating_sub(1) * self.stride + width;
        let residual = self.epilogue.residual.map(|r| r[range.clone()].as_ptr());
        let (out, clamp) = (self.out.pointer(range), self.epilogue.clamp);
        Place { out, residual, stride: self.stride, clamp }
    }
}

/// The first `width` of `values`, filled up with zeros.
#[inline(always)]
pub(crate) fn load<T: Copy + Default>(values: &[T], width: usize) -> [T; NR] {
    let mut lanes = [T::default(); NR];
    if width == NR {
        lanes.copy_from_slice(&values[..NR]);
    } else {
        lanes[..width].copy_from_slice(&values[..width]);
    }
    lanes
}

/// Stores the first `width` lanes.
#[inline(always)]
pub(crate) fn store<T: Copy>(out: &mut [T], lanes: &[T; NR]) {
    if out.len() == NR {
        out.copy_from_slice(lanes);
    } else {
        out.copy_from_slice(&lanes[..out.len()]);
    }
}

impl Finish for FloatFinish<'_> {
    type Acc = f32;
    type Columns = [f32; NR];

    #[inline(always)]
    fn columns(&self, col: usize, width: usize) -> [f32; NR] {
        let bias = self.epilogue.bias;
        bias.map_or([0.0; NR], |bias| load(&bias[self.first_col + col..], width))
    }

    #[inline(always)]
    fn ahead(&self, row: usize, col: usize, rows: usize) {
        for row in row..row + rows {
            let at = row * self.stride + self.first_col + col;
            if let Some(residual) = self.epilogue.residual {
                prefetch(residual.as_ptr().wrapping_add(at));
            }
            prefetch(self.out.place(at));
        }
    }

    #[inline(always)]
    unsafe fn row<const FULL: bool>(
        &self,
        bias: &[f32; NR],
        row: usize,
        col: usize,
        width: usize,
        acc: &[f32; NR],
    ) {
        let width = if FULL { NR } else { width };
        let start = row * self.stride + self.first_col + col;
        let mut lanes = *acc;
        for (lane, bias) in lanes.iter_mut().zip(bias) {
            *lane += bias;
        }
        if let Some(residual) = self.epilogue.residual {
            for (lane, residual) in lanes.iter_mut().zip(load(&residual[start..], width)) {
                *lane += residual;
            }
        }
        if let Some(clamp) = self.epilogue.clamp {
            for lane in &mut lanes {
                *lane = clamp.apply(*lane);
            }
        }
        // SAFETY: the caller's promise.
        store(unsafe { self.out.range(start..start + width) }, &lanes);
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn rows_avx2(
        &self,
        bias: &[f32; NR],
        row: usize,
        col: usize,
        width: usize,
        sums: &[[f32; NR]],
    ) {
        if width < NR {
            for (r, acc) in sums.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { self.row::<false>(bias, row + r, col, width, acc) }
            }
            return;
        }
        // SAFETY: the CPU has AVX2; the rows are in the output, which `new` and `tile` check.
        unsafe {
            let to = self.tile(row, col, NR, sums.len());
            let bias = [_mm256_loadu_ps(bias.as_ptr()), _mm256_loadu_ps(bias.as_ptr().add(8))];
            for (r, sums) in sums.iter().enumerate() {
                for (i, bias) in bias.into_iter().enumerate() {
                    let sums = _mm256_loadu_ps(sums.as_ptr().add(8 * i));
                    to.store(sums, bias, r * self.stride + 8 * i);
                }
            }
        }
    }
}

/// Where a tile of results goes, and what is done to them; see [`Epilogue`].
#[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "read by AVX-512 kernels"))]
#[derive(Clone, Copy)]
pub(super) struct Place {
    /// The first result.
    pub(super) out: *mut f32,
    /// What is added to it; the others lie as the results do.
    pub(super) residual: Option<*const f32>,
    /// From one row to the next, in elements.
    pub(super) stride: usize,
    pub(super) clamp: Option<Clamp>,
}

#[cfg(target_arch = "x86_64")]
impl FloatFinish<'_> {
    /// Where `rows` rows of `width` results from (`row`, `col`) on go, and how.
    ///
    /// # Safety
    /// The CPU has AVX2.
    ///
    /// # Panics
    /// When they are not in the output.
    #[inline(always)]
    unsafe fn tile(&self, row: usize, col: usize, width: usize, rows: usize) -> ToFloats {
        let Place { out, residual, clamp, .. } = self.place(row, col, width, rows);
        // SAFETY: the caller's promise.
        unsafe { ToFloats::new(residual, clamp, out) }
    }

    /// Where the results of a row begin, if there are such.
    #[inline(always)]
    pub(crate) fn at(&self, row: usize) -> *const f32 {
        self.out.place(row * self.stride + self.first_col)
    }

    /// Finishes and stores `width` columns, at most eight, from `col` on of the rows from `row` on.
    ///
    /// # Safety
    /// The CPU has AVX2; no other call may store to the same place at the same time.
    #[inline(always)]
    pub(crate) unsafe fn eights<const ROWS: usize>(
        &self,
        row: usize,
        col: usize,
        width: usize,
        sums: &[__m256; ROWS],
    ) {
        let bias = self.epilogue.bias.map(|bias| bias[self.first_col + col..][..width].as_ptr());
        // SAFETY: the CPU has AVX2; the slice has `width` elements; the rows are in the output, by
        // the check of `tile`.
        unsafe {
            let to = self.tile(row, col, width, ROWS);
            if width == 8 {
                let bias = bias.map_or(_mm256_setzero_ps(), |bias| _mm256_loadu_ps(bias));
                for (r, &sums) in sums.iter().enumerate() {
                    to.store(sums, bias, r * self.stride);
                }
            } else {
                let mask = first_lanes(width);
                let bias = bias.map_or(_mm256_setzero_ps(), |bias| _mm256_maskload_ps(bias, mask));
                for (r, &sums) in sums.iter().enumerate() {
                    to.store_some(sums, bias, r * self.stride, mask);
                }
            }
        }
    }

    /// Finishes and stores a tile of [`NR`] columns out of registers.
    ///
    /// # Safety
    /// As [`FloatFinish::eights`].
    #[inline(always)]
    pub(super) unsafe fn registers<const ROWS: usize>(
        &self,
        bias: &[f32; NR],
        row: usize,
        col: usize,
        sums: &[[__m256; 2]; ROWS],
    ) {
        // SAFETY: the CPU has AVX2; the array has 16 elements; the rows are in the output, by the
        // check of `tile`.
        unsafe {
            let to = self.tile(row, col, NR, ROWS);
            let bias = [_mm256_loadu_ps(bias.as_ptr()), _mm256_loadu_ps(bias.as_ptr().add(8))];
            for (r, sums) in sums.iter().enumerate() {
                to.store(sums[0], bias[0], r * self.stride);
                to.store(sums[1], bias[1], r * self.stride + 8);
            }
        }
    }
}
