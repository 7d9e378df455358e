use super::*;
use crate::memory::Arena;
use fewbit_core::Attr;
use fewbit_kernels::{Ctx, Isa, Pool};

fn resize(node: &Node, opset: i64, inputs: Vec<Option<Tensor>>) -> Result<Tensor> {
    let (pool, arena) = (Pool::single(), Arena::new());
    let kernels = Ctx { isa: Isa::scalar(), pool: &pool };
    let mut ctx =
        EvalCtx { node, opset, kernels: &kernels, arena: &arena, subgraphs: None, inputs };
    Ok(eval(&mut ctx)?.remove(0))
}

fn image() -> Option<Tensor> {
    Some(Tensor::from_slice(vec![1, 1, 1, 4], &[1f32, 2.0, 3.0, 4.0]).unwrap())
}

#[test]
fn codes_are_picked_without_arithmetic() {
    let node = Node { op: "Upsample".into(), ..Default::default() }
        .with("scales", Attr::Floats(vec![1.0, 2.0]));
    let codes = Tensor::from_f64(fewbit_core::DType::I4, vec![1, 3], &[-8.0, 7.0, 1.0]).unwrap();
    let out = resize(&node, 7, vec![Some(codes)]).unwrap();
    assert_eq!(out.to_i64().unwrap(), [-8, -8, 7, 7, 1, 1]);
}

#[test]
fn opset_10_rounds_up_where_it_shrinks() {
    let node = Node { op: "Resize".into(), ..Default::default() };
    let scales = Tensor::vector(&[1f32, 1.0, 1.0, 0.6]);
    let out = resize(&node, 10, vec![image(), Some(scales)]).unwrap();
    assert_eq!(out.to_f32().unwrap(), [1.0, 3.0]);
}

#[test]
fn impossible_sizes_are_refused() {
    let node = Node { op: "Resize".into(), ..Default::default() }
        .with("mode", Attr::String(b"linear".to_vec()));
    let bomb = Tensor::vector(&[1i64, 1, 1 << 30, 1 << 40]);
    assert!(resize(&node, 13, vec![image(), None, None, Some(bomb)]).is_err());
    for scale in [0.0f32, -1.0, f32::NAN, f32::INFINITY, 1e30] {
        let scales = Tensor::vector(&[1f32, 1.0, 1.0, scale]);
        assert!(resize(&node, 13, vec![image(), None, Some(scales), None]).is_err(), "{scale}");
    }
    assert!(resize(&node, 13, vec![image()]).is_err());
    let short = Tensor::vector(&[1i64, 1]);
    assert!(resize(&node, 13, vec![image(), None, None, Some(short)]).is_err());
}
