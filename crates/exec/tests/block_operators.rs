//! `DequantizeBlocks` and `QuantizeBlocks` by the definition of the formats.

use fewbit_core::codec::block::{BlockType, dequantize};
use fewbit_core::{
    Attr, DType, Dim, Error, Graph, Model, Node, Result, Tensor, ValueId, ValueType,
};
use fewbit_exec::{Arena, EvalCtx, Mode, OpTable, Session, SessionOptions};
use fewbit_kernels::blocks::Format;
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
    assert!(eval("QuantizeBlocks", "Q4_1", floats(32)).is_err());
}

/// `y = x @ transpose(decoded weight)`, with `x` in blocks of 8 bits where `quantized`.
fn product(ty: BlockType, data: &[u8], n: usize, k: usize, quantized: bool) -> Model {
    let mut g = Graph::new("product");
    let ours = |g: &mut Graph, op: &str, ty: &str, from: ValueId, to: &str| {
        let out = g.add_value(to, ValueType::default()).unwrap();
        let node = Node { domain: "ai.fewbit".into(), ..Node::new(op, to, &[from], &[out]) };
        g.add_node(node.with("type", Attr::String(ty.into())));
        out
    };
    let dims = vec![Dim::Named("tokens".into()), Dim::Known(k)];
    let mut x = g.add_value("x", ValueType::tensor(DType::F32, dims)).unwrap();
    g.add_input(x);
    if quantized {
        let codes = ours(&mut g, "QuantizeBlocks", "Q8_0", x, "codes");
        x = ours(&mut g, "DequantizeBlocks", "Q8_0", codes, "numbers");
    }
    let w = Tensor::from_slice(vec![n, data.len() / n], data).unwrap();
    let w = g.add_constant("w", w).unwrap();
    let decoded = ours(&mut g, "DequantizeBlocks", ty.name(), w, "decoded");
    let [turned, y] = ["turned", "y"].map(|v| g.add_value(v, ValueType::default()).unwrap());
    let turn = Node::new("Transpose", "turn", &[decoded], &[turned]);
    g.add_node(turn.with("perm", Attr::Ints(vec![1, 0])));
    g.add_node(Node::new("MatMul", "multiply", &[x, turned], &[y]));
    g.add_output(y);
    let opsets = vec![(String::new(), 17), ("ai.fewbit".into(), 1)];
    Model { graph: g, opsets, ..Default::default() }
}

/// The output, and the kernel of the product.
fn run(model: &Model, mode: Mode, x: &Tensor) -> (Vec<f32>, String) {
    let session = Session::new(model, &SessionOptions::new(mode)).unwrap();
    let line = session.plan().iter().find(|line| line.op == "MatMul").unwrap().kernel.clone();
    let y = session.run(&[("x", x.clone())]).unwrap().remove(0).1;
    (y.to_f32().unwrap(), line)
}

#[test]
fn products_with_blocks_mean_the_same_in_every_mode() {
    let (n, k) = (21, 512);
    for &ty in BlockType::ALL.iter().filter(|ty| ty.dtype().is_none_or(|d| d == DType::F16)) {
        let data = bytes(n * ty.row_bytes(k).unwrap());
        let values: Vec<f32> = (0..3 * k).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        let x = Tensor::from_slice(vec![3, k], &values).unwrap();
        let mut w = vec![0.0; n * k];
        dequantize(ty, &data, &mut w).unwrap();
        let sum = |x: &[f32], w: &[f32]| x.iter().zip(w).fold(0f32, |s, (x, w)| x.mul_add(*w, s));
        let rows = |x: &[f32]| w.chunks(k).map(|w| sum(x, w)).collect::<Vec<_>>();
        let expected: Vec<f32> = values.chunks(k).flat_map(rows).collect();
        let model = product(ty, &data, n, k, true);
        let same = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| a == b || a.is_nan());
        assert!(same(&run(&model, Mode::Float, &x).0, &expected), "{ty}");
        let (simulated, _) = run(&model, Mode::Simulate, &x);
        let (integer, kernel) = run(&model, Mode::Integer, &x);
        assert_eq!(kernel.contains("_int8"), Format::named(ty.name()).is_some(), "{ty}: {kernel}");
        let largest = simulated.iter().fold(0f32, |a, b| a.max(b.abs()));
        for (a, b) in simulated.iter().zip(&integer) {
            assert!((a - b).abs() <= largest * 1e-5, "{ty}: {a} and {b}");
        }
        // Weights only: float activations in every mode.
        let weights_only = product(ty, &data, n, k, false);
        assert!(same(&run(&weights_only, Mode::Integer, &x).0, &expected), "{ty}");
    }
}

#[test]
fn codes_from_elsewhere_mean_the_same_in_every_mode() {
    // -128, which quantized activations never are, times -128.
    let block = [&[0x00, 0x3c][..], &[0x80; 32]].concat();
    let mut model = product(BlockType::Q8_0, &block.repeat(2), 1, 64, true);
    let g = &mut model.graph;
    let codes = g.add_value("other", ValueType::fixed(DType::U8, &[1, 68])).unwrap();
    g.add_input(codes);
    let [numbers, y] = ["numbers of other", "y of other"]
        .map(|name| g.add_value(name, ValueType::default()).unwrap());
    let decode = Node::new("DequantizeBlocks", "decode", &[codes], &[numbers]);
    let decode = Node { domain: "ai.fewbit".into(), ..decode };
    g.add_node(decode.with("type", Attr::String("Q8_0".into())));
    let weight = g.find_value("turned").unwrap();
    g.add_node(Node::new("MatMul", "multiply other", &[numbers, weight], &[y]));
    g.add_output(y);
    let x = Tensor::from_slice(vec![1, 64], &[0f32; 64]).unwrap();
    let codes = Tensor::from_slice(vec![1, 68], &block.repeat(2)).unwrap();
    for mode in [Mode::Float, Mode::Simulate, Mode::Integer] {
        let session = Session::new(&model, &SessionOptions::new(mode)).unwrap();
        let y = session.run(&[("x", x.clone()), ("other", codes.clone())]).unwrap().remove(1).1;
        assert_eq!(y.to_f32().unwrap(), [64.0 * 128.0 * 128.0], "{mode:?}");
    }
}
