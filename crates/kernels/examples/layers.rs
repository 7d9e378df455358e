//! Times the layers of EfficientNet-Lite0 or ResNet-50 at 224 x 224, float and int8, batch 1.
//!
//! `cargo run --release -p fewbit-kernels --example layers [THREADS [PART [NETWORK]]]` times all
//! layers, or those with PART in their name; NETWORK is `lite0` or `resnet50`; `FEWBIT_ISA` chooses
//! the instruction set. Where the network adds what came before (`+`), int8 layers add codes, as
//! their steps do. Prints the least of many runs per layer, in microseconds and in
//! multiply-accumulates per cycle of the clock as it was then (AVX2 allows 16 in float), what it
//! takes to pack its int8 weights, how often each layer occurs, and the totals. Cycles are counted
//! by a chain of multiplications beside each run; on processors on which a step of it takes other
//! than 4 cycles they are off by a factor.

use std::hint::black_box;
use std::time::{Duration, Instant};

use fewbit_kernels::conv::{
    ConvInput, ConvShape, PackedConvF32, PackedConvI8, conv2d_f32, conv2d_i8,
};
use fewbit_kernels::gemm::{
    Addition, Clamp, Epilogue, FusedAdd, Output, OwnCodes, Requantize, Residual, WeightZero,
};
use fewbit_kernels::{Ctx, Int8, Int8Mut, Isa, Pool};

/// Occurrences, input size, in channels, out channels, kernel, stride.
type Layer = (u32, usize, usize, usize, usize, usize);

/// Layers with a larger kernel are depthwise where both numbers of channels agree.
const LITE0: [Layer; 33] = [
    (1, 224, 3, 32, 3, 2),
    (1, 112, 32, 32, 3, 1),
    (1, 112, 32, 16, 1, 1),
    (1, 112, 16, 96, 1, 1),
    (1, 112, 96, 96, 3, 2),
    (1, 56, 96, 24, 1, 1),
    (2, 56, 24, 144, 1, 1),
    (1, 56, 144, 144, 3, 1),
    (1, 56, 144, 24, 1, 1),
    (1, 56, 144, 144, 5, 2),
    (1, 28, 144, 40, 1, 1),
    (2, 28, 40, 240, 1, 1),
    (1, 28, 240, 240, 5, 1),
    (1, 28, 240, 40, 1, 1),
    (1, 28, 240, 240, 3, 2),
    (1, 14, 240, 80, 1, 1),
    (3, 14, 80, 480, 1, 1),
    (2, 14, 480, 480, 3, 1),
    (2, 14, 480, 80, 1, 1),
    (1, 14, 480, 480, 5, 1),
    (1, 14, 480, 112, 1, 1),
    (3, 14, 112, 672, 1, 1),
    (2, 14, 672, 672, 5, 1),
    (2, 14, 672, 112, 1, 1),
    (1, 14, 672, 672, 5, 2),
    (1, 7, 672, 192, 1, 1),
    (4, 7, 192, 1152, 1, 1),
    (3, 7, 1152, 1152, 5, 1),
    (3, 7, 1152, 192, 1, 1),
    (1, 7, 1152, 1152, 3, 1),
    (1, 7, 1152, 320, 1, 1),
    (1, 7, 320, 1280, 1, 1),
    (1, 1, 1280, 1000, 1, 1),
];

const RESNET50: [Layer; 21] = [
    (1, 224, 3, 64, 7, 2),
    (1, 56, 64, 64, 1, 1),
    (3, 56, 64, 64, 3, 1),
    (4, 56, 64, 256, 1, 1),
    (2, 56, 256, 64, 1, 1),
    (1, 56, 256, 128, 1, 1),
    (1, 56, 128, 128, 3, 2),
    (4, 28, 128, 512, 1, 1),
    (1, 56, 256, 512, 1, 2),
    (3, 28, 512, 128, 1, 1),
    (3, 28, 128, 128, 3, 1),
    (1, 28, 512, 256, 1, 1),
    (6, 14, 256, 1024, 1, 1),
    (1, 28, 512, 1024, 1, 2),
    (5, 14, 1024, 256, 1, 1),
    (5, 14, 256, 256, 3, 1),
    (1, 14, 1024, 512, 1, 1),
    (3, 7, 512, 2048, 1, 1),
    (1, 14, 1024, 2048, 1, 2),
    (2, 7, 2048, 512, 1, 1),
    (2, 7, 512, 512, 3, 1),
];

fn main() {
    let threads = std::env::args().nth(1).map_or(1, |arg| arg.parse().expect("a number"));
    let part = std::env::args().nth(2).unwrap_or_default();
    let resnet = std::env::args().nth(3).is_some_and(|network| network == "resnet50");
    let layers: &[Layer] = if resnet { &RESNET50 } else { &LITE0 };
    let pool = Pool::new(threads);
    let isa = Isa::from_env().unwrap_or_else(|error| panic!("{error}"));
    let ctx = Ctx { isa, pool: &pool };
    println!("{isa}, {} threads", pool.threads());
    println!(
        "{:28} {:>9} {:>7} {:>9} {:>7} {:>6} {:>9}",
        "layer", "f32 us", "mac/cyc", "i8 us", "mac/cyc", "ratio", "pack us"
    );
    let [mut float_total, mut int_total, mut pack_total] = [Duration::ZERO; 3];
    for (count, size, in_c, out_c, kernel, stride) in layers.iter().copied() {
        let depthwise = kernel > 1 && in_c == out_c && !resnet;
        let shape = ConvShape {
            batch: 1,
            in_h: size,
            in_w: size,
            in_c,
            out_c,
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1; 2],
            pads: [kernel / 2; 4],
            groups: if depthwise { in_c } else { 1 },
        };
        let adds = kernel == 1
            && stride == 1
            && if resnet { out_c == 4 * in_c } else { in_c == 6 * out_c };
        let kind = match (depthwise, adds) {
            (true, _) => "dw",
            (_, true) => "+ ",
            _ => "  ",
        };
        let name =
            format!("{count} x {size:3} {in_c:4} -> {out_c:4} {kernel}x{kernel}/{stride} {kind}");
        if !name.contains(&part) {
            continue;
        }
        let (float, float_cycles) = time_f32(ctx, &shape);
        let (int, int_cycles, pack) = time_i8(ctx, &shape, adds);
        let work = (shape.output_len() * shape.k()) as f64;
        let rate = |cycles: f64| work / cycles;
        println!(
            "{name:28} {:9.1} {:7.1} {:9.1} {:7.1} {:6.2} {:9.1}",
            float.as_nanos() as f64 / 1e3,
            rate(float_cycles),
            int.as_nanos() as f64 / 1e3,
            rate(int_cycles),
            float.as_nanos() as f64 / int.as_nanos() as f64,
            pack.as_nanos() as f64 / 1e3
        );
        float_total += float * count;
        int_total += int * count;
        pack_total += pack * count;
    }
    let ratio = float_total.as_secs_f64() / int_total.as_secs_f64();
    println!(
        "network: f32 {float_total:?}, int8 {int_total:?}, ratio {ratio:.2}, packed in {pack_total:?}"
    );
}

/// The least time of one call, and the least cycles: at least 20 calls and 15 milliseconds.
fn least(mut call: impl FnMut()) -> (Duration, f64) {
    call();
    let (start, mut least, mut cycles, mut calls) = (Instant::now(), Duration::MAX, f64::MAX, 0);
    while calls < 20 || start.elapsed() < Duration::from_millis(15) {
        let before = cycle();
        let start = Instant::now();
        call();
        let time = start.elapsed();
        least = least.min(time);
        // The clock may change meanwhile; the quicker of two says less than it was.
        cycles = cycles.min(time.as_nanos() as f64 / before.min(cycle()));
        calls += 1;
    }
    (least, cycles)
}

/// Nanoseconds of one cycle: by a chain of steps that take 4 each: a disjunction and a multiplication.
fn cycle() -> f64 {
    const STEPS: u32 = 4_000;
    let mut best = f64::MAX;
    for _ in 0..2 {
        let (start, mut x) = (Instant::now(), black_box(3u64));
        for _ in 0..STEPS {
            x = x.wrapping_mul(x | 1);
        }
        black_box(x);
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(4 * STEPS));
    }
    best
}

fn ramp(len: usize) -> impl Iterator<Item = u8> {
    (0..len).map(|i| (i * 37 % 251) as u8)
}

/// Weights spread as those of networks are: by Gauss (nearly: sums of twelve uniform numbers), the
/// greatest of each of the channels of `k` weights at 127.
fn bell(len: usize, k: usize) -> Vec<i8> {
    let mut state = 1u32;
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    };
    let normal: Vec<f32> =
        (0..len).map(|_| (0..12).map(|_| uniform()).sum::<f32>() - 6.0).collect();
    let channels = normal.chunks(k).flat_map(|channel| {
        let most = channel.iter().fold(0.0f32, |most, w| most.max(w.abs()));
        channel.iter().map(move |w| (w / most * 127.0).round() as i8)
    });
    channels.collect()
}

fn time_f32(ctx: Ctx<'_>, shape: &ConvShape) -> (Duration, f64) {
    let input: Vec<f32> = ramp(shape.input_len()).map(|v| f32::from(v) / 64.0).collect();
    let weights: Vec<f32> = ramp(shape.weights_len()).map(|v| f32::from(v) / 128.0 - 1.0).collect();
    let bias = vec![0.5; shape.out_c];
    let packed = PackedConvF32::new(shape, &weights);
    let mut output = vec![0.0; shape.output_len()];
    let clamp = Some(Clamp { lo: 0.0, hi: 6.0 });
    let epilogue = Epilogue { bias: Some(&bias), residual: None, clamp };
    least(|| conv2d_f32(ctx, shape, &input, &packed, epilogue, &mut output))
}

/// Time and cycles of a call, and the time to pack the weights.
fn time_i8(ctx: Ctx<'_>, shape: &ConvShape, adds: bool) -> (Duration, f64, Duration) {
    let input: Vec<u8> = ramp(shape.input_len()).collect();
    let weights = bell(shape.weights_len(), shape.k());
    let bias = vec![5; shape.out_c];
    let multiplier = vec![0.001; shape.out_c];
    let pack = || PackedConvI8::new(ctx.isa, shape, Int8::I8(&weights), WeightZero::None);
    let (packing, _) = least(|| {
        black_box(pack());
    });
    let packed = pack();
    let mut output = vec![0; shape.output_len()];
    let before: Vec<u8> = ramp(shape.output_len()).collect();
    let own = OwnCodes { lo: -120, hi: 135, scale: 0.031, step: 0.043, fused: None };
    let addition =
        Addition { own, signed: false, zero_point: 0, multiplier: 0.027, limits: [0, 255] };
    let own = OwnCodes { fused: FusedAdd::find(ctx.isa, &addition), ..own };
    let residual = Residual {
        values: Int8::U8(&before),
        is_row: false,
        zero_point: 0,
        multiplier: 0.027,
        own: Some(own),
    };
    let to = Requantize {
        bias: Some(&bias),
        multiplier: &multiplier,
        residual: adds.then_some(residual),
        zero_point: 0,
        lo: 0,
        hi: 255,
    };
    let input = ConvInput { values: Int8::U8(&input), zero_point: 3 };
    let (time, cycles) = least(|| {
        conv2d_i8(ctx, shape, input, &packed, Output::Int8(Int8Mut::U8(&mut output), to));
    });
    (time, cycles, packing)
}
