//! Times the products with block formats of language models, beside a probe of the memory.
//!
//! `cargo run --release -p fewbit-kernels --example blocks [THREADS [FORMAT [TOKENS [MB]]]]`:
//! for each format, one token (in GB/s of weights, and of the probe just before) and TOKENS of them
//! (in multiply-accumulates per nanosecond). One token reads MB of weights, by default more than a
//! cache holds. `FEWBIT_ISA` chooses the instruction set.

use std::hint::black_box;
use std::time::Instant;

use fewbit_kernels::blocks::{Format, PackedBlocks, matmul_blocks, quantize_activations};
use fewbit_kernels::{Ctx, Isa, Pool};

/// Rows and columns of a matrix as in a model of 1.1 billion weights.
const ROWS: usize = 5632;
const COLUMNS: usize = 2048;

fn main() {
    let mut args = std::env::args().skip(1);
    let threads = args.next().map_or(1, |arg| arg.parse().expect("a number"));
    let wanted = args.next().unwrap_or_default();
    let tokens = args.next().map_or(128, |arg| arg.parse().expect("a number"));
    let mb = args.next().map_or(256, |arg| arg.parse().expect("a number"));
    let pool = Pool::new(threads);
    let isa = Isa::from_env().unwrap_or_else(|error| panic!("{error}"));
    let ctx = Ctx { isa, pool: &pool };
    println!("{isa}, {} threads, {ROWS} x {COLUMNS}, {tokens} tokens", pool.threads());
    println!(
        "{:8} {:>8} {:>8} {:>6} {:>8} {:>9}",
        "format", "GB/s", "probe", "", "MAC/ns", "pack GB/s"
    );
    for &format in Format::ALL.iter().filter(|f| f.name().contains(&wanted)) {
        row(ctx, format, tokens, mb);
    }
}

/// The least of a few runs, in nanoseconds.
fn least(runs: usize, mut body: impl FnMut()) -> f64 {
    let time = |_| {
        let start = Instant::now();
        body();
        start.elapsed().as_nanos() as f64
    };
    (0..runs).map(time).fold(f64::INFINITY, f64::min)
}

/// Reads `words` once with all threads; bytes per nanosecond.
fn probe(ctx: Ctx<'_>, words: &[u64]) -> f64 {
    let nanos = least(5, || {
        ctx.pool.for_each_range(words.len(), words.len().div_ceil(ctx.pool.threads()), |range| {
            let sums = words[range].chunks_exact(16).fold([0u64; 16], |mut sums, chunk| {
                sums.iter_mut().zip(chunk).for_each(|(sum, word)| *sum ^= word);
                sums
            });
            black_box(sums);
        });
    });
    size_of_val(words) as f64 / nanos
}

fn row(ctx: Ctx<'_>, format: Format, tokens: usize, mb: usize) {
    let bytes: Vec<u8> = (0..ROWS * COLUMNS / format.elements() * format.bytes())
        .map(|i| ((i as u32).wrapping_mul(2_654_435_761) >> 24) as u8 & 0x3b)
        .collect();
    // Copies, so that the weights of one token come from memory and not from a cache.
    let copies = ((mb << 20) / bytes.len()).max(1);
    let start = Instant::now();
    let first = PackedBlocks::new(ctx.pool, format, ROWS, COLUMNS, &bytes);
    let pack = bytes.len() as f64 / start.elapsed().as_nanos() as f64;
    let mut weights = vec![first];
    weights.extend((1..copies).map(|_| PackedBlocks::new(ctx.pool, format, ROWS, COLUMNS, &bytes)));
    let x: Vec<f32> = (0..tokens * COLUMNS).map(|i| (i % 101) as f32 - 50.0).collect();
    let mut blocks = vec![0; tokens * COLUMNS / 32 * 34];
    quantize_activations(ctx, &x, &mut blocks);
    let mut out = vec![0.0; tokens * ROWS];
    let words = vec![1u64; (256 << 20) / 8];
    let probe = probe(ctx, &words);
    let one = COLUMNS / 32 * 34;
    let nanos = least(4.max(256 / mb), || {
        for weights in &weights {
            matmul_blocks(ctx, &blocks[..one], weights, &mut out[..ROWS]);
        }
    });
    let speed = (copies * bytes.len()) as f64 / nanos;
    let nanos = least(5, || matmul_blocks(ctx, &blocks, &weights[0], &mut out));
    let macs = (tokens * ROWS * COLUMNS) as f64 / nanos;
    println!(
        "{:8} {speed:8.2} {probe:8.2} {:5.0}% {macs:8.1} {pack:9.2}",
        format.name(),
        100.0 * speed / probe
    );
}
