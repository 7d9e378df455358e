//! `DequantizeBlocks` and `QuantizeBlocks` by the definition of the formats.

use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_core::{Attr, DType, Error, Node, Result, Tensor};
use fewbit_exec::{Arena, EvalCtx, OpTable};
use fewbit_kernels::{Ctx, Isa, Pool};

fn eval(name: &str, ty: &str, input: Tensor) -> Result<Tensor> {
    let node = Node { op: name.into(), domain: "ai.fewbit".into(), ..Default::default() }
        .with("type", Attr::String(ty.into()));
    let (pool, arena, table) = (Pool::new(2), Arena::new(), OpTable::standard());
    let kernels = Ctx { isa: Isa::best(), pool: &pool };
    let def = table.of(&node).ok_or_else(|| Error::unsupported(node.op.clone()))?;
    let mut ctx = EvalCtx {
        node: &node,
        opset: 1,
        kernels: &kernels,
        arena: &arena,
        subgraphs: None,
        inputs: vec![Some(input)],
    };
    Ok((def.eval)(&mut ctx)?.remove(0))
}

/// Bytes whose binary16 fields are all finite.
fn bytes(len: usize) -> Vec<u8> {
    (0..len as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 0x3b).collect()
}

#[test]
fn every_format_is_decoded_by_rows() {
    for &ty in BlockType::ALL {
        let row = ty.bytes() * 3;
        let data = bytes(row * 40);
        let mut want = vec![0.0; ty.elements() * 3 * 40];
        dequantize(ty, &data, &mut want).unwrap();
        let input = Tensor::from_slice(vec![2, 20, row], &data).unwrap();
        let got = eval("DequantizeBlocks", ty.name(), input).unwrap();
        assert_eq!(got.shape(), [2, 20, ty.elements() * 3], "{ty}");
        assert_eq!(got.as_slice::<f32>().unwrap(), want, "{ty}");
    }
}

#[test]
fn activations_come_back_within_a_step() {
    let values: Vec<f32> = (0..4 * 96).map(|i| ((i * 37) % 101) as f32 - 50.0).collect();
    let input = Tensor::from_slice(vec![4, 96], &values).unwrap();
    let blocks = eval("QuantizeBlocks", "Q8_0", input).unwrap();
    assert_eq!((blocks.dtype(), blocks.shape()), (DType::U8, &[4, 102][..]));
    let back = eval("DequantizeBlocks", "Q8_0", blocks).unwrap();
    for (a, b) in back.as_slice::<f32>().unwrap().iter().zip(&values) {
        assert!((a - b).abs() <= 0.25, "{b} became {a}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let rows = |len: usize| Tensor::from_slice(vec![len], &vec![0u8; len]).unwrap();
    assert!(eval("DequantizeBlocks", "Q4_0", rows(17)).is_err());
    assert!(eval("DequantizeBlocks", "Q9", rows(18)).is_err());
    assert!(eval("DequantizeBlocks", "Q4_0", Tensor::scalar(0u8)).is_err());
    let floats = |len: usize| Tensor::from_slice(vec![len], &vec![0f32; len]).unwrap();
    assert!(eval("DequantizeBlocks", "Q4_0", floats(18)).is_err());
    assert!(eval("QuantizeBlocks", "Q8_0", floats(33)).is_err());
    assert!(eval("QuantizeBlocks", "Q4_0", floats(32)).is_err());
}
