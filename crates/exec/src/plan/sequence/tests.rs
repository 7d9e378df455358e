//! A network of convolutions on codes, whose middle is a sequence: a block as in MobileNetV2 that
//! adds its input, and a dense convolution.

use super::*;
use crate::def::OpTable;
use crate::memory::Arena;
use crate::plan::build::build;
use crate::plan::scope::Scope;
use crate::{Mode, Session, SessionOptions};
use fewbit_core::{Attr, Dim, Graph, Model, Node, ValueId, ValueType};
use fewbit_kernels::{Ctx, Isa, Pool};

const NARROW: usize = 8;
const WIDE: usize = 80;
const STEP: f32 = 0.05;
const ZERO: u8 = 110;

/// A small deterministic generator of bytes.
fn bytes(seed: usize, len: usize) -> Vec<u8> {
    let mut state = seed as u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as u8
    };
    (0..len).map(next).collect()
}

/// Writes the network, value by value.
struct Writer {
    graph: Graph,
    step: ValueId,
    zero: ValueId,
}

impl Writer {
    fn new() -> Writer {
        let mut graph = Graph::new("blocks");
        let step = graph.add_constant("step", Tensor::scalar(STEP)).unwrap();
        let zero = graph.add_constant("zero", Tensor::scalar(ZERO)).unwrap();
        Writer { graph, step, zero }
    }

    fn value(&mut self, name: &str) -> ValueId {
        self.graph.add_value(name, ValueType::default()).unwrap()
    }

    /// The codes of a value, and the numbers that they stand for.
    fn quantized(&mut self, value: ValueId, name: &str) -> (ValueId, ValueId) {
        let codes = self.value(&format!("{name}.codes"));
        let numbers = self.value(&format!("{name}.numbers"));
        let (step, zero) = (self.step, self.zero);
        self.graph.add_node(Node::new("QuantizeLinear", "", &[value, step, zero], &[codes]));
        self.graph.add_node(Node::new("DequantizeLinear", "", &[codes, step, zero], &[numbers]));
        (codes, numbers)
    }

    /// A convolution with a weight of this shape; `added` is added to its result.
    fn conv(
        &mut self,
        input: ValueId,
        name: &str,
        shape: [usize; 4],
        added: Option<ValueId>,
    ) -> (ValueId, ValueId) {
        let len = shape.iter().product();
        let codes: Vec<i8> = bytes(len, len).into_iter().map(u8::cast_signed).collect();
        let codes = Tensor::from_slice(shape.to_vec(), &codes).unwrap();
        let codes = self.graph.add_constant(format!("{name}.w"), codes).unwrap();
        // Sums of as many terms are some codes.
        let scale = 0.5 / 73.0 / ((shape[1] * shape[2] * shape[3]) as f32).sqrt();
        let scale = self.graph.add_constant(format!("{name}.s"), Tensor::scalar(scale)).unwrap();
        let (weight, sums) = (self.value(&format!("{name}.weight")), self.value(name));
        self.graph.add_node(Node::new("DequantizeLinear", "", &[codes, scale], &[weight]));
        let groups = if shape[1] == 1 { shape[0] } else { 1 };
        let conv = Node::new("Conv", name, &[input, weight], &[sums]);
        let pads = Attr::Ints(vec![shape[2] as i64 / 2; 4]);
        self.graph.add_node(conv.with("group", Attr::Int(groups as i64)).with("pads", pads));
        let Some(added) = added else { return self.quantized(sums, name) };
        let total = self.value(&format!("{name}.total"));
        self.graph.add_node(Node::new("Add", "", &[sums, added], &[total]));
        self.quantized(total, name)
    }
}

/// The network for images of a size, or of any, where nothing can be added. Its outputs are the
/// result of the block, which the last convolution reads as well, and that of the last convolution.
fn network(size: Option<[usize; 2]>) -> Model {
    let mut writer = Writer::new();
    let x = writer.value("x");
    let side = |i: usize| size.map_or(Dim::Named(format!("side {i}")), |size| Dim::Known(size[i]));
    let shape = vec![Dim::Known(1), Dim::Known(NARROW), side(0), side(1)];
    let ty = ValueType { dtype: Some(DType::F32), shape: Some(shape), ..Default::default() };
    writer.graph.set_type(x, ty);
    writer.graph.add_input(x);
    let (_, input) = writer.quantized(x, "input");
    let (_, wide) = writer.conv(input, "expand", [WIDE, NARROW, 1, 1], None);
    let (_, deep) = writer.conv(wide, "depthwise", [WIDE, 1, 3, 3], None);
    let added = size.map(|_| input);
    let (block, narrow) = writer.conv(deep, "project", [NARROW, WIDE, 1, 1], added);
    let (last, _) = writer.conv(narrow, "last", [NARROW, NARROW, 3, 3], None);
    writer.graph.add_output(block);
    writer.graph.add_output(last);
    Model { graph: writer.graph, opsets: vec![(String::new(), 17)], ..Default::default() }
}

fn image(height: usize, width: usize) -> Tensor {
    let values = bytes(height * width, NARROW * height * width);
    let values: Vec<f32> = values.iter().map(|&b| (f32::from(b) - 128.0) / 40.0).collect();
    Tensor::from_slice(vec![1, NARROW, height, width], &values).unwrap()
}

#[test]
fn convolutions_that_follow_each_other_are_one_sequence() {
    let (pool, table, arena) = (Pool::new(2), OpTable::standard(), Arena::new());
    let (model, kernels) = (network(Some([9, 7])), Ctx { isa: Isa::best(), pool: &pool });
    let scope = Scope {
        table: &table,
        opsets: &model.opsets,
        mode: Mode::Integer,
        kernels: &kernels,
        arena: &arena,
    };
    let program = build(model.graph, &scope, &Default::default(), &[]).unwrap().program;
    let [sequence] = program.sequences.as_slice() else { panic!("one sequence") };
    assert_eq!(sequence.steps.len(), 4);
    assert_eq!((sequence.inputs.len(), sequence.kept().count()), (1, 2));
    let ctx = RunCtx { kernels: &kernels, arena: &arena };
    let run = |height, width, channels| {
        let mut values = vec![None; program.slots];
        let codes = Tensor::zeros(DType::U8, vec![1, height, width, channels]).unwrap();
        values[sequence.inputs[0].0] = Some(codes);
        let mut times = Vec::new();
        let ran = sequence.run(&program.steps, &ctx, &mut values, Some(&mut times)).unwrap();
        let written = sequence.kept().filter(|slot| values[*slot].is_some()).count();
        (ran, written, times.len())
    };
    assert_eq!(run(9, 7, NARROW), (true, 2, 4));
    assert_eq!(run(6, 5, NARROW), (true, 2, 4));
    // The step that cannot compute with that says so.
    assert_eq!(run(9, 7, NARROW + 1), (false, 0, 0));
    assert_eq!(run(0, 7, NARROW), (false, 0, 0));
}

/// Checks `Integer` against `Simulate` for images of these sizes one after another, on three threads
/// at once.
fn check(model: &Model, sizes: &[[usize; 2]]) {
    let simulate = Session::new(model, &SessionOptions::new(Mode::Simulate).threads(1)).unwrap();
    for threads in 1..=3 {
        let options = SessionOptions::new(Mode::Integer).threads(threads);
        let session = Session::new(model, &options).unwrap();
        let check = || {
            for &[height, width] in sizes {
                let x = image(height, width);
                let found = session.run(&[("x", x.clone())]).unwrap();
                assert_eq!(found, simulate.run(&[("x", x)]).unwrap(), "{threads} threads");
                let codes = found[1].1.to_i64().unwrap();
                assert!(codes.iter().any(|&code| code > 0 && code < 255), "{codes:?}");
            }
        };
        check();
        std::thread::scope(|scope| (0..3).for_each(|_| _ = scope.spawn(check)));
    }
}

#[test]
fn sequences_compute_what_the_graph_says() {
    check(&network(Some([9, 7])), &[[9, 7]; 20]);
    check(&network(None), &[[9, 7], [6, 5], [9, 7], [20, 3]]);
}

#[test]
fn values_within_a_sequence_are_watched() {
    let (model, x) = (network(Some([9, 7])), image(9, 7));
    let watched = |mode: Mode| {
        let mut options = SessionOptions::new(mode).threads(2);
        options.taps.insert("depthwise.codes".to_string());
        let (session, mut seen) = (Session::new(&model, &options).unwrap(), Vec::new());
        let out = session.run_tapped(&[("x", x.clone())], &mut |event| {
            seen.push(event.to_onnx_layout()?);
            Ok(())
        });
        (out.unwrap(), seen)
    };
    let (expected, found) = (watched(Mode::Simulate), watched(Mode::Integer));
    assert_eq!(found, expected);
    assert_eq!(found.1.len(), 1);
}

#[test]
fn each_convolution_of_a_sequence_has_a_time_of_its_own() {
    let mut options = SessionOptions::new(Mode::Integer).threads(2);
    options.profile = true;
    let session = Session::new(&network(Some([9, 7])), &options).unwrap();
    session.run(&[("x", image(9, 7))]).unwrap();
    let profile = session.profile();
    let macs = |node: &str| {
        let line = profile.iter().find(|line| line.first == node).unwrap();
        assert!(line.nanoseconds > 0, "{node}");
        line.macs
    };
    let pixels = 9 * 7;
    let expected = [pixels * NARROW * WIDE, pixels * 9 * WIDE, pixels * 9 * NARROW * NARROW];
    assert_eq!(["expand", "depthwise", "last"].map(macs), expected.map(|macs| macs as u64));
}
