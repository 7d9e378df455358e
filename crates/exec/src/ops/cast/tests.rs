use super::*;
use crate::memory::Arena;
use fewbit_kernels::{Ctx, Isa, Pool};

fn cast(input: Tensor, dtype: DType, saturate: bool) -> Result<Tensor> {
    let (pool, arena, node) = (Pool::single(), Arena::new(), Node::default());
    let kernels = Ctx { isa: Isa::scalar(), pool: &pool };
    let mut ctx = EvalCtx {
        node: &node,
        opset: 24,
        kernels: &kernels,
        arena: &arena,
        subgraphs: None,
        inputs: vec![Some(input)],
    };
    converted(&mut ctx, dtype, Policy { saturate, rounding: e8m0::Rounding::Up })
}

#[test]
fn floats_truncate_and_integers_wrap() {
    let floats = Tensor::vector(&[-1.9f32, 2.9, 300.0, f32::NAN]);
    assert_eq!(cast(floats, DType::I8, true).unwrap().to_i64().unwrap(), [-1, 2, 127, 0]);
    let wide = Tensor::vector(&[257i32, -1, 128]);
    assert_eq!(cast(wide.clone(), DType::U8, true).unwrap().to_i64().unwrap(), [1, 255, 128]);
    assert_eq!(cast(wide, DType::I4, true).unwrap().to_i64().unwrap(), [1, -1, 0]);
}

#[test]
fn large_integers_round_once() {
    let value = (1i64 << 53) + (1 << 29) + 1;
    let out = cast(Tensor::vector(&[value]), DType::F32, true).unwrap();
    assert_eq!(out.to_vec::<f32>().unwrap(), [value as f32]);
    let out = cast(Tensor::vector(&[u64::MAX]), DType::F64, true).unwrap();
    assert_eq!(out.to_vec::<f64>().unwrap(), [u64::MAX as f64]);
}

#[test]
fn halves_round_once() {
    let float = |value: f32, dtype| cast(Tensor::vector(&[value]), dtype, true).unwrap();
    let double = |value: f64, dtype| cast(Tensor::vector(&[value]), dtype, true).unwrap();
    let integer = |value: i64, dtype| cast(Tensor::vector(&[value]), dtype, true).unwrap();
    let tie = 1.0 + 2.0f64.powi(-4) + 2.0f64.powi(-8);
    let cases = [
        (float(tie as f32 + f32::EPSILON, DType::BF16), 1.0703125),
        (float(tie as f32, DType::BF16), 1.0625),
        (float(tie as f32 - f32::EPSILON, DType::BF16), 1.0625),
        (double(tie + f64::EPSILON, DType::BF16), 1.0703125),
        (double(1.0 + 2.0f64.powi(-11) + f64::EPSILON, DType::F16), 1.0 + 2.0f64.powi(-10)),
        (double(1.0 + 2.0f64.powi(-11), DType::F16), 1.0),
        (integer((1 << 62) + (1 << 54) + 1, DType::BF16), 2.0f64.powi(62) + 2.0f64.powi(55)),
        (integer(-(1 << 62) - (1 << 54), DType::BF16), -(2.0f64.powi(62))),
        (integer(2049, DType::F16), 2048.0),
    ];
    for (i, (got, want)) in cases.iter().enumerate() {
        assert_eq!(got.to_f64().unwrap(), [*want], "case {i}");
    }
}

#[test]
fn fp8_saturates_unless_told_not_to() {
    let large = Tensor::vector(&[1e6f32]);
    let saturated = cast(large.clone(), DType::F8E4M3FN, true).unwrap();
    assert_eq!(saturated.to_f32().unwrap(), [448.0]);
    assert!(cast(large, DType::F8E4M3FN, false).unwrap().to_f32().unwrap()[0].is_nan());
}

#[test]
fn text_reads_back() {
    let numbers = Tensor::vector(&[0.5f32, 1e-5, 1e20, f32::INFINITY]);
    let text = cast(numbers.clone(), DType::String, true).unwrap();
    let strings: Vec<_> = text.strings().unwrap().iter().map(|s| s.as_slice()).collect();
    assert_eq!(strings, [b"0.5".as_slice(), b"1e-05", b"1e+20", b"INF"]);
    assert_eq!(cast(text, DType::F32, true).unwrap(), numbers);
    let words = Tensor::from_strings(vec![1], vec![b"seven".to_vec()]).unwrap();
    assert!(cast(words, DType::I64, true).is_err());
}

#[test]
fn every_pair_of_numeric_types_keeps_small_numbers() {
    let odd = [DType::String, DType::C64, DType::C128, DType::F8E8M0];
    let types: Vec<DType> = DType::ALL.iter().copied().filter(|d| !odd.contains(d)).collect();
    for &from in &types {
        for &to in &types {
            let input = Tensor::from_f64(from, vec![3], &[1.0, 0.0, 1.0]).unwrap();
            let out = cast(input, to, true).unwrap();
            assert_eq!(out.to_f64().unwrap(), [1.0, 0.0, 1.0], "{from} to {to}");
        }
    }
}
