//! Operators on codes (`QLinearConv`, ONNX Runtime's `QLinearAdd` and their like) on the integer
//! kernels: what the operators' own evaluation gives, which runs where a scale is computed.

use fewbit_core::{Attr, DType, Graph, Model, Node, Tensor, ValueId, ValueType};
use fewbit_exec::{Mode, NodePlan, Session, SessionOptions};

const MICROSOFT: &str = "com.microsoft";

fn codes(dtype: DType, shape: &[usize], seed: usize) -> Tensor {
    let (low, high) = dtype.int_range().unwrap();
    let span = (high - low + 1) as usize;
    let value = |i: usize| ((i * 53 + i * i / 7 + seed) % span) as f64 + low as f64;
    let values: Vec<f64> = (0..shape.iter().product()).map(value).collect();
    Tensor::from_f64(dtype, shape.to_vec(), &values).unwrap()
}

/// The code `code` of `u8`, or the one as far from the lowest of `i8`.
fn zero(dtype: DType, code: i32) -> Tensor {
    let low = if dtype == DType::I8 { -128 } else { 0 };
    Tensor::from_f64(dtype, vec![], &[f64::from(code + low)]).unwrap()
}

fn scale(value: f32) -> Tensor {
    Tensor::scalar(value)
}

/// Scales without a pattern, one for each channel.
fn scales(count: usize, unit: f32) -> Tensor {
    Tensor::vector(&(0..count).map(|i| unit * (1.0 + (i * 7 % 5) as f32 / 3.0)).collect::<Vec<_>>())
}

fn bias(count: usize) -> Tensor {
    Tensor::vector(&(0..count).map(|i| (i as i32 * 977) % 4001 - 2000).collect::<Vec<_>>())
}

/// An input of a node.
#[derive(Clone)]
enum Input {
    /// Codes that the model is given.
    Given(Tensor),
    Constant(Tensor),
    /// The scale of the output: constant, or given so that the operator evaluates itself.
    Scale(f32),
    Absent,
}
use Input::{Absent, Constant, Given, Scale};

struct Case {
    node: Node,
    inputs: Vec<Input>,
    /// The operator that it becomes, and its kernel.
    op: &'static str,
    kernel: &'static str,
}

fn case(op: &str, inputs: Vec<Input>, becomes: (&'static str, &'static str)) -> Case {
    let domain = if matches!(op, "QLinearConv" | "QLinearMatMul") { "" } else { MICROSOFT };
    let node =
        Node { op: op.into(), name: "node".into(), domain: domain.into(), ..Default::default() };
    Case { node, inputs, op: becomes.0, kernel: becomes.1 }
}

impl Case {
    fn with(mut self, name: &str, attr: Attr) -> Case {
        self.node.set_attr(name, attr);
        self
    }

    /// The model with what it is given; its scale is given too where it does not stay constant.
    fn model(&self, is_constant: bool) -> (Model, Vec<(String, Tensor)>) {
        let mut graph = Graph::new("net");
        let mut given = Vec::new();
        let mut node = self.node.clone();
        for (index, input) in self.inputs.iter().enumerate() {
            let name = format!("x{index}");
            let (tensor, is_given) = match input {
                Absent => {
                    node.inputs.push(None);
                    continue;
                }
                Given(tensor) => (tensor.clone(), true),
                Constant(tensor) => (tensor.clone(), false),
                Scale(value) => (scale(*value), !is_constant),
            };
            let value = graph.add_value(name.clone(), ValueType::of(&tensor)).unwrap();
            node.inputs.push(Some(value));
            match is_given {
                true => {
                    graph.add_input(value);
                    given.push((name, tensor));
                }
                false => graph.set_constant(value, tensor),
            }
        }
        let output = graph.add_value("y", ValueType::default()).unwrap();
        node.outputs.push(Some(output));
        graph.add_node(node);
        graph.add_output(output);
        (model(graph), given)
    }

    fn run(&self, is_constant: bool, mode: Mode) -> (Tensor, Vec<NodePlan>) {
        let (model, given) = self.model(is_constant);
        run(&model, &given, mode)
    }
}

fn model(graph: Graph) -> Model {
    let opsets = vec![(String::new(), 17), (MICROSOFT.to_string(), 1)];
    let model = Model { graph, opsets, ..Default::default() };
    model.graph.verify(None).unwrap();
    model
}

fn run(model: &Model, given: &[(String, Tensor)], mode: Mode) -> (Tensor, Vec<NodePlan>) {
    let session = Session::new(model, &SessionOptions::new(mode).threads(2)).unwrap();
    let inputs: Vec<(&str, Tensor)> = given.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
    (session.run(&inputs).unwrap().remove(0).1, session.plan().to_vec())
}

/// The most that codes differ, and how many of them do.
fn difference(a: &Tensor, b: &Tensor) -> (i64, usize) {
    assert_eq!((a.dtype(), a.shape()), (b.dtype(), b.shape()));
    let pairs = a.to_i64().unwrap().into_iter().zip(b.to_i64().unwrap());
    let off: Vec<i64> = pairs.map(|(a, b)| (a - b).abs()).filter(|&d| d > 0).collect();
    (off.iter().copied().max().unwrap_or(0), off.len())
}

fn convolutions(dtype: DType) -> Vec<Case> {
    let y = |code: i32| Constant(zero(dtype, code));
    let x = |shape: &[usize]| {
        [Given(codes(dtype, shape, 3)), Constant(scale(0.05)), Constant(zero(dtype, 117))]
    };
    let conv = |x: [Input; 3], w: [Input; 3], step: f32, rest: Vec<Input>, kernel| {
        let inputs = x.into_iter().chain(w).chain([Scale(step), y(90)]).chain(rest).collect();
        case("QLinearConv", inputs, ("Conv", kernel))
    };
    let w = |dtype, shape: &[usize]| Constant(codes(dtype, shape, 31));
    let zeros = Constant(Tensor::vector(&[0i8; 6]));
    let image = [1, 4, 9, 8];
    let per_channel = [w(DType::I8, &[6, 4, 3, 3]), Constant(scales(6, 0.01)), zeros.clone()];
    let one_zero = Constant(zero(DType::I8, 128));
    let odd = [w(DType::I8, &[6, 4, 3, 3]), Constant(scales(6, 0.01)), one_zero.clone()];
    let unsigned = Constant(zero(DType::U8, 100));
    let whole = [w(DType::U8, &[5, 4, 1, 1]), Constant(scale(0.02)), unsigned];
    let deep = [w(DType::I8, &[4, 1, 3, 3]), Constant(scales(4, 0.02)), one_zero.clone()];
    let line = [w(DType::I8, &[3, 4, 3]), Constant(scale(0.02)), one_zero];
    let biased = |count| vec![Constant(bias(count))];
    vec![
        conv(x(&image), per_channel, 0.9, biased(6), "conv_i8")
            .with("pads", Attr::Ints(vec![1, 0, 1, 2]))
            .with("strides", Attr::Ints(vec![2, 1])),
        conv(x(&image), odd, 0.9, vec![], "conv_i8"),
        conv(x(&image), whole, 0.6, vec![], "conv_i8"),
        conv(x(&image), deep, 0.3, biased(4), "dwconv_i8").with("group", Attr::Int(4)),
        conv(x(&[2, 4, 21]), line, 0.4, biased(3), "conv_i8"),
    ]
}

fn products(dtype: DType) -> Vec<Case> {
    let y = || [Scale(1.3), Constant(zero(dtype, 110))];
    let a = |shape: &[usize]| {
        [Given(codes(dtype, shape, 3)), Constant(scale(0.05)), Constant(zero(dtype, 117))]
    };
    let join = |parts: [Vec<Input>; 3]| parts.concat();
    let b = |shape: &[usize], scales| {
        vec![Constant(codes(DType::I8, shape, 9)), Constant(scales), Constant(zero(DType::I8, 128))]
    };
    let computed =
        vec![Given(codes(dtype, &[2, 7, 6], 8)), Constant(scale(0.06)), Constant(zero(dtype, 99))];
    let gemm = ("Gemm", "gemm_i8");
    let turned = Attr::Int(1);
    let row = Constant(bias(6).reshape(vec![1, 6]).unwrap());
    let biased = |bias: Input, y: Vec<Input>| [vec![bias], y].concat();
    let matrix = a(&[5, 7]).to_vec();
    vec![
        case(
            "QLinearMatMul",
            join([a(&[2, 5, 7]).to_vec(), b(&[7, 6], scales(6, 0.02)), y().to_vec()]),
            ("MatMul", "gemm_i8"),
        ),
        case(
            "QLinearMatMul",
            join([a(&[2, 5, 7]).to_vec(), computed, y().to_vec()]),
            ("MatMul", "matmul_i8"),
        ),
        case(
            "QGemm",
            join([
                matrix.clone(),
                b(&[6, 7], scales(6, 0.02)),
                biased(Constant(bias(6)), y().to_vec()),
            ]),
            gemm,
        )
        .with("transB", turned),
        case(
            "QGemm",
            join([matrix.clone(), b(&[7, 6], scale(0.03)), biased(row, y().to_vec())]),
            gemm,
        ),
        case("QGemm", join([matrix, b(&[7, 6], scale(0.03)), biased(Absent, y().to_vec())]), gemm),
    ]
}

fn elementwise(dtype: DType) -> Vec<Case> {
    let x = |shape: &[usize], unit: f32| {
        vec![Given(codes(dtype, shape, 5)), Constant(scale(unit)), Constant(zero(dtype, 120))]
    };
    let y = |step: f32| vec![Scale(step), Constant(zero(dtype, 100))];
    let two = |step| [x(&[2, 3, 4], 0.05), x(&[3, 1], 0.03), y(step)].concat();
    let bare = vec![Given(codes(dtype, &[4], 1)), Constant(scale(0.02)), Absent];
    let one = |step: f32| [x(&[2, 3, 11], 0.05), y(step)].concat();
    let table = |op| (op, "table_i8");
    vec![
        case("QLinearAdd", two(0.07), ("Add", "add_i8")),
        case(
            "QLinearAdd",
            [x(&[3, 4], 0.05), bare, vec![Scale(0.1), Absent]].concat(),
            ("Add", "add_i8"),
        ),
        case("QLinearMul", two(0.09), ("Mul", "mul_i8")),
        case("QLinearSigmoid", one(0.004), table("Sigmoid")),
        case("QLinearLeakyRelu", one(0.03), table("LeakyRelu")).with("alpha", Attr::Float(0.2)),
        case(
            "QLinearConcat",
            [y(0.04), x(&[2, 3], 0.05), x(&[2, 2], 0.04)].concat(),
            ("Concat", "concat_i8_requantize"),
        )
        .with("axis", Attr::Int(-1)),
    ]
}

/// Those that round a sum on the way, and so may part by one code in a tie.
fn with_sums(dtype: DType) -> Vec<Case> {
    let x = |shape: &[usize]| {
        vec![Given(codes(dtype, shape, 5)), Constant(scale(0.05)), Constant(zero(dtype, 120))]
    };
    let y = |step: f32| vec![Scale(step), Constant(zero(dtype, 0))];
    let image = |step: f32| [x(&[2, 5, 7, 7]), y(step)].concat();
    vec![
        case(
            "QLinearGlobalAveragePool",
            image(0.017),
            ("GlobalAveragePool", "GlobalAveragePool_i8"),
        )
        .with("channels_last", Attr::Int(0)),
        case("QLinearAveragePool", image(0.043), ("AveragePool", "AveragePool_i8"))
            .with("kernel_shape", Attr::Ints(vec![3, 2]))
            .with("pads", Attr::Ints(vec![1, 0, 1, 1]))
            .with("count_include_pad", Attr::Int(1)),
        case("QLinearSoftmax", [x(&[3, 20]), y(1.0 / 256.0)].concat(), ("Softmax", "Softmax"))
            .with("axis", Attr::Int(-1))
            .with("opset", Attr::Int(17)),
    ]
}

/// Checks the kernel, and that the modes agree; returns what the operator gives, in integers and by
/// its own evaluation.
fn check(case: &Case) -> (Tensor, Tensor) {
    let op = &case.node.op;
    let (integer, plan) = case.run(true, Mode::Integer);
    let line = plan.iter().find(|line| line.node == "node").unwrap();
    assert_eq!((line.op.as_str(), line.kernel.as_str()), (case.op, case.kernel), "{op}: {plan:?}");
    assert_eq!(line.integer, case.op != "Softmax", "{op}");
    for mode in [Mode::Simulate, Mode::Float] {
        assert_eq!(case.run(true, mode).0, integer, "{op} {mode:?}");
    }
    let (own, plan) = case.run(false, Mode::Integer);
    assert_eq!(&plan[0].op, op, "a computed scale");
    (integer, own)
}

#[test]
fn exact_operators_give_the_same_codes() {
    for dtype in [DType::U8, DType::I8] {
        let cases = [convolutions(dtype), products(dtype), elementwise(dtype)];
        for case in cases.into_iter().flatten() {
            let (integer, own) = check(&case);
            let spread = integer.to_i64().unwrap();
            assert!(spread.iter().min() != spread.iter().max(), "{}: one code", case.node.op);
            assert_eq!(difference(&integer, &own), (0, 0), "{} {dtype}", case.node.op);
        }
    }
}

#[test]
fn operators_that_round_sums_give_codes_as_near_as_a_tie() {
    for dtype in [DType::U8, DType::I8] {
        for case in with_sums(dtype) {
            let (integer, own) = check(&case);
            let (most, count) = difference(&integer, &own);
            assert!(most <= 1 && count * 50 <= own.len(), "{} {dtype}: {count}", case.node.op);
        }
    }
}

#[test]
fn a_gemm_without_an_output_scale_gives_numbers() {
    let a = [Given(codes(DType::U8, &[5, 7], 3)), Constant(scale(0.05)), Absent];
    let b = [Constant(codes(DType::I8, &[7, 6], 9)), Constant(scales(6, 0.02)), Absent];
    let inputs = [a.to_vec(), b.to_vec(), vec![Constant(bias(6))]].concat();
    let case = case("QGemm", inputs, ("Gemm", "gemm_i8_f32"));
    let (numbers, plan) = case.run(true, Mode::Integer);
    assert_eq!(plan.iter().find(|line| line.node == "node").unwrap().kernel, case.kernel);
    assert_eq!(numbers.dtype(), DType::F32);
    assert_eq!(case.run(true, Mode::Simulate).0, numbers);
    let computed = Case { inputs: case.inputs.clone(), ..case };
    let own = {
        let mut given = computed;
        given.inputs[1] = Scale(0.05);
        given.run(false, Mode::Integer).0.to_f32().unwrap()
    };
    for (found, own) in numbers.to_f32().unwrap().into_iter().zip(own) {
        assert!((found - own).abs() <= 1e-5 * own.abs().max(1.0), "{found} {own}");
    }
}

/// What the operators on numbers have no word for stays as it is.
#[test]
fn what_cannot_be_said_otherwise_stays() {
    let x = |shape: &[usize]| {
        vec![Given(codes(DType::U8, shape, 5)), Constant(scale(0.05)), Constant(zero(DType::U8, 9))]
    };
    let y = vec![Scale(0.1), Constant(zero(DType::U8, 3))];
    let w =
        |shape: &[usize]| vec![Constant(codes(DType::I8, shape, 5)), Constant(scale(0.05)), Absent];
    let last = Attr::Int(1);
    let own = |op: &str, inputs: Vec<Vec<Input>>| case(op, inputs.concat(), ("", ""));
    let softmax = own("QLinearSoftmax", vec![x(&[2, 3, 4]), y.clone()]);
    let cases = [
        own("QLinearGlobalAveragePool", vec![x(&[1, 4, 4, 3]), y.clone()])
            .with("channels_last", last.clone()),
        softmax.with("axis", Attr::Int(1)).with("opset", Attr::Int(11)),
        own("QLinearConv", vec![x(&[1, 2, 4, 4, 4]), w(&[3, 2, 2, 2, 2]), y.clone()]),
        own("QGemm", vec![x(&[3, 4]), w(&[4, 5]), vec![Absent], y.clone()])
            .with("alpha", Attr::Float(0.5)),
        own("QGemm", vec![x(&[4, 3]), w(&[4, 5]), vec![Absent], y.clone()]).with("transA", last),
        own("QLinearMatMul", vec![x(&[2, 3, 4]), w(&[2, 4, 5]), y]),
    ];
    for case in cases {
        let (found, plan) = case.run(true, Mode::Integer);
        assert_eq!(plan[0].op, case.node.op);
        assert_eq!(found, case.run(false, Mode::Integer).0);
    }
}

/// A residual block as ONNX Runtime writes it: no ReLU, since the codes end at its 0.
fn block() -> (Model, ValueId) {
    let mut graph = Graph::new("block");
    let input = graph.add_value("x", ValueType::fixed(DType::U8, &[1, 8, 10, 10])).unwrap();
    graph.add_input(input);
    let mut count = 0;
    let mut constant = |graph: &mut Graph, tensor: Tensor| {
        count += 1;
        graph.add_constant(format!("c{count}"), tensor).unwrap()
    };
    let unit = constant(&mut graph, scale(0.05));
    let none = constant(&mut graph, Tensor::scalar(0u8));
    let w = constant(&mut graph, codes(DType::I8, &[8, 8, 3, 3], 7));
    let w_scale = constant(&mut graph, scales(8, 0.01));
    let w_zero = constant(&mut graph, Tensor::vector(&[0i8; 8]));
    let b = constant(&mut graph, bias(8));
    let step = constant(&mut graph, scale(0.4));
    let convolve = |graph: &mut Graph, name: &str, x: ValueId, x_scale: ValueId| {
        let y = graph.add_value(format!("{name}_y"), ValueType::default()).unwrap();
        let inputs = [x, x_scale, none, w, w_scale, w_zero, step, none, b];
        let pads = Attr::Ints(vec![1; 4]);
        graph.add_node(Node::new("QLinearConv", name, &inputs, &[y]).with("pads", pads));
        y
    };
    let first = convolve(&mut graph, "first", input, unit);
    let second = convolve(&mut graph, "second", first, step);
    let sum = graph.add_value("sum", ValueType::default()).unwrap();
    let inputs = [second, step, none, first, step, none, step, none];
    let add = Node::new("QLinearAdd", "add", &inputs, &[sum]);
    graph.add_node(Node { domain: MICROSOFT.into(), ..add });
    let third = convolve(&mut graph, "third", sum, step);
    graph.add_output(third);
    (model(graph), first)
}

#[test]
fn a_residual_block_runs_as_one_in_the_wording_of_numbers() {
    let (model, first) = block();
    let given = [("x".to_string(), codes(DType::U8, &[1, 8, 10, 10], 3))];
    let (integer, plan) = run(&model, &given, Mode::Integer);
    let of = |name: &str| plan.iter().find(|line| line.node == name).unwrap();
    assert_eq!(of("second").kernel, "conv_i8_add");
    assert_eq!(of("add").kernel, "in Conv \"second\"");
    assert!(plan.iter().all(|line| line.integer), "{plan:?}");
    assert_eq!(run(&model, &given, Mode::Simulate).0, integer);
    // The codes of a value that somebody looks at stay what they are.
    let mut watched = model.clone();
    watched.graph.add_output(first);
    assert_eq!(run(&watched, &given, Mode::Integer).0, integer);
    // No ReLU stands in the graph: a mode that skipped the codes would compute another network.
    assert_eq!(run(&model, &given, Mode::Float).0, integer);
}
