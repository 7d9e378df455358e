//! int8 matrix products: exact i32 sums, then one of three outputs.

use std::ops::Range;

#[cfg(target_arch = "aarch64")]
use super::arm_neon::{DotI8, MatrixI8, NeonI16};
use super::driver::{Rows, drive};
use super::float::{Matrix, matrix_fits};
use super::kernel::Microkernel;
use super::output::{Output, Prepared};
use super::pairs;
use super::panels::Panels;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::rows::Flip;
use super::rows::{Convert, MatrixRows, Widen};
use super::scalar::ScalarI16;
use super::weights::{Order, Weights};
#[cfg(target_arch = "x86_64")]
use super::{
    mixed, orders::InOrders, x86_avx2::Avx2I16, x86_avx2_u8::Avx2U8, x86_avx512::Avx512I16,
    x86_avx512::Avx512U8,
};
use crate::cpu::{Ctx, Isa, Level};
use crate::int8::Int8;
use crate::threads::Pool;

/// Zero points of the weights.
#[derive(Clone, Copy, Debug)]
pub enum WeightZero<'a> {
    /// Symmetric weights: all are 0.
    None,
    /// One for all columns.
    Tensor(i32),
    /// One per column.
    Column(&'a [i32]),
}

impl<'a> WeightZero<'a> {
    /// Those of `n` columns from `first` on.
    pub(crate) fn columns(self, first: usize, n: usize) -> WeightZero<'a> {
        match self {
            WeightZero::Column(zeros) => WeightZero::Column(&zeros[first..first + n]),
            other => other,
        }
    }

    /// The zero point of column `col`.
    pub(crate) fn get(&self, col: usize) -> i32 {
        match self {
            WeightZero::None => 0,
            WeightZero::Tensor(zero) => *zero,
            WeightZero::Column(zeros) => zeros[col],
        }
    }

    /// Whether all are 0.
    pub(crate) fn is_zero(&self) -> bool {
        match self {
            WeightZero::None => true,
            WeightZero::Tensor(zero) => *zero == 0,
            WeightZero::Column(zeros) => zeros.iter().all(|&zero| zero == 0),
        }
    }
}

/// The layouts that the microkernels read.
enum Layout {
    /// i16 pairs of `weight - zero_point`.
    Pairs(Panels<i16>),
    /// i8 weights, four or eight of k together (on AVX2 those of [`super::mixed`]), and the sum of
    /// each column, which takes the zero point of A off.
    Bytes(Panels<i8>, Vec<i32>),
}

/// i8 weights as the instruction set wants them, if it can multiply bytes.
fn bytes(isa: Isa, weights: &Weights<'_>) -> Option<Panels<i8>> {
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => in_order::<Avx512U8>(weights),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => {
            let (values, Weights { k, n, order, .. }) = (weights.signed()?, *weights);
            mixed::pack(isa, mixed::Matrix { values, k, n, order })
        }
        #[cfg(target_arch = "aarch64")]
        Level::Dotprod => in_order::<DotI8>(weights),
        #[cfg(target_arch = "aarch64")]
        Level::I8mm => in_order::<MatrixI8>(weights),
        _ => None,
    }
}

/// i8 weights in the groups of a microkernel.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn in_order<K: Microkernel<B = i8>>(weights: &Weights<'_>) -> Option<Panels<i8>> {
    weights.signed()?;
    Some(K::pack(weights.k, weights.n, |row, col| weights.at(row, col) as i8))
}

/// The right operand of an int8 product, packed once, for one instruction set.
pub struct PackedI8 {
    k: usize,
    isa: Isa,
    layout: Layout,
}

impl PackedI8 {
    /// Packs `b`, row-major with `k` rows and `n` columns.
    ///
    /// Zero points lie within the range of the weights' type.
    ///
    /// # Panics
    /// When `b` has not `k * n` elements, or a zero point is missing or out of range.
    pub fn new(isa: Isa, k: usize, n: usize, b: Int8<'_>, zero: WeightZero<'_>) -> PackedI8 {
        PackedI8::pack(isa, Weights::new(b, k, n, Order::Rows), zero)
    }

    /// Packs the transpose of `b`, which is row-major with `n` rows and `k` columns.
    ///
    /// # Panics
    /// As [`PackedI8::new`].
    pub fn new_transposed(
        isa: Isa,
        k: usize,
        n: usize,
        b: Int8<'_>,
        zero: WeightZero<'_>,
    ) -> PackedI8 {
        PackedI8::pack(isa, Weights::new(b, k, n, Order::Columns), zero)
    }

    /// As [`PackedI8::new_transposed`], where the factor of row `r` of a column lies at `places[r]`
    /// of its `k` elements.
    pub(crate) fn new_placed(
        isa: Isa,
        places: &[u32],
        n: usize,
        b: Int8<'_>,
        zero: WeightZero<'_>,
    ) -> PackedI8 {
        PackedI8::pack(isa, Weights::new(b, places.len(), n, Order::Places(places)), zero)
    }

    fn pack(isa: Isa, weights: Weights<'_>, zero: WeightZero<'_>) -> PackedI8 {
        let Weights { k, n, .. } = weights;
        if let WeightZero::Column(zeros) = zero {
            assert_eq!(zeros.len(), n, "one zero point per column");
        }
        let bytes = if zero.is_zero() { bytes(isa, &weights) } else { None };
        let layout = match bytes {
            Some(panels) => Layout::Bytes(panels, weights.sums(isa)),
            None => Layout::Pairs(pairs::pack(isa, &weights, zero)),
        };
        PackedI8 { k, isa, layout }
    }

    /// Number of rows: the length of the sums.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Number of columns.
    pub fn n(&self) -> usize {
        match &self.layout {
            Layout::Pairs(panels) => panels.n(),
            Layout::Bytes(panels, _) => panels.n(),
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        match &self.layout {
            Layout::Pairs(panels) => panels.bytes(),
            Layout::Bytes(panels, sums) => panels.bytes() + size_of_val(sums.as_slice()),
        }
    }
}

/// `c[m][n] = finish(sum over k of (a[m][k] - zero_point) * (b[k][n] - b_zero_point[n]))`.
///
/// `a` and the output have `m` rows. Sums are exact as long as they fit an i32 (they do for k up
/// to 33,000) and wrap around beyond.
///
/// # Panics
/// When a slice is shorter than its shape says, `zero_point` is not of the type of `a`, or `b` was
/// packed for another instruction set than that of `ctx`.
pub fn gemm_i8(
    ctx: Ctx<'_>,
    m: usize,
    a: Matrix<Int8<'_>>,
    zero_point: i32,
    b: &PackedI8,
    c: Matrix<Output<'_>>,
) {
    assert!(matrix_fits(a.data.len(), m, b.k, a.stride), "A is shorter than {m} rows of {}", b.k);
    let activations =
        Activations { source: MatrixSource { a, k: b.k }, values: a.data, zero_point };
    let c = Matrix { data: c.data.shared(), stride: c.stride };
    drive_i8(ctx, 0..m, activations, b, Prepared::new(c, m, b.n(), 0));
}

/// Products side by side, as in attention: product `i` multiplies `m` rows of `a`, from `i * m` on,
/// with matrix `right[i]` of `b`, which holds matrices of `k` rows and `n` columns. Both have one
/// zero point. Sums, and what becomes of them, are those of [`gemm_i8`].
///
/// # Panics
/// When a slice is shorter than that, or a zero point is not of its type.
pub fn gemm_i8_batches(
    ctx: Ctx<'_>,
    right: &[usize],
    [m, k, n]: [usize; 3],
    (a, a_zero): (Int8<'_>, i32),
    (b, b_zero): (Int8<'_>, i32),
    c: Output<'_>,
) {
    let rows = right.len() * m;
    assert!(matrix_fits(a.len(), rows, k, k), "A is shorter than {rows} rows of {k}");
    let output = Prepared::new(Matrix { data: c.shared(), stride: n }, rows, n, 0);
    ctx.pool.for_each_range(right.len(), 1, |batches| {
        for batch in batches {
            let matrix = b.range(right[batch] * k * n, k * n);
            let packed = PackedI8::new(ctx.isa, k, n, matrix, WeightZero::Tensor(b_zero));
            let source = MatrixSource { a: Matrix { data: a, stride: k }, k };
            let activations = Activations { source, values: a, zero_point: a_zero };
            drive_i8(ctx, batch * m..(batch + 1) * m, activations, &packed, output);
        }
    });
}

/// Something that yields rows for any conversion of the elements.
pub(crate) trait Source {
    /// Rows of converted elements, each filled up to `padded_k`.
    fn rows<C: Convert<Src = u8>>(&self, convert: C, padded_k: usize) -> impl Rows<C::Dst>;
}

/// The left operand.
pub(crate) struct Activations<'a, S> {
    pub(crate) source: S,
    pub(crate) values: Int8<'a>,
    pub(crate) zero_point: i32,
}

struct MatrixSource<'a> {
    a: Matrix<Int8<'a>>,
    k: usize,
}

impl Source for MatrixSource<'_> {
    fn rows<C: Convert<Src = u8>>(&self, convert: C, padded_k: usize) -> impl Rows<C::Dst> {
        let (data, stride) = (self.a.data.bytes(), self.a.stride);
        MatrixRows { data, stride, k: self.k, padded_k, convert }
    }
}

/// The unsigned form of a zero point of `values`.
pub(crate) fn unsigned_zero(values: Int8<'_>, zero_point: i32) -> u8 {
    let unsigned = u8::try_from(zero_point + i32::from(values.flip()));
    unsigned.expect("the zero point is of the type of the activations")
}

/// Multiplies some rows, by the microkernel of the layout and the instruction set.
pub(crate) fn drive_i8<S: Source>(
    ctx: Ctx<'_>,
    rows_of: Range<usize>,
    a: Activations<'_, S>,
    b: &PackedI8,
    output: Prepared<'_>,
) {
    assert_eq!(b.isa, ctx.isa, "B was packed for another instruction set");
    let (flip, zero) = (a.values.flip(), unsigned_zero(a.values, a.zero_point));
    match &b.layout {
        Layout::Pairs(panels) => {
            let convert = Widen { flip, zero_point: i16::from(zero) };
            let rows = a.source.rows(convert, 2 * panels.groups());
            // SAFETY: the CPU has the level of `ctx.isa`; the output was checked when prepared.
            unsafe {
                match ctx.isa.level() {
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx512 => run::<Avx512I16, _>(ctx.pool, rows_of, panels, &rows, output),
                    #[cfg(target_arch = "x86_64")]
                    Level::Avx2 => run::<Avx2I16, _>(ctx.pool, rows_of, panels, &rows, output),
                    #[cfg(target_arch = "aarch64")]
                    Level::Neon | Level::Dotprod | Level::I8mm => {
                        run::<NeonI16, _>(ctx.pool, rows_of, panels, &rows, output);
                    }
                    _ => run::<ScalarI16, _>(ctx.pool, rows_of, panels, &rows, output),
                }
            }
        }
        #[cfg(target_arch = "x86_64")]
        Layout::Bytes(panels, sums) => {
            let padded_k = 4 * panels.groups();
            let rows = a.source.rows(Flip { flip, zero_point: zero }, padded_k);
            let output = output.compensate(sums, -i32::from(zero));
            // SAFETY: only packed for these two, of which one is the level of `ctx.isa`, so the CPU
            // has it; the output was checked when prepared.
            unsafe {
                match ctx.isa.level() {
                    Level::Avx512 => run::<Avx512U8, _>(ctx.pool, rows_of, panels, &rows, output),
                    _ => {
                        let rows = InOrders::new(rows, padded_k, panels.orders());
                        run::<Avx2U8, _>(ctx.pool, rows_of, panels, &rows, output)
                    }
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        Layout::Bytes(panels, sums) => {
            let convert = Flip { flip: flip ^ 0x80, zero_point: (zero ^ 0x80).cast_signed() };
            let output = output.compensate(sums, -i32::from(convert.zero_point));
            // SAFETY: only packed for these two, of which one is the level of `ctx.isa`, so the CPU
            // has it; the output was checked when prepared.
            unsafe {
                match ctx.isa.level() {
                    Level::I8mm => {
                        let rows = a.source.rows(convert, MatrixI8::GROUP * panels.groups());
                        run::<MatrixI8, _>(ctx.pool, rows_of, panels, &rows, output);
                    }
                    _ => {
                        let rows = a.source.rows(convert, DotI8::GROUP * panels.groups());
                        run::<DotI8, _>(ctx.pool, rows_of, panels, &rows, output);
                    }
                }
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        Layout::Bytes(..) => unreachable!("no instruction set of this architecture takes bytes"),
    }
}

/// # Safety
/// As [`drive`].
unsafe fn run<K, R>(
    pool: &Pool,
    rows_of: Range<usize>,
    panels: &Panels<K::B>,
    rows: &R,
    output: Prepared<'_>,
) where
    K: Microkernel<Acc = i32>,
    R: Rows<K::A>,
{
    // SAFETY: the caller's promise.
    unsafe {
        match &output {
            Prepared::Int8(finish) => drive::<K, _, _>(pool, rows_of, panels, rows, finish),
            Prepared::I32(finish) => drive::<K, _, _>(pool, rows_of, panels, rows, finish),
            Prepared::F32(finish) => drive::<K, _, _>(pool, rows_of, panels, rows, finish),
        }
    }
}
