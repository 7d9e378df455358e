//! Products with block formats against their meaning, and the same bits everywhere.

use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_kernels::blocks::{
    Format, Half, PackedBlocks, PackedHalves, matmul_blocks, matmul_blocks_f32, matmul_halves,
    quantize_activations,
};
use fewbit_kernels::{Ctx, Isa, Pool};

/// Bytes whose binary16 fields are finite and of moderate size, whatever their place.
fn weights(format: Format, blocks: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(step).take(blocks * format.bytes()).collect();
    let scales: &[usize] = match format.name() {
        "Q4_1" | "Q5_1" | "Q4_K" | "Q5_K" => &[0, 2],
        "Q2_K" => &[80, 82],
        "Q3_K" => &[108],
        "Q6_K" => &[208],
        "TQ1_0" => &[52],
        "TQ2_0" => &[64],
        "MXFP4" => &[],
        _ => &[0],
    };
    for block in bytes.chunks_exact_mut(format.bytes()) {
        scales.iter().for_each(|&at| block[at + 1] = block[at + 1] & 0x83 | 0x24);
        if format.name() == "MXFP4" {
            block[0] = block[0] & 7 | 120;
        }
    }
    bytes
}

fn values(len: usize, seed: u32) -> Vec<f32> {
    let value = |i: u32| (i.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 8) as f32;
    (0..len as u32).map(|i| value(i) / 8e6 - 1.0).collect()
}

struct Case {
    format: Format,
    n: usize,
    k: usize,
    tokens: usize,
}

impl Case {
    fn product(&self, isa: Isa, threads: usize) -> Vec<f32> {
        let pool = Pool::new(threads);
        let ctx = Ctx { isa, pool: &pool };
        let bytes = weights(self.format, self.n * self.k / self.format.elements(), 7);
        let packed = PackedBlocks::new(&pool, self.format, self.n, self.k, &bytes);
        let mut out = vec![f32::NAN; self.tokens * self.n];
        matmul_blocks(ctx, &self.activations(), &packed, &mut out);
        out
    }

    fn activations(&self) -> Vec<u8> {
        let pool = Pool::single();
        let ctx = Ctx { isa: Isa::scalar(), pool: &pool };
        let mut blocks = vec![0; self.tokens * self.k / 32 * 34];
        quantize_activations(ctx, &values(self.tokens * self.k, 3), &mut blocks);
        blocks
    }

    /// What the product means, in `f64`, and the sum of the terms' sizes.
    fn meaning(&self) -> Vec<(f64, f64)> {
        let decode = |name: &str, bytes: &[u8], len: usize| {
            let mut out = vec![0.0; len];
            dequantize(BlockType::from_name(name).unwrap(), bytes, &mut out).unwrap();
            out
        };
        let bytes = weights(self.format, self.n * self.k / self.format.elements(), 7);
        let w = decode(self.format.name(), &bytes, self.n * self.k);
        let x = decode("Q8_0", &self.activations(), self.tokens * self.k);
        let dot = |x: &[f32], w: &[f32]| {
            x.iter().zip(w).fold((0.0, 0.0), |(sum, size), (&x, &w)| {
                let term = f64::from(x) * f64::from(w);
                (sum + term, size + term.abs())
            })
        };
        let rows = |x: &[f32]| w.chunks(self.k).map(|w| dot(x, w)).collect::<Vec<_>>();
        x.chunks(self.k).flat_map(rows).collect()
    }
}

#[test]
fn products_mean_what_the_formats_say() {
    for &format in Format::ALL {
        let case = Case { format, n: 37, k: 512, tokens: 3 };
        for (got, (want, size)) in case.product(Isa::best(), 1).iter().zip(case.meaning()) {
            let error = (f64::from(*got) - want).abs();
            assert!(error <= 1e-5 * size, "{format:?}: {got} for {want}");
        }
    }
}

#[test]
fn formats_have_the_sizes_of_ggml() {
    for &format in Format::ALL {
        let ty = BlockType::from_name(format.name()).unwrap();
        assert_eq!((format.elements(), format.bytes()), (ty.elements(), ty.bytes()), "{ty}");
        assert_eq!(Format::named(ty.name()), Some(format));
    }
}

#[test]
fn the_same_bits_everywhere() {
    for &format in Format::ALL {
        for (n, k, tokens) in [(1, 256, 1), (33, 1280, 1), (48, 768, 7), (16, 256, 261)] {
            let case = Case { format, n, k, tokens };
            let want = case.product(Isa::scalar(), 1);
            for isa in Isa::available() {
                for threads in [1, 3] {
                    let got = case.product(isa, threads);
                    let same = got.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{format:?} {n} x {k}, {tokens} tokens, {isa}, {threads}");
                }
            }
        }
    }
}

#[test]
fn many_tokens_are_one_token_many_times() {
    for &format in Format::ALL {
        let many = Case { format, n: 20, k: 512, tokens: 9 };
        let all = many.product(Isa::best(), 2);
        let pool = Pool::single();
        let ctx = Ctx { isa: Isa::best(), pool: &pool };
        let bytes = weights(format, many.n * many.k / format.elements(), 7);
        let packed = PackedBlocks::new(&pool, format, many.n, many.k, &bytes);
        for (x, want) in many.activations().chunks(512 / 32 * 34).zip(all.chunks(many.n)) {
            let mut out = vec![0.0; many.n];
            matmul_blocks(ctx, x, &packed, &mut out);
            assert_eq!(out, want, "{format:?}");
        }
    }
}

#[test]
fn largest_codes_do_not_overflow() {
    for &format in Format::ALL {
        let blocks = 512 / format.elements();
        for fill in [0x00, 0x7f, 0x80, 0xff] {
            let mut bytes = weights(format, blocks, 1);
            let head = if format.name() == "MXFP4" { 1 } else { 2 };
            for block in bytes.chunks_exact_mut(format.bytes()) {
                let scales = block.to_vec();
                block.fill(fill);
                // Put the scales back where `weights` made them harmless.
                let at = match format.name() {
                    "Q4_1" | "Q5_1" | "Q4_K" | "Q5_K" => 0..4,
                    "Q2_K" => 80..84,
                    "Q3_K" => 108..110,
                    "Q6_K" => 208..210,
                    "TQ1_0" => 52..54,
                    "TQ2_0" => 64..66,
                    _ => 0..head,
                };
                block[at.clone()].copy_from_slice(&scales[at]);
            }
            let pool = Pool::single();
            let packed = PackedBlocks::new(&pool, format, 1, 512, &bytes);
            for sign in [1.0, -1.0] {
                let scalar = Ctx { isa: Isa::scalar(), pool: &pool };
                let mut x = vec![0; 512 / 32 * 34];
                quantize_activations(scalar, &[sign; 512], &mut x);
                let mut want = [0.0];
                matmul_blocks(scalar, &x, &packed, &mut want);
                for isa in Isa::available() {
                    let mut out = [0.0];
                    matmul_blocks(Ctx { isa, pool: &pool }, &x, &packed, &mut out);
                    assert_eq!(out, want, "{format:?} {fill:x}");
                }
            }
        }
    }
}

fn decoded(name: &str, bytes: &[u8], len: usize) -> Vec<f32> {
    let mut out = vec![0.0; len];
    dequantize(BlockType::from_name(name).unwrap(), bytes, &mut out).unwrap();
    out
}

/// One running sum with fused multiply-add for each output.
fn running_sums(x: &[f32], w: &[f32], k: usize) -> Vec<u32> {
    let sum = |x: &[f32], w: &[f32]| x.iter().zip(w).fold(0f32, |acc, (x, w)| x.mul_add(*w, acc));
    let rows = |x: &[f32]| w.chunks(k).map(|w| sum(x, w).to_bits()).collect::<Vec<_>>();
    x.chunks(k).flat_map(rows).collect()
}

#[test]
fn float_products_are_those_of_decoded_weights() {
    let (n, k) = (37, 512);
    for &format in Format::ALL {
        for tokens in [1, 7] {
            let bytes = weights(format, n * k / format.elements(), 5);
            let x = values(tokens * k, 9);
            let want = running_sums(&x, &decoded(format.name(), &bytes, n * k), k);
            for isa in Isa::available() {
                let pool = Pool::new(2);
                let packed = PackedBlocks::new(&pool, format, n, k, &bytes);
                let mut out = vec![0.0; tokens * n];
                matmul_blocks_f32(Ctx { isa, pool: &pool }, &x, &packed, &mut out);
                let got: Vec<u32> = out.iter().map(|v| v.to_bits()).collect();
                assert_eq!(got, want, "{format:?}, {isa}, {tokens} tokens");
            }
        }
    }
}

#[test]
fn products_with_16_bit_floats_are_exact_in_the_weights() {
    let (n, k) = (135u32, 1500usize);
    for (half, name) in [(Half::F16, "F16"), (Half::BF16, "BF16")] {
        let bytes: Vec<u8> = (0..n * k as u32 * 2)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 0xbb)
            .collect();
        let n = n as usize;
        for tokens in (1..=9).chain([50]) {
            let x = values(tokens * k, 9);
            let want = running_sums(&x, &decoded(name, &bytes, n * k), k);
            for isa in Isa::available() {
                let pool = Pool::new(3);
                let packed = PackedHalves::new(&pool, half, n, k, &bytes);
                let mut out = vec![0.0; tokens * n];
                matmul_halves(Ctx { isa, pool: &pool }, &x, &packed, &mut out);
                let got: Vec<u32> = out.iter().map(|v| v.to_bits()).collect();
                assert_eq!(got, want, "{name}, {isa}, {tokens} tokens");
            }
        }
    }
}
