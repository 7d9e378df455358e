//! Encodes a file of `f32` rows: `encode FILE COLUMNS [IMPORTANCE]`, with every encoding or the
//! one in `FEWBIT_ENCODING`; prints the relative squared error and the time.

use fewbit_kernels::Isa;
use fewbit_kernels::encode::{Encoding, encode};
use std::time::Instant;

fn floats(path: &str) -> Vec<f32> {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let (x, columns) = (floats(&args[1]), args[2].parse().expect("columns"));
    let importance = args.get(3).map(|path| floats(path));
    let only = std::env::var("FEWBIT_ENCODING").ok();
    for &encoding in Encoding::ALL {
        let name = format!("{encoding:?}");
        if only.as_ref().is_some_and(|only| *only != name) || columns % encoding.elements() != 0 {
            continue;
        }
        let mut out = vec![0; x.len() / encoding.elements() * encoding.bytes()];
        let start = Instant::now();
        let loss = encode(Isa::best(), encoding, &x, columns, importance.as_deref(), &mut out);
        let nanoseconds = start.elapsed().as_secs_f64() * 1e9 / x.len() as f64;
        println!("{name:8} {:.6e} {nanoseconds:.2} ns per element", loss.relative());
    }
}
