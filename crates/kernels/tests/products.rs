//! Matrix products and convolutions against their definitions, for every instruction set that this
//! CPU has and for 1, 2 and 3 threads: integer results and f32 bits must be the same everywhere.

use fewbit_kernels::conv::{
    ConvInput, ConvShape, PackedConvF32, PackedConvI8, conv2d_f32, conv2d_i8,
};
use fewbit_kernels::gemm::{
    Addition, Clamp, Dequantize, Epilogue, FusedAdd, Matrix, Output, OwnCodes, PackedF32, PackedI8,
    Requantize, Residual, WeightZero, gemm_f32, gemm_i8, gemm_i8_batches,
};
use fewbit_kernels::{Ctx, Int8, Int8Mut, Isa, Pool};

/// A small deterministic generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) as u32
    }

    fn below(&mut self, end: usize) -> usize {
        self.next() as usize % end
    }

    fn float(&mut self) -> f32 {
        self.next() as f32 / (1u64 << 30) as f32 - 1.0
    }

    fn floats(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.float()).collect()
    }

    /// Weights: any bytes, or, more like those of networks, mostly small ones.
    fn weights(&mut self, len: usize, small: bool) -> Vec<u8> {
        let mut bytes = self.bytes(len);
        for byte in bytes.iter_mut().filter(|_| small) {
            if self.below(40) > 0 {
                *byte = (byte.cast_signed() / 2).cast_unsigned();
            }
        }
        bytes
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 8) as u8).collect()
    }
}

/// Calls `run` for every instruction set and thread count, and demands that all return the same.
fn same_everywhere<T: PartialEq + std::fmt::Debug>(what: &str, run: impl Fn(Ctx<'_>) -> T) -> T {
    let mut first = None;
    for threads in [1, 2, 3] {
        let pool = Pool::new(threads);
        for isa in Isa::available() {
            let got = run(Ctx { isa, pool: &pool });
            match &first {
                None => first = Some(got),
                Some(first) => assert!(*first == got, "{what}: {isa}, {threads} threads"),
            }
        }
    }
    first.expect("there is always the scalar instruction set")
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// The definition of the f32 epilogue.
fn finish_f32(epilogue: &Epilogue<'_>, sum: f32, index: usize, col: usize) -> f32 {
    let mut value = sum + epilogue.bias.map_or(0.0, |bias| bias[col]);
    if let Some(residual) = epilogue.residual {
        value += residual[index];
    }
    epilogue.clamp.map_or(value, |clamp| clamp.apply(value))
}

/// The definition of requantization.
fn requantize(to: &Requantize<'_>, sum: i32, index: usize, col: usize) -> i32 {
    let sum = sum.wrapping_add(to.bias.map_or(0, |bias| bias[col]));
    let mut value = sum as f32 * to.multiplier[col];
    if let Some(residual) = &to.residual {
        if let Some(own) = residual.own {
            value = value.clamp(own.lo as f32, own.hi as f32).round_ties_even() * own.scale;
        }
        let at = if residual.is_row { col } else { index };
        let centred = residual.values.get(at) - residual.zero_point;
        value += centred as f32 * residual.multiplier;
        value /= residual.own.map_or(1.0, |own| own.step);
    }
    let rounded = f64::from(value).round_ties_even() as i64 + i64::from(to.zero_point);
    rounded.clamp(i64::from(to.lo), i64::from(to.hi)) as i32
}

const SIZES: [(usize, usize, usize); 36] = [
    (1, 1, 1),
    (1, 16, 16),
    (1, 37, 70),
    (2, 5, 64),
    (2, 33, 100),
    (3, 4, 17),
    (4, 128, 48),
    (5, 2, 31),
    (6, 64, 16),
    (7, 27, 33),
    (8, 3, 15),
    (9, 9, 8),
    (12, 31, 24),
    (13, 65, 129),
    (17, 100, 40),
    (31, 7, 3),
    (64, 64, 64),
    (100, 19, 20),
    (1, 1300, 1),
    (50, 0, 5),
    (0, 5, 5),
    (33, 1152, 9),
    (260, 700, 40),
    (5, 330, 600),
    (35, 2100, 40),
    (50, 1030, 600),
    // Rows that are no number of lines of 32 or 16 columns, with and without a part of a panel.
    (13, 20, 96),
    (25, 40, 24),
    (27, 9, 80),
    (49, 30, 109),
    // In parts of 520 and 512, where rows of 512 would lie further apart than those of 520.
    // Few rows: several panels at a time.
    (1, 300, 1200),
    (2, 37, 330),
    (3, 150, 401),
    (4, 21, 90),
    (4, 1032, 17),
    (50, 1032, 5),
];

#[test]
fn f32_products_follow_the_definition() {
    let mut random = Random(1);
    for (case, (m, k, n)) in SIZES.into_iter().enumerate() {
        let (lda, ldc) = (k + case % 3, n + case % 2);
        let (a, b) = (random.floats(m * lda), random.floats(k * n));
        let (bias, residual) = (random.floats(n), random.floats(m * ldc));
        let epilogue = Epilogue {
            bias: (case % 2 == 0).then_some(&bias),
            residual: (case % 3 == 0).then_some(&residual),
            clamp: (case % 5 < 3).then_some(Clamp { lo: -0.5, hi: 0.75 }),
        };
        let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
        let got = same_everywhere(&format!("{m}x{k}x{n}"), |ctx| {
            let mut both = [PackedF32::new(k, n, &b), PackedF32::new_transposed(k, n, &transposed)]
                .map(|packed| {
                    let mut c = vec![7.0; m * ldc];
                    let left = Matrix { data: a.as_slice(), stride: lda };
                    let out = Matrix { data: c.as_mut_slice(), stride: ldc };
                    gemm_f32(ctx, m, left, &packed, epilogue, out);
                    bits(&c)
                })
                .into_iter();
            let straight = both.next();
            assert_eq!(straight, both.next(), "transposed");
            straight.unwrap()
        });
        for (index, got) in got.into_iter().enumerate() {
            let (row, col) = (index / ldc, index % ldc);
            let want = if col < n {
                let terms = (0..k).map(|p| (a[row * lda + p], b[p * n + col]));
                let sum = terms.fold(0.0f32, |acc, (a, b)| a.mul_add(b, acc));
                finish_f32(&epilogue, sum, index, col)
            } else {
                7.0
            };
            assert_eq!(got, want.to_bits(), "{m}x{k}x{n} at {row}, {col}");
        }
    }
}

#[test]
fn f32_sums_are_near_the_exact_ones() {
    let mut random = Random(2);
    let (m, k, n) = (7, 500, 20);
    let (a, b) = (random.floats(m * k), random.floats(k * n));
    let pool = Pool::single();
    let mut c = vec![0.0; m * n];
    let ctx = Ctx { isa: Isa::best(), pool: &pool };
    let (left, out) = (Matrix { data: &a[..], stride: k }, Matrix { data: &mut c[..], stride: n });
    gemm_f32(ctx, m, left, &PackedF32::new(k, n, &b), Epilogue::default(), out);
    for (index, got) in c.into_iter().enumerate() {
        let term = |p: usize| f64::from(a[index / n * k + p]) * f64::from(b[p * n + index % n]);
        let exact: f64 = (0..k).map(term).sum();
        let size: f64 = (0..k).map(|p| term(p).abs()).sum();
        // Each fused step rounds a partial sum that is no larger than `size` once.
        let bound = k as f64 * f64::from(f32::EPSILON) / 2.0 * size;
        assert!((f64::from(got) - exact).abs() <= bound, "{got} is far from {exact}");
    }
}

/// A residual whose addition may go the quicker way.
trait Quicker {
    fn fused(self, wanted: bool, limits: [i32; 2]) -> Self;
}

impl Quicker for Residual<'_> {
    fn fused(mut self, wanted: bool, limits: [i32; 2]) -> Self {
        let Residual { values, zero_point, multiplier, .. } = self;
        if let Some(own) = self.own.as_mut().filter(|_| wanted) {
            let signed = matches!(values, Int8::I8(_));
            let addition = Addition { own: *own, signed, zero_point, multiplier, limits };
            own.fused = FusedAdd::find(Isa::best(), &addition);
        }
        self
    }
}

/// An int8 product or convolution, its exact sums and what to check about them.
struct Integers {
    /// Exact sums, row by row.
    sums: Vec<i32>,
    columns: usize,
}

impl Integers {
    /// Checks all three outputs of `run` against the definitions.
    fn check(&self, what: &str, random: &mut Random, run: impl Fn(Ctx<'_>, Output<'_>)) {
        self.sums_alone(what, &run);
        self.as_floats(what, random, &run);
        for signed in [false, true] {
            self.as_bytes(what, random, signed, &run);
        }
    }

    fn sums_alone(&self, what: &str, run: impl Fn(Ctx<'_>, Output<'_>)) {
        let got = same_everywhere(what, |ctx| {
            let mut out = vec![-1; self.sums.len()];
            run(ctx, Output::I32(&mut out));
            out
        });
        assert_eq!(got, self.sums, "{what}: sums");
    }

    fn as_floats(&self, what: &str, random: &mut Random, run: impl Fn(Ctx<'_>, Output<'_>)) {
        let (scale, bias) = (random.floats(self.columns), random.floats(self.columns));
        let bias = (random.below(2) == 0).then_some(bias);
        let clamp = (random.below(2) == 0).then_some(Clamp::RELU);
        let to = Dequantize { scale: &scale, bias: bias.as_deref(), clamp };
        let got = same_everywhere(what, |ctx| {
            let mut out = vec![f32::NAN; self.sums.len()];
            run(ctx, Output::F32(&mut out, to));
            bits(&out)
        });
        for (index, (got, &sum)) in got.into_iter().zip(&self.sums).enumerate() {
            let col = index % self.columns;
            let value = sum as f32 * scale[col] + to.bias.map_or(0.0, |bias| bias[col]);
            let want = clamp.map_or(value, |clamp| clamp.apply(value));
            assert_eq!(got, want.to_bits(), "{what}: float at {index}");
        }
    }

    fn as_bytes(
        &self,
        what: &str,
        random: &mut Random,
        signed: bool,
        run: impl Fn(Ctx<'_>, Output<'_>),
    ) {
        let (columns, len) = (self.columns, self.sums.len());
        let largest = self.sums.iter().map(|s| s.unsigned_abs()).max().unwrap_or(1).max(1);
        // From values that use the type well to values that saturate.
        let scale = [90.0, 400.0, 1e9][random.below(3)] / largest as f32;
        let mut multiplier: Vec<f32> =
            (0..columns).map(|_| scale * (1.5 + random.float())).collect();
        // A column whose products stay within 32 bits by the size of its sums alone.
        if random.below(3) == 0 && columns > 0 {
            multiplier[random.below(columns)] = 1.0;
        }
        let bias: Vec<i32> = (0..columns).map(|_| random.next() as i32 >> 20).collect();
        let values = random.bytes(len);
        let residual_values = if random.below(2) == 0 {
            Int8::U8(&values)
        } else {
            Int8::I8(bytemuck::cast_slice(&values))
        };
        let own = OwnCodes { lo: -77, hi: 178, scale: 0.031, step: 0.057, fused: None };
        let (own, factor) = if random.below(2) == 0 { (Some(own), 0.021) } else { (None, 0.37) };
        let (values, is_row) = (residual_values, len >= columns && random.below(3) == 0);
        let values = if is_row { values.range(0, columns) } else { values };
        let residual = Residual { values, is_row, zero_point: 3, multiplier: factor, own };
        let (lo, hi) = if signed { (-128, 127) } else { (0, 255) };
        // Often what is left of a rectified sum: none of the codes are negative, and all or not all
        // of them follow.
        let (lo, hi, zero_point) = match random.below(4) {
            0 => (lo, hi, lo),
            1 => (lo, hi - 1 - random.below(60) as i32, lo),
            _ => {
                let zero_point = lo + random.below(256) as i32;
                (lo + random.below(3) as i32, hi - random.below(30) as i32, zero_point)
            }
        };
        let limits = [lo - zero_point, hi - zero_point];
        let residual = residual.fused(random.below(2) == 0, limits);
        let to = Requantize {
            bias: (random.below(2) == 0).then_some(&bias),
            multiplier: &multiplier,
            residual: (random.below(2) == 0).then_some(residual),
            zero_point,
            lo,
            hi,
        };
        let got = same_everywhere(what, |ctx| {
            let mut out = vec![99u8; len];
            if signed {
                run(ctx, Output::Int8(Int8Mut::I8(bytemuck::cast_slice_mut(&mut out)), to));
            } else {
                run(ctx, Output::Int8(Int8Mut::U8(&mut out), to));
            }
            out
        });
        for (index, (got, &sum)) in got.into_iter().zip(&self.sums).enumerate() {
            let want = requantize(&to, sum, index, index % columns);
            let got = if signed { i32::from(got.cast_signed()) } else { i32::from(got) };
            assert_eq!(got, want, "{what}: byte at {index}, sum {sum}, {to:?}");
        }
    }
}

/// Raw bytes read as one signedness.
fn int8(bytes: &[u8], signed: bool) -> Int8<'_> {
    if signed { Int8::I8(bytemuck::cast_slice(bytes)) } else { Int8::U8(bytes) }
}

fn zero_point(random: &mut Random, signed: bool) -> i32 {
    random.below(256) as i32 - if signed { 128 } else { 0 }
}

/// Zero points of the weights: none, one, or one per column.
struct Zeros {
    kind: usize,
    values: Vec<i32>,
}

impl Zeros {
    fn new(random: &mut Random, columns: usize, signed: bool) -> Zeros {
        let kind = random.below(4);
        let mut values: Vec<i32> = (0..columns).map(|_| zero_point(random, signed)).collect();
        match kind {
            2 => (),
            1 => values = vec![zero_point(random, signed); columns],
            _ => values.fill(0),
        }
        Zeros { kind, values }
    }

    fn get(&self) -> WeightZero<'_> {
        match self.kind {
            0 | 3 => WeightZero::None,
            1 => WeightZero::Tensor(self.values.first().copied().unwrap_or(0)),
            _ => WeightZero::Column(&self.values),
        }
    }
}

#[test]
fn int8_products_follow_the_definition() {
    let mut random = Random(3);
    for (case, (m, k, n)) in SIZES.into_iter().cycle().take(3 * SIZES.len()).enumerate() {
        let (a_signed, b_signed) = (random.below(2) == 0, random.below(3) > 0);
        let lda = k + case % 3;
        let (a, b) = (random.bytes(m * lda), random.weights(k * n, case % 2 == 0));
        let (a, b) = (int8(&a, a_signed), int8(&b, b_signed));
        let zero = zero_point(&mut random, a_signed);
        let zeros = Zeros::new(&mut random, n, b_signed);
        let at = |index: usize| {
            let (row, col) = (index / n, index % n);
            let term = |p: usize| {
                i64::from(a.get(row * lda + p) - zero)
                    * i64::from(b.get(p * n + col) - zeros.values[col])
            };
            (0..k).map(term).sum::<i64>() as i32
        };
        let exact = Integers { sums: (0..m * n).map(at).collect(), columns: n };
        exact.check(&format!("{m}x{k}x{n} case {case}"), &mut random, |ctx, out| {
            let packed = PackedI8::new(ctx.isa, k, n, b, zeros.get());
            let left = Matrix { data: a, stride: lda };
            gemm_i8(ctx, m, left, zero, &packed, Matrix { data: out, stride: n });
        });
    }
}

#[test]
fn additions_of_codes_follow_the_definition_for_all_pairs() {
    // The codes of the sums by row, the others by column.
    let (m, k, n) = (256, 4, 256);
    let a: Vec<u8> = (0..m * k).map(|i| (i / k) as u8).collect();
    let b = vec![1u8; k * n];
    let values: Vec<u8> = (0..m * n).map(|i| (i % n) as u8).collect();
    let multiplier = vec![1.0 / k as f32; n];
    let bias = vec![-100 * k as i32; n];
    // Steps next to powers of two, and some far from 1.
    let steps = [0.043, 1.999_999_9, 2.0, 1e-20, 3e-31, 1e-38, 5e30, -0.03];
    for (i, step) in steps.into_iter().enumerate() {
        for [ours, theirs] in [[0.71f32, 0.83], [1.0, 1.0], [0.5, 0.25], [1.3, 0.013]] {
            let own = OwnCodes { lo: -100, hi: 155, scale: step * ours, step, fused: None };
            let zero_point = 100 + i as i32;
            let residual = Residual {
                values: Int8::U8(&values),
                is_row: false,
                zero_point: 120,
                multiplier: step * theirs,
                own: Some(own),
            };
            let to = Requantize {
                bias: Some(&bias),
                multiplier: &multiplier,
                residual: Some(residual.fused(true, [-zero_point, 255 - zero_point])),
                zero_point,
                lo: 0,
                hi: 255,
            };
            let got = same_everywhere("codes", |ctx| {
                let zeros = WeightZero::None;
                let b = PackedI8::new(ctx.isa, k, n, Int8::I8(bytemuck::cast_slice(&b)), zeros);
                let mut out = vec![0; m * n];
                let a = Matrix { data: Int8::U8(&a), stride: k };
                let c = Matrix { data: Output::Int8(Int8Mut::U8(&mut out), to), stride: n };
                gemm_i8(ctx, m, a, 0, &b, c);
                out
            });
            for (index, got) in got.into_iter().enumerate() {
                let want = requantize(&to, (index / n * k) as i32, index, index % n);
                assert_eq!(i32::from(got), want, "{own:?} at {index}");
            }
        }
    }
}

#[test]
fn int8_products_do_not_saturate() {
    // The largest magnitudes of both signs, where pairwise i16 sums would saturate.
    for (left, right) in [(0u8, -128i8), (255, -128), (255, 127), (0, 127)] {
        let (m, k, n) = (7, 514, 18);
        let (a, b) = (vec![left; m * k], vec![right; k * n]);
        for zero in [0, 128, 255] {
            let want = (i32::from(left) - zero) * i32::from(right) * k as i32;
            let got = same_everywhere("extremes", |ctx| {
                let packed = PackedI8::new(ctx.isa, k, n, Int8::I8(&b), WeightZero::None);
                let mut out = vec![0; m * n];
                let left = Matrix { data: Int8::U8(&a), stride: k };
                let out_matrix = Matrix { data: Output::I32(&mut out), stride: n };
                gemm_i8(ctx, m, left, zero, &packed, out_matrix);
                out
            });
            assert!(got.into_iter().all(|sum| sum == want));
        }
    }
}

#[test]
fn int8_products_pair_their_weights_as_is_safe() {
    // Pairs that are safe in one order only, some in none, in halves of panels of every mixture.
    let mut random = Random(41);
    for (m, k, n) in [(1, 64, 64), (9, 130, 80), (50, 260, 70)] {
        let weight = |index: usize, random: &mut Random| {
            let (row, col) = (index / n, index % n);
            let sign = if row % 4 < 2 { 1 } else { -1 };
            let spread = random.below(60) as i32;
            let most = if (row / 4 + col / 8) % 5 == 0 { 60 + spread } else { spread + 8 };
            let turned = if row / 4 % 3 == 1 && row % 2 == 1 { -sign } else { sign };
            (if random.below(97) == 0 { 127 } else { most * turned }) as i8
        };
        let b: Vec<i8> = (0..k * n).map(|index| weight(index, &mut random)).collect();
        let a = random.bytes(m * k);
        let sums = same_everywhere("pairs", |ctx| {
            let packed = PackedI8::new(ctx.isa, k, n, Int8::I8(&b), WeightZero::None);
            let mut out = vec![0; m * n];
            let left = Matrix { data: Int8::U8(&a), stride: k };
            let out_matrix = Matrix { data: Output::I32(&mut out), stride: n };
            gemm_i8(ctx, m, left, 17, &packed, out_matrix);
            out
        });
        let term = |row: usize, col: usize, i: usize| {
            (i32::from(a[row * k + i]) - 17) * i32::from(b[i * n + col])
        };
        for (index, sum) in sums.into_iter().enumerate() {
            let want: i32 = (0..k).map(|i| term(index / n, index % n, i)).sum();
            assert_eq!(sum, want, "{m} x {k} x {n} at {index}");
        }
    }
}

#[test]
fn products_side_by_side_are_those_one_by_one() {
    let mut random = Random(43);
    for (right, [m, k, n]) in [(vec![0, 1, 2], [5, 32, 20]), (vec![1, 0, 0, 1], [17, 9, 33])] {
        let (a, b) = (random.bytes(right.len() * m * k), random.bytes(3 * k * n));
        let (a, b) = (Int8::U8(&a), int8(&b, true));
        let sums = same_everywhere("side by side", |ctx| {
            let mut out = vec![0; right.len() * m * n];
            gemm_i8_batches(ctx, &right, [m, k, n], (a, 9), (b, -3), Output::I32(&mut out));
            out
        });
        for (index, sum) in sums.into_iter().enumerate() {
            let (row, col, batch) = (index / n, index % n, index / n / m);
            let term =
                |i: usize| (a.get(row * k + i) - 9) * (b.get((right[batch] * k + i) * n + col) + 3);
            assert_eq!(sum, (0..k).map(term).sum::<i32>(), "at {index}");
        }
    }
}

/// A random convolution with at least one output.
fn conv_shape(random: &mut Random, case: usize) -> ConvShape {
    loop {
        let groups = [1, 1, 2, 3, 8][random.below(5)];
        let depthwise = case.is_multiple_of(2);
        let channels = [1, 3, 4, 8, 16, 17, 33, 40, 64][random.below(9)];
        let (groups, in_c) =
            if depthwise { (channels, channels) } else { (groups, groups * (1 + channels / 4)) };
        let shape = ConvShape {
            batch: 1 + random.below(2),
            in_h: 1 + random.below(12),
            in_w: 1 + random.below(14),
            in_c,
            out_c: groups * (1 + if depthwise { random.below(6) / 2 } else { random.below(20) }),
            kernel: [[1, 1], [3, 3], [5, 5], [1, 3], [2, 4], [7, 7]][random.below(6)],
            stride: [[1, 1], [2, 2], [1, 2], [3, 1], [1, 1]][random.below(5)],
            dilation: [[1, 1], [1, 1], [2, 2], [1, 3]][random.below(4)],
            pads: [[0; 4], [1; 4], [2, 1, 0, 3], [2; 4], [0, 5, 6, 0]][random.below(5)],
            groups,
        };
        if shape.out_pixels() > 0 {
            return shape;
        }
    }
}

/// One output channel for one input channel, pixel by pixel.
const PLAIN: ConvShape = ConvShape {
    batch: 1,
    in_h: 1,
    in_w: 1,
    in_c: 1,
    out_c: 1,
    kernel: [1; 2],
    stride: [1; 2],
    dilation: [1; 2],
    pads: [0; 4],
    groups: 1,
};

/// A convolution whose sums are so long that they are computed part by part.
fn long_shape(random: &mut Random, case: usize) -> ConvShape {
    let groups = 1 + random.below(2);
    ConvShape {
        in_c: groups * (40 + random.below(90)),
        out_c: groups * (1 + random.below(40)),
        kernel: [[3, 3], [2, 4], [3, 5]][random.below(3)],
        groups,
        in_h: 8 + random.below(8),
        in_w: 9 + random.below(8),
        ..conv_shape(random, 2 * case + 1)
    }
}

/// A convolution of 3 x 3 with steps of 1 over many channels, for which there is a way of its own.
fn square_shape(random: &mut Random) -> ConvShape {
    ConvShape {
        batch: 1 + random.below(2),
        in_h: 3 + random.below(8),
        in_w: 3 + random.below(9),
        in_c: 16 * (1 + random.below(3)),
        out_c: 16 + random.below(20),
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        pads: [[1; 4], [0; 4], [2, 1, 0, 3], [2; 4]][random.below(4)],
        groups: 1,
    }
}

/// A convolution in groups of few channels, for which there are ways of its own.
fn groups_shape(random: &mut Random) -> ConvShape {
    let groups = 2 + random.below(12);
    let each = [[4, 4], [2, 2], [8, 8], [16, 16], [24, 24], [2 + random.below(6); 2]];
    let [ins, outs] = match random.below(7) {
        6 => [2 + random.below(20), 1 + random.below(26)],
        index => each[index],
    };
    ConvShape {
        in_h: 3 + random.below(8),
        in_w: 3 + random.below(20),
        in_c: groups * ins,
        out_c: groups * outs,
        kernel: [[3, 3], [1, 1], [5, 5], [1, 7]][random.below(4)],
        groups,
        ..loop {
            let shape = conv_shape(random, 1);
            if shape.pads != [0; 4] {
                break shape;
            }
        }
    }
}

/// A depthwise convolution of many channels, for which there is a way of its own.
fn channels_shape(random: &mut Random) -> ConvShape {
    let channels = [16 * (1 + random.below(13)), 1 + random.below(210)][random.below(2)];
    let kernel = [[3, 3], [5, 5], [3, 3], [2 + random.below(7), 1 + random.below(9)]];
    let kernel = kernel[random.below(4)];
    ConvShape {
        batch: 1 + random.below(2),
        in_h: kernel[0] + random.below(8),
        in_w: kernel[1] + [random.below(9), random.below(40)][random.below(2)],
        in_c: channels,
        out_c: channels,
        kernel,
        stride: [[1, 1], [2, 2], [1, 3], [3, 1], [2, 1]][random.below(5)],
        dilation: [1, 1],
        pads: [[1; 4], [0; 4], [2, 1, 0, 3], [2; 4], [9, 10, 8, 11]][random.below(5)],
        groups: channels,
    }
}

/// The products behind one output: (input index, or `None` in the padding; weight index).
fn terms(shape: &ConvShape, index: usize) -> Vec<(Option<usize>, usize)> {
    let col = index % shape.out_c;
    let pixel = index / shape.out_c;
    let (x, y) = (pixel % shape.out_w(), pixel / shape.out_w() % shape.out_h());
    let image = pixel / shape.out_w() / shape.out_h();
    let [kernel_h, kernel_w] = shape.kernel;
    let first_channel = col / shape.group_out_c() * shape.group_in_c();
    let inside = |position: usize, pad: usize, size: usize| {
        position.checked_sub(pad).filter(|&at| at < size)
    };
    let mut list = Vec::new();
    for tap in 0..kernel_h * kernel_w {
        let (ky, kx) = (tap / kernel_w, tap % kernel_w);
        let in_y = inside(y * shape.stride[0] + ky * shape.dilation[0], shape.pads[0], shape.in_h);
        let in_x = inside(x * shape.stride[1] + kx * shape.dilation[1], shape.pads[1], shape.in_w);
        for channel in 0..shape.group_in_c() {
            let input = in_y.zip(in_x).map(|(in_y, in_x)| {
                let pixel = (image * shape.in_h + in_y) * shape.in_w + in_x;
                pixel * shape.in_c + first_channel + channel
            });
            let weight = (col * shape.group_in_c() + channel) * kernel_h * kernel_w + tap;
            list.push((input, weight));
        }
    }
    list
}

#[test]
fn f32_convolutions_follow_the_definition() {
    let mut random = Random(4);
    for case in 0..232 {
        let shape = match case {
            0..150 => conv_shape(&mut random, case),
            150..170 => long_shape(&mut random, case),
            172.. => groups_shape(&mut random),
            // 1,032 terms, as in `SIZES`; of four outputs or of many.
            _ => {
                let (in_h, in_w) = [(3, 5), (9, 12)][case - 170];
                let kernel = [2, 4];
                ConvShape { in_h, in_w, in_c: 129, kernel, ..PLAIN }
            }
        };
        let input = random.floats(shape.input_len());
        let weights = random.floats(shape.weights_len());
        let (bias, residual) = (random.floats(shape.out_c), random.floats(shape.output_len()));
        let epilogue = Epilogue {
            bias: (case % 3 > 0).then_some(&bias),
            residual: (case % 5 == 0).then_some(&residual),
            clamp: (case % 4 > 1).then_some(Clamp { lo: 0.0, hi: 1.5 }),
        };
        let packed = PackedConvF32::new(&shape, &weights);
        let got = same_everywhere(&format!("{shape:?}"), |ctx| {
            let mut output = vec![f32::NAN; shape.output_len()];
            conv2d_f32(ctx, &shape, &input, &packed, epilogue, &mut output);
            bits(&output)
        });
        for (index, got) in got.into_iter().enumerate() {
            let sum = terms(&shape, index).into_iter().fold(0.0f32, |acc, (at, weight)| {
                at.map_or(0.0, |at| input[at]).mul_add(weights[weight], acc)
            });
            let want = finish_f32(&epilogue, sum, index, index % shape.out_c);
            assert_eq!(got, want.to_bits(), "{shape:?} at {index}");
        }
    }
}

/// An infinite input makes those outputs infinite or NaN that depend on it, and no other.
#[test]
fn groups_do_not_see_each_other() {
    for each in [2, 3, 4, 8, 12] {
        let (groups, side) = (5, 9);
        let channels = groups * each;
        let (in_c, out_c) = (channels, channels);
        let shape = ConvShape { in_h: side, in_w: side, in_c, out_c, groups, ..PLAIN };
        let shape = ConvShape { kernel: [3; 2], pads: [1; 4], ..shape };
        let mut input = vec![1.0; shape.input_len()];
        let bad = 2 * each;
        input.iter_mut().skip(bad).step_by(channels).for_each(|value| *value = f32::INFINITY);
        let packed = PackedConvF32::new(&shape, &vec![0.5; shape.weights_len()]);
        let got = same_everywhere(&format!("{each} channels"), |ctx| {
            let mut output = vec![0.0; shape.output_len()];
            conv2d_f32(ctx, &shape, &input, &packed, Epilogue::default(), &mut output);
            bits(&output)
        });
        for (index, got) in got.into_iter().enumerate() {
            let is_bad = index % channels / each == 2;
            assert_eq!(f32::from_bits(got).is_finite(), !is_bad, "{each} channels, at {index}");
        }
    }
}

/// Images of no columns have padding, and so outputs.
#[test]
fn groups_of_nothing_are_padding() {
    let shape = ConvShape { in_h: 3, in_w: 0, in_c: 32, out_c: 32, groups: 8, ..PLAIN };
    let shape = ConvShape { kernel: [3; 2], pads: [1, 2, 1, 2], ..shape };
    let packed = PackedConvF32::new(&shape, &vec![0.5; shape.weights_len()]);
    let got = same_everywhere("no columns", |ctx| {
        let mut output = vec![1.0; shape.output_len()];
        conv2d_f32(ctx, &shape, &[], &packed, Epilogue::default(), &mut output);
        bits(&output)
    });
    assert_eq!(got, vec![0; 3 * 2 * 32]);
}

#[test]
fn int8_convolutions_follow_the_definition() {
    let mut random = Random(5);
    for case in 0..350 {
        let shape = match case {
            ..150 => conv_shape(&mut random, case),
            150..190 => square_shape(&mut random),
            290.. => groups_shape(&mut random),
            _ => channels_shape(&mut random),
        };
        let (in_signed, w_signed) = (random.below(2) == 0, random.below(3) > 0);
        let input = random.bytes(shape.input_len());
        let weights = random.weights(shape.weights_len(), case % 3 == 0);
        let (values, weights) = (int8(&input, in_signed), int8(&weights, w_signed));
        let zero = zero_point(&mut random, in_signed);
        let zeros = Zeros::new(&mut random, shape.out_c, w_signed);
        let sum = |index: usize| {
            let col_zero = zeros.values[index % shape.out_c];
            let term = |(at, weight): (Option<usize>, usize)| {
                at.map_or(0, |at| values.get(at) - zero) * (weights.get(weight) - col_zero)
            };
            terms(&shape, index).into_iter().map(term).sum()
        };
        let sums = (0..shape.output_len()).map(sum).collect();
        let exact = Integers { sums, columns: shape.out_c };
        exact.check(&format!("{shape:?}"), &mut random, |ctx, out| {
            let packed = PackedConvI8::new(ctx.isa, &shape, weights, zeros.get());
            let input = ConvInput { values, zero_point: zero };
            conv2d_i8(ctx, &shape, input, &packed, out);
        });
    }
}

/// The layers of most networks: codes without a sign, and nothing that limits them.
#[test]
fn rectified_depthwise_convolutions_follow_the_definition() {
    let mut random = Random(8);
    for case in 0..60 {
        let stride = [1 + case % 2; 2];
        let mut shape = ConvShape { kernel: [3, 3], stride, ..channels_shape(&mut random) };
        if case % 6 == 0 {
            // Two pixels side by side are 64 bytes.
            (shape.in_c, shape.out_c, shape.groups, shape.pads) = (32, 32, 32, [1; 4]);
        }
        let (input, weights) =
            (random.bytes(shape.input_len()), random.weights(shape.weights_len(), true));
        let (values, weights) = (Int8::U8(&input), int8(&weights, true));
        let zero = zero_point(&mut random, false);
        let term = |(at, weight): (Option<usize>, usize)| {
            at.map_or(0, |at| values.get(at) - zero) * weights.get(weight)
        };
        let sum = |index: usize| terms(&shape, index).into_iter().map(term).sum::<i32>();
        let bias: Vec<i32> = (0..shape.out_c).map(|_| random.next() as i32 >> 20).collect();
        let mut multiplier: Vec<f32> =
            (0..shape.out_c).map(|_| 0.004 * random.float().abs()).collect();
        // A channel without weights has a scale of its own; one beyond all bounds goes another way.
        multiplier[random.below(shape.out_c)] = [1.0, 0.004, 3000.0, 1e9][case % 4];
        let (bias, multiplier) = (Some(&bias[..]), &multiplier[..]);
        let to = Requantize { bias, multiplier, residual: None, zero_point: 0, lo: 0, hi: 255 };
        let got = same_everywhere(&format!("{shape:?}"), |ctx| {
            let packed = PackedConvI8::new(ctx.isa, &shape, weights, WeightZero::None);
            let mut out = vec![99; shape.output_len()];
            let input = ConvInput { values, zero_point: zero };
            conv2d_i8(ctx, &shape, input, &packed, Output::Int8(Int8Mut::U8(&mut out), to));
            out
        });
        for (index, got) in got.into_iter().enumerate() {
            let want = requantize(&to, sum(index), index, index % shape.out_c);
            assert_eq!(i32::from(got), want, "{shape:?} at {index}");
        }
    }
}

/// What lies in planes between two convolutions makes no difference to what comes out.
#[test]
fn depthwise_convolutions_read_planes_as_they_read_pixels() {
    let mut random = Random(9);
    for case in 0..40 {
        let next = channels_shape(&mut random);
        let (in_c, c) = (1 + random.below(40), next.in_c);
        let pointwise =
            ConvShape { in_c, kernel: [1; 2], stride: [1; 2], pads: [0; 4], groups: 1, ..next };
        // The same size from a kernel of three by three.
        let shape = match case % 3 {
            0 => ConvShape { kernel: [3; 2], pads: [1; 4], ..pointwise },
            _ => pointwise,
        };
        let signed = case % 2 == 0;
        let (input, weights) =
            (random.bytes(shape.input_len()), random.weights(shape.weights_len(), true));
        let next_weights = random.weights(next.weights_len(), true);
        let multiplier: Vec<f32> = (0..c).map(|_| 0.01 * random.float().abs()).collect();
        let bias: Vec<i32> = (0..c).map(|_| random.next() as i32 >> 20).collect();
        let (zero_point, lo, hi) = if signed { (3, -120, 127) } else { (7, 0, 250) };
        let to = |bias, zero_point, lo, hi| {
            let multiplier = &multiplier[..];
            Requantize { bias, multiplier, residual: None, zero_point, lo, hi }
        };
        let (middle, last) = (to(Some(&bias[..]), zero_point, lo, hi), to(None, 0, 0, 255));
        let run = |ctx: Ctx<'_>, planes: bool| {
            let packed = |shape: &ConvShape, weights: &[u8]| {
                PackedConvI8::new(ctx.isa, shape, int8(weights, true), WeightZero::None)
            };
            let mut both = [packed(&shape, &weights), packed(&next, &next_weights)];
            if planes {
                let [first, second] = &mut both;
                second.prepare(ConvInput { values: int8(&[], signed), zero_point }, &last);
                let handed = first.hand_planes(second);
                let (gains, small) = (c > 64 && c % 64 > 0, next.kernel[1] <= 8);
                let wanted = gains && small && ctx.isa.to_string() == "avx512";
                assert_eq!(handed, wanted, "{next:?}");
            }
            let (mut between, mut out) = (vec![0; shape.output_len()], vec![0; next.output_len()]);
            let values = Int8::U8(&input);
            let input = ConvInput { values, zero_point: 5 };
            let codes = match signed {
                true => Int8Mut::I8(bytemuck::cast_slice_mut(&mut between)),
                false => Int8Mut::U8(&mut between),
            };
            conv2d_i8(ctx, &shape, input, &both[0], Output::Int8(codes, middle));
            let input = ConvInput { values: int8(&between, signed), zero_point };
            conv2d_i8(ctx, &next, input, &both[1], Output::Int8(Int8Mut::U8(&mut out), last));
            out
        };
        let want = run(Ctx { isa: Isa::scalar(), pool: &Pool::single() }, false);
        let got = same_everywhere(&format!("{next:?}"), |ctx| run(ctx, true));
        assert!(got == want, "{next:?}");
    }
}

#[test]
fn int8_convolutions_do_not_overflow() {
    // The most channels that minimal filtering takes, and one step more, at the largest magnitudes.
    for (in_c, left, zero, right, right_zero) in
        [(896, 255, 0, 127, -128), (896, 0, 255, -128, 127), (912, 255, 0, 127, -128)]
    {
        let mut shape = square_shape(&mut Random(6));
        (shape.batch, shape.in_h, shape.in_w) = (1, 4, 4);
        (shape.in_c, shape.out_c, shape.pads) = (in_c, 16, [0; 4]);
        let input = vec![left; shape.input_len()];
        let weights = vec![right; shape.weights_len()];
        let want = (i32::from(left) - zero) * (i32::from(right) - right_zero) * 9 * in_c as i32;
        let got = same_everywhere("extremes", |ctx| {
            let zeros = WeightZero::Tensor(right_zero);
            let packed = PackedConvI8::new(ctx.isa, &shape, Int8::I8(&weights), zeros);
            let mut out = vec![0; shape.output_len()];
            let input = ConvInput { values: Int8::U8(&input), zero_point: zero };
            conv2d_i8(ctx, &shape, input, &packed, Output::I32(&mut out));
            out
        });
        assert!(got.into_iter().all(|sum| sum == want), "{in_c} channels");
    }
}

#[test]
#[should_panic(expected = "packed for another instruction set")]
fn weights_of_another_instruction_set_are_refused() {
    let pool = Pool::single();
    let isas = Isa::available();
    let (first, last) = (isas[0], isas[isas.len() - 1]);
    assert!(first != last, "packed for another instruction set: this CPU has only one");
    let packed = PackedI8::new(first, 2, 1, Int8::I8(&[1, 2]), WeightZero::None);
    let (left, mut out) = (Matrix { data: Int8::U8(&[1, 2]), stride: 2 }, [0]);
    let out = Matrix { data: Output::I32(&mut out), stride: 1 };
    gemm_i8(Ctx { isa: last, pool: &pool }, 1, left, 0, &packed, out);
}
