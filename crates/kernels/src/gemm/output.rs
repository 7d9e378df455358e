//! What becomes of an exact i32 sum: 8-bit values, f32, or the sum itself.

use super::driver::Finish;
use super::float::{Clamp, Matrix, load, matrix_fits, store};
use super::fused_add::FusedAdd;
use super::kernel::{NR, prefetch};
#[cfg(target_arch = "x86_64")]
use super::x86_avx512_lines::{LineFactors, WIDE};
#[cfg(target_arch = "x86_64")]
use super::x86_finish::{Bytes, Rows, ToBytes};
#[cfg(target_arch = "x86_64")]
use super::x86_finish_lines::{Limits, LineBytes};
use crate::int8::{Int8, Int8Mut};
use crate::planes::Planes;
use crate::threads::SharedMut;

/// From sums to 8-bit values.
///
/// With `c` the column, the definition, which every kernel follows bit for bit, is:
///
/// ```text
/// v = (sum + bias[c]) as f32 * multiplier[c]           (wrapping i32 sum, one f32 product)
/// v = v + (r - r.zero_point) as f32 * r.multiplier     (only with a residual; two roundings)
/// y = round_half_to_even(v) + zero_point, clamped to lo..=hi
/// ```
///
/// A NaN becomes `lo`. The multiplier is `input_scale * weight_scale[c] / output_scale`. What a
/// residual with [`OwnCodes`] does instead is said there.
#[derive(Clone, Copy, Debug)]
pub struct Requantize<'a> {
    /// One value per column, in units of `input_scale * weight_scale`.
    pub bias: Option<&'a [i32]>,
    /// One value per column.
    pub multiplier: &'a [f32],
    /// A tensor of the layout of the output to be added.
    pub residual: Option<Residual<'a>>,
    /// Zero point of the output.
    pub zero_point: i32,
    /// Smallest result, within the type of the output: the type's own limit, or an activation's.
    pub lo: i32,
    /// Largest result, as `lo`.
    pub hi: i32,
}

/// 8-bit values that are added before the result is rounded.
#[derive(Clone, Copy, Debug)]
pub struct Residual<'a> {
    /// The values: a tensor in the layout of the output, or a row.
    pub values: Int8<'a>,
    /// Whether they are one row, a value per column, that is added to all rows.
    pub is_row: bool,
    /// Their zero point.
    pub zero_point: i32,
    /// Their scale divided by that of the output; with [`OwnCodes`], their scale.
    pub multiplier: f32,
    /// Where the sums are rounded to codes before the addition.
    pub own: Option<OwnCodes>,
}

/// An addition behind codes of the sums' own, as a quantized graph has it where it quantizes
/// what is added:
///
/// ```text
/// q = round_half_to_even(v) clamped to lo..=hi
/// v = (q as f32 * scale + (r - r.zero_point) as f32 * r.multiplier) / step
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OwnCodes {
    /// Smallest code, less the zero point.
    pub lo: i32,
    /// Largest code, less the zero point.
    pub hi: i32,
    /// Scale of these codes.
    pub scale: f32,
    /// Scale of the output.
    pub step: f32,
    /// A quicker way to the same results, found for these very parameters.
    pub fused: Option<FusedAdd>,
}

/// From sums to f32: `clamp(sum as f32 * scale[c] + bias[c])`, rounded after the product.
#[derive(Clone, Copy, Debug)]
pub struct Dequantize<'a> {
    /// One value per column: `input_scale * weight_scale[c]`.
    pub scale: &'a [f32],
    /// One value per column.
    pub bias: Option<&'a [f32]>,
    /// The activation.
    pub clamp: Option<Clamp>,
}

/// Where the results of an int8 product go.
#[derive(Debug)]
pub enum Output<'a> {
    /// 8-bit values.
    Int8(Int8Mut<'a>, Requantize<'a>),
    /// The exact sums.
    I32(&'a mut [i32]),
    /// f32 values.
    F32(&'a mut [f32], Dequantize<'a>),
}

impl<'a> Output<'a> {
    /// The same, to be written by several threads at once.
    pub(crate) fn shared(self) -> Sink<'a> {
        match self {
            Output::Int8(values, to) => {
                let limits = values.limits();
                Sink::Int8(SharedMut::new(values.into_bytes()), limits, to)
            }
            Output::I32(values) => Sink::I32(SharedMut::new(values)),
            Output::F32(values, to) => Sink::F32(SharedMut::new(values), to),
        }
    }

    /// The `len` results from `start` on, without a residual.
    pub fn range(&mut self, start: usize, len: usize) -> Output<'_> {
        match self {
            Output::Int8(Int8Mut::U8(values), to) => {
                let to = Requantize { residual: None, ..*to };
                Output::Int8(Int8Mut::U8(&mut values[start..][..len]), to)
            }
            Output::Int8(Int8Mut::I8(values), to) => {
                let to = Requantize { residual: None, ..*to };
                Output::Int8(Int8Mut::I8(&mut values[start..][..len]), to)
            }
            Output::I32(values) => Output::I32(&mut values[start..][..len]),
            Output::F32(values, to) => Output::F32(&mut values[start..][..len], *to),
        }
    }
}

/// An [`Output`] that several threads write at once.
#[derive(Clone, Copy)]
pub(crate) enum Sink<'a> {
    /// 8-bit values, and the smallest and the largest of their type.
    Int8(SharedMut<'a, u8>, (i32, i32), Requantize<'a>),
    I32(SharedMut<'a, i32>),
    F32(SharedMut<'a, f32>, Dequantize<'a>),
}

impl Sink<'_> {
    /// Number of results.
    pub(crate) fn len(&self) -> usize {
        match self {
            Sink::Int8(values, ..) => values.len(),
            Sink::I32(values) => values.len(),
            Sink::F32(values, _) => values.len(),
        }
    }
}

/// An output whose sizes were checked.
#[derive(Clone, Copy)]
pub(crate) enum Prepared<'a> {
    Int8(Int8Finish<'a>),
    I32(I32Finish<'a>),
    F32(F32Finish<'a>),
}

/// Where results lie, and what to add to the sums first.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a, T> {
    out: SharedMut<'a, T>,
    stride: usize,
    first_col: usize,
    /// How results lie that are not row by row.
    planes: Option<Planes>,
    compensation: Option<(&'a [i32], i32)>,
}

impl<'a> Prepared<'a> {
    /// Writes `m` rows of `n` columns from `first_col` on; per-column values of the output are
    /// indexed from `first_col` on as well.
    pub(crate) fn new(out: Matrix<Sink<'a>>, m: usize, n: usize, first_col: usize) -> Self {
        let (stride, end) = (out.stride, first_col + n);
        let fits = |len: usize| assert!(matrix_fits(len, m, end, stride), "a matrix is too short");
        match out.data {
            Sink::Int8(bytes, (lo, hi), requantize) => {
                let within = lo <= requantize.lo && requantize.lo <= requantize.hi;
                assert!(within && requantize.hi <= hi, "limits beyond the output's type");
                assert!((lo..=hi).contains(&requantize.zero_point), "zero point beyond the type");
                assert!(requantize.multiplier.len() >= end, "multipliers are missing");
                assert!(requantize.bias.is_none_or(|b| b.len() >= end), "the bias is too short");
                requantize.residual.inspect(|r| match r.is_row {
                    true => assert!(r.values.len() >= end, "the row to be added is too short"),
                    false => fits(r.values.len()),
                });
                fits(bytes.len());
                let place = Place::new(bytes, stride, first_col);
                Prepared::Int8(Int8Finish { place, requantize })
            }
            Sink::I32(values) => {
                fits(values.len());
                Prepared::I32(I32Finish { place: Place::new(values, stride, first_col) })
            }
            Sink::F32(values, dequantize) => {
                fits(values.len());
                assert!(dequantize.scale.len() >= end, "scales are missing");
                assert!(dequantize.bias.is_none_or(|b| b.len() >= end), "the bias is too short");
                let place = Place::new(values, stride, first_col);
                Prepared::F32(F32Finish { place, dequantize })
            }
        }
    }

    /// Writes 8-bit values in planes of columns; nothing is added to them.
    pub(crate) fn in_planes(mut self, rows: usize) -> Self {
        if let Prepared::Int8(Int8Finish { place, requantize }) = &mut self {
            let whole = place.first_col == 0 && requantize.residual.is_none();
            assert!(whole, "planes are of all columns, and nothing is added");
            place.planes = Some(Planes { pixels: rows, channels: place.stride });
        }
        self
    }

    /// Adds `factor * sums[column]` to each sum first; columns count from `first_col` on.
    pub(crate) fn compensate(mut self, sums: &'a [i32], factor: i32) -> Self {
        let compensation = match &mut self {
            Prepared::Int8(finish) => &mut finish.place.compensation,
            Prepared::I32(finish) => &mut finish.place.compensation,
            Prepared::F32(finish) => &mut finish.place.compensation,
        };
        *compensation = Some((sums, factor));
        self
    }
}

impl<'a, T> Place<'a, T> {
    fn new(out: SharedMut<'a, T>, stride: usize, first_col: usize) -> Self {
        Place { out, stride, first_col, planes: None, compensation: None }
    }

    #[inline(always)]
    fn compensation(&self, col: usize, width: usize) -> [i32; NR] {
        let Some((sums, factor)) = self.compensation else {
            return [0; NR];
        };
        let mut lanes = load(&sums[col..], width);
        for lane in &mut lanes {
            *lane = lane.wrapping_mul(factor);
        }
        lanes
    }

    #[inline(always)]
    fn start(&self, row: usize, col: usize) -> usize {
        match self.planes {
            None => row * self.stride + self.first_col + col,
            Some(planes) => planes.of(col).place(row, col),
        }
    }

    /// From the results of a row in column `col` to those of the next.
    #[inline(always)]
    fn stride(&self, col: usize) -> usize {
        self.planes.map_or(self.stride, |planes| planes.of(col).width)
    }

    /// # Safety
    /// As [`Finish::row`].
    #[inline(always)]
    unsafe fn store(&self, start: usize, width: usize, lanes: &[T; NR])
    where
        T: Copy,
    {
        // SAFETY: the caller's promise.
        store(unsafe { self.out.range(start..start + width) }, lanes);
    }
}

/// Stores the sums.
#[derive(Clone, Copy)]
pub(crate) struct I32Finish<'a> {
    place: Place<'a, i32>,
}

impl Finish for I32Finish<'_> {
    type Acc = i32;
    type Columns = [i32; NR];

    #[inline(always)]
    fn columns(&self, col: usize, width: usize) -> [i32; NR] {
        self.place.compensation(col, width)
    }

    #[inline(always)]
    unsafe fn row<const FULL: bool>(
        &self,
        add: &[i32; NR],
        row: usize,
        col: usize,
        width: usize,
        acc: &[i32; NR],
    ) {
        let width = if FULL { NR } else { width };
        let mut lanes = *acc;
        for (lane, add) in lanes.iter_mut().zip(add) {
            *lane = lane.wrapping_add(*add);
        }
        // SAFETY: the caller's promise.
        unsafe { self.place.store(self.place.start(row, col), width, &lanes) }
    }
}

/// Scales the sums to f32.
#[derive(Clone, Copy)]
pub(crate) struct F32Finish<'a> {
    place: Place<'a, f32>,
    dequantize: Dequantize<'a>,
}

/// What one panel needs to make f32 values.
pub(crate) struct F32Columns {
    add: [i32; NR],
    scale: [f32; NR],
    bias: [f32; NR],
}

impl Finish for F32Finish<'_> {
    type Acc = i32;
    type Columns = F32Columns;

    #[inline(always)]
    fn columns(&self, col: usize, width: usize) -> F32Columns {
        let first = self.place.first_col + col;
        let bias = self.dequantize.bias;
        F32Columns {
            add: self.place.compensation(col, width),
            scale: load(&self.dequantize.scale[first..], width),
            bias: bias.map_or([0.0; NR], |bias| load(&bias[first..], width)),
        }
    }

    #[inline(always)]
    unsafe fn row<const FULL: bool>(
        &self,
        cols: &F32Columns,
        row: usize,
        col: usize,
        width: usize,
        acc: &[i32; NR],
    ) {
        let width = if FULL { NR } else { width };
        let mut lanes = [0.0; NR];
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = acc[i].wrapping_add(cols.add[i]) as f32 * cols.scale[i] + cols.bias[i];
        }
        if let Some(clamp) = self.dequantize.clamp {
            for lane in &mut lanes {
                *lane = clamp.apply(*lane);
            }
        }
        // SAFETY: the caller's promise.
        unsafe { self.place.store(self.place.start(row, col), width, &lanes) }
    }
}

/// Requantizes the sums to 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct Int8Finish<'a> {
    place: Place<'a, u8>,
    requantize: Requantize<'a>,
}

/// What one panel needs to make 8-bit values.
#[repr(C, align(64))]
pub(crate) struct Int8Columns {
    pub(super) add: [i32; NR],
    pub(super) multiplier: [f32; NR],
    pub(super) range: Range,
}

#[cfg(target_arch = "x86_64")]
impl Int8Columns {
    /// Those of nothing.
    const EMPTY: Int8Columns = Int8Columns {
        add: [0; NR],
        multiplier: [0.0; NR],
        range: Range { lo: 0.0, hi: 0.0, zero_point: 0 },
    };
}

/// The range of results before the zero point is added, as floats, and the zero point.
#[derive(Clone, Copy)]
pub(super) struct Range {
    pub(super) lo: f32,
    pub(super) hi: f32,
    pub(super) zero_point: i32,
}

/// Added to a float of magnitude below 2^22, it rounds it to an integer, half to even, and leaves
/// that integer in the low bits.
const ROUND: f32 = 12_582_912.0;

/// `value` clamped to `lo..=hi` (integers of magnitude below 2^21) and rounded half to even. NaN
/// becomes `lo`.
#[inline(always)]
pub(crate) fn round_within(value: f32, lo: f32, hi: f32) -> i32 {
    let value = if value > lo { value } else { lo };
    let value = if value < hi { value } else { hi };
    (value + ROUND).to_bits() as i32 - ROUND.to_bits() as i32
}

/// Whether products of `multiplier` with sums of at most `most` in magnitude, and with any that
/// wrapped around where that is beyond 32 bits, stay far within 32 bits themselves.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub(super) fn is_tame(multiplier: f32, most: f32) -> bool {
    // Both sides are computed: so loops have no branches. NaN is below nothing.
    (multiplier.abs() < 0.5) | (multiplier.abs() * most < (1u32 << 30) as f32)
}

/// 8-bit results to which nothing is added, for kernels that make many channels of a pixel at once.
#[cfg(target_arch = "x86_64")]
pub(crate) struct PlainBytes<'a>(Int8Finish<'a>);

#[cfg(target_arch = "x86_64")]
impl<'a> Int8Finish<'a> {
    /// What becomes of the sums.
    pub(crate) fn requantize(&self) -> &Requantize<'a> {
        &self.requantize
    }

    /// The output as such results, where [`Requantize::is_plain`].
    pub(crate) fn plain(self) -> PlainBytes<'a> {
        let Place { first_col, planes, compensation, .. } = self.place;
        assert!(first_col == 0 && planes.is_none() && compensation.is_none(), "whole pixels");
        PlainBytes(self)
    }
}

#[cfg(target_arch = "x86_64")]
impl PlainBytes<'_> {
    /// What becomes of rounded values.
    ///
    /// # Safety
    /// The CPU has AVX-512 with BW.
    #[inline(always)]
    pub(crate) unsafe fn limits(&self) -> Limits {
        let Requantize { lo, hi, zero_point, .. } = self.0.requantize;
        // SAFETY: the caller's promise.
        unsafe { Limits::new([lo, hi], zero_point) }
    }

    /// Whether the zero point is the least result and all others of 8 bits may follow: then
    /// [`Limits`] cut values off where a byte does.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.requantize.range().is_whole()
    }

    /// Whether results may have a sign.
    pub(crate) fn is_signed(&self) -> bool {
        self.0.requantize.lo < 0
    }

    /// Where `width` results of the rows go, from column `col` on: the first of them.
    #[inline(always)]
    pub(crate) fn pixels(&self, rows: std::ops::Range<usize>, col: usize, width: usize) -> *mut u8 {
        let place = &self.0.place;
        let end = place.start(rows.end.max(1) - 1, col) + width;
        place.out.pointer(place.start(rows.start, col)..end)
    }
}

impl Int8Finish<'_> {
    /// What is added to `rows` rows of `width` columns, which begin at (`row`, `col`).
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn residual(&self, row: usize, rows: usize, col: usize, width: usize) -> Option<Bytes> {
        self.requantize.residual.as_ref().map(|residual| {
            let rows = [row, row + rows - 1].map(|row| residual.row(row));
            let [first, last] = rows.map(|row| self.place.start(row, col));
            residual.pointer(first..last + width, self.place.stride)
        })
    }

    /// Where `rows` rows of `width` results go.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn rows(&self, row: usize, rows: usize, col: usize, width: usize) -> Rows<u8> {
        let place = &self.place;
        let (first, last) = (place.start(row, col), place.start(row + rows - 1, col));
        Rows { out: place.out.pointer(first..last + width), stride: place.stride(col), width }
    }
}

impl Finish for Int8Finish<'_> {
    type Acc = i32;
    type Columns = Int8Columns;

    #[inline(always)]
    fn columns(&self, col: usize, width: usize) -> Int8Columns {
        let first = self.place.first_col + col;
        let mut add = self.place.compensation(col, width);
        if let Some(bias) = self.requantize.bias {
            for (add, bias) in add.iter_mut().zip(load(&bias[first..], width)) {
                *add = add.wrapping_add(bias);
            }
        }
        let multiplier = load(&self.requantize.multiplier[first..], width);
        Int8Columns { add, multiplier, range: self.requantize.range() }
    }

    #[inline(always)]
    fn ahead(&self, row: usize, col: usize, rows: usize) {
        // Four panels share a line of bytes: the first of them asks for it.
        if !col.is_multiple_of(4 * NR) {
            return;
        }
        for row in row..row + rows {
            let at = self.place.start(row, col);
            if let Some(residual) = self.requantize.residual.filter(|r| !r.is_row) {
                prefetch(residual.values.bytes().as_ptr().wrapping_add(at));
            }
            prefetch(self.place.out.place(at));
        }
    }

    #[inline(always)]
    unsafe fn row<const FULL: bool>(
        &self,
        cols: &Int8Columns,
        row: usize,
        col: usize,
        width: usize,
        acc: &[i32; NR],
    ) {
        let width = if FULL { NR } else { width };
        let start = self.place.start(row, col);
        let mut lanes = [0.0; NR];
        for (i, lane) in lanes.iter_mut().enumerate() {
            *lane = acc[i].wrapping_add(cols.add[i]) as f32 * cols.multiplier[i];
        }
        if let Some(residual) = &self.requantize.residual {
            residual.add(self.place.start(residual.row(row), col), width, &mut lanes);
        }
        let bytes = cols.range.round(&lanes);
        // SAFETY: the caller's promise.
        unsafe { self.place.store(start, width, &bytes) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn rows_avx2(
        &self,
        cols: &Int8Columns,
        row: usize,
        col: usize,
        width: usize,
        sums: &[[i32; NR]],
    ) {
        let Int8Columns { add, multiplier, range: Range { lo, hi, zero_point } } = cols;
        let residual = self.residual(row, sums.len(), col, width);
        let (lo, hi, zero_point) = (*lo, *hi, *zero_point);
        let to = ToBytes { add, multiplier, residual, lo, hi, zero_point };
        // SAFETY: the pointers were checked; the caller's promise for the rest.
        unsafe { to.store(sums, self.rows(row, sums.len(), col, width)) }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn lines<const PANELS: usize>(
        &self,
        factors: &LineFactors<PANELS>,
        row: usize,
        col: usize,
        width: usize,
    ) -> bool {
        let last = col + width - 1;
        if self.place.planes.is_some_and(|planes| planes.of(col) != planes.of(last)) {
            return false;
        }
        let rows = factors.rows;
        let residual = self.residual(row, rows, col, width);
        let mut columns = [const { Int8Columns::EMPTY }; PANELS];
        // A loop: closures of arrays are not inlined, so they would miss the instruction set. Whole
        // panels of four are loaded without the question how many columns there are.
        for (panel, columns) in columns.iter_mut().enumerate() {
            let left = if PANELS == WIDE { NR } else { NR.min(width - panel * NR) };
            *columns = self.columns(col + panel * NR, left);
        }
        let to = LineBytes { columns: &columns, residual };
        // SAFETY: the pointers were checked; the caller's promise for the rest.
        unsafe { to.lines(factors, self.rows(row, rows, col, width)) }
    }
}

impl Residual<'_> {
    /// The row that is added to row `row` of the output.
    #[inline(always)]
    fn row(&self, row: usize) -> usize {
        if self.is_row { 0 } else { row }
    }

    /// Adds the `width` values from `start` on.
    #[inline(always)]
    fn add(&self, start: usize, width: usize, lanes: &mut [f32; NR]) {
        if let Some(own) = self.own {
            for lane in lanes.iter_mut() {
                *lane = round_within(*lane, own.lo as f32, own.hi as f32) as f32 * own.scale;
            }
        }
        let flip = self.values.flip();
        let zero = self.zero_point + i32::from(flip);
        for (lane, byte) in lanes.iter_mut().zip(load(&self.values.bytes()[start..], width)) {
            *lane += (i32::from(byte ^ flip) - zero) as f32 * self.multiplier;
        }
        if let Some(own) = self.own {
            for lane in lanes.iter_mut() {
                *lane /= own.step;
            }
        }
    }

    /// The values of a range, by a pointer to the first, whose rows lie `stride` apart.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn pointer(&self, range: std::ops::Range<usize>, stride: usize) -> Bytes {
        let flip = self.values.flip();
        let first = self.values.bytes()[range].as_ptr();
        let zero = self.zero_point + i32::from(flip);
        let stride = if self.is_row { 0 } else { stride };
        Bytes { first, stride, flip, zero, multiplier: self.multiplier, own: self.own }
    }
}

impl Requantize<'_> {
    /// Whether nothing is added, and no value can leave 32 bits, where sums without the bias are at
    /// most `most` in magnitude.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn is_plain(&self, most: f32) -> bool {
        // Without a way out of the loop, many are compared at a time.
        let small = self.multiplier.iter().fold(true, |all, m| all & is_tame(*m, f32::INFINITY));
        let bias = |col: usize| self.bias.map_or(0.0, |bias| bias[col].unsigned_abs() as f32);
        let tame = |(col, m): (usize, &f32)| is_tame(*m, most + bias(col));
        self.residual.is_none() && (small || self.multiplier.iter().enumerate().all(tame))
    }

    fn range(&self) -> Range {
        let zero_point = self.zero_point;
        let (lo, hi) = ((self.lo - zero_point) as f32, (self.hi - zero_point) as f32);
        Range { lo, hi, zero_point }
    }
}

impl Range {
    /// Whether the zero point is the least result, and all others of 8 bits may follow.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn is_whole(self) -> bool {
        self.lo == 0.0 && self.hi == f32::from(u8::MAX)
    }

    /// Clamps, rounds and adds the zero point. Results lie within a byte, so its arithmetic, which
    /// wraps around, is exact; the bits are the same for u8 and i8.
    #[inline(always)]
    fn round(self, lanes: &[f32; NR]) -> [u8; NR] {
        // A loop: `map` on an array is not inlined, so it would miss the instruction set.
        let mut bytes = [0; NR];
        for (byte, &lane) in bytes.iter_mut().zip(lanes) {
            *byte = round_within(lane, self.lo, self.hi) as u8;
        }
        for byte in &mut bytes {
            *byte = byte.wrapping_add(self.zero_point as u8);
        }
        bytes
    }
}
