//! Models that were made to do harm, through the whole program: a documented exit code, no
//! panic, nothing written where it was not asked for.

mod process;

use fewbit::formats::atomic::OutputOptions;
use fewbit::formats::data::npz;
use fewbit::formats::onnx::{self, WriteOptions};
use fewbit::{Attr, DType, Graph, Model, Node, Tensor, ValueType};
use process::{Ran, fewbit, names, run};
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::tempdir;

fn save(graph: Graph, path: &Path) -> String {
    let opsets = vec![(String::new(), 21)];
    let model = Model { graph, ir_version: 10, opsets, ..Default::default() };
    onnx::write(&model, path, &WriteOptions::default()).unwrap();
    path.display().to_string()
}

/// Nodes in a row from `x` of the shape, each with constants behind its first input.
fn chain(shape: &[usize], nodes: Vec<(Node, Vec<Tensor>)>) -> Graph {
    let mut graph = Graph::new("g");
    let mut last = graph.add_value("x", ValueType::fixed(DType::F32, shape)).unwrap();
    graph.add_input(last);
    for (position, (mut node, constants)) in nodes.into_iter().enumerate() {
        let constant = |(i, t)| graph.add_constant(format!("c{position}_{i}"), t).unwrap();
        let constants: Vec<_> = constants.into_iter().enumerate().map(constant).collect();
        node.inputs = [last].into_iter().chain(constants).map(Some).collect();
        last = graph.add_value(format!("v{position}"), ValueType::default()).unwrap();
        node.outputs = vec![Some(last)];
        graph.add_node(node);
    }
    graph.add_output(last);
    graph
}

fn op(name: &str) -> Node {
    Node { op: name.to_string(), name: format!("the {name}"), ..Default::default() }
}

fn floats(shape: &[usize], value: f32) -> Tensor {
    Tensor::from_slice(shape.to_vec(), &vec![value; shape.iter().product()]).unwrap()
}

fn input(shape: &[usize], dir: &Path) -> String {
    let path = dir.join("x.npz");
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|i| 0.9 - 0.3 * (i % 7) as f32).collect();
    let input = Tensor::from_slice(shape.to_vec(), &values).unwrap();
    npz::write(&path, &[("x", &input)], &OutputOptions::default()).unwrap();
    path.display().to_string()
}

/// Runs the graph on one sample.
fn run_graph(graph: Graph, shape: &[usize]) -> Ran {
    let dir = tempdir().unwrap();
    let (model, data) = (save(graph, &dir.path().join("m.onnx")), input(shape, dir.path()));
    let begun = Instant::now();
    let ran = run(["run", &model, "--input", &data]);
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    ran
}

#[test]
fn names_cannot_act_on_the_report_the_terminal_or_the_disk() {
    let evil = ["<script>alert(1)</script>", "../../x", "/etc/x", "CON", "\x1b[2J", "a\nb"];
    let mut nodes = Vec::new();
    for name in evil {
        let mut conv = op("Conv");
        conv.name = name.to_string();
        nodes.push((conv, vec![floats(&[2, 2, 1, 1], 0.7)]));
    }
    let mut graph = chain(&[1, 2, 3, 3], nodes);
    let output = graph.outputs()[0];
    let mut last = Node::new("Relu", "</script><b>", &[output], &[]);
    let named = graph.add_value("<img src=x onerror=alert(1)>", ValueType::default()).unwrap();
    last.outputs = vec![Some(named)];
    graph.add_node(last);
    graph.add_output(named);
    let dir = tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (model, data) = (save(graph, &dir.path().join("m.onnx")), input(&[1, 2, 3, 3], dir.path()));
    let line = ["quantize", &model, "-o", &at("out.onnx"), "--calibrate", &data];
    let more = ["--evaluate", &data, "--report", &at("report")];
    let quantized = run(line.iter().chain(&more));
    let inspected = run(["inspect", &at("out.onnx"), "--verbose"]);
    for ran in [quantized.succeeds(), inspected.succeeds()] {
        assert!(!ran.stdout.contains('\x1b') && !ran.stderr.contains('\x1b'));
    }
    assert_eq!(names(dir.path()), ["m.onnx", "out.onnx", "report", "x.npz"]);
    assert_eq!(names(&dir.path().join("report")), ["report.html", "report.json", "report.txt"]);
    let read = |name: &str| std::fs::read_to_string(dir.path().join("report").join(name)).unwrap();
    let page = read("report.html");
    assert!(page.contains("&lt;script&gt;alert(1)"), "the name is shown, as text");
    for markup in ["<script>alert", "<img", "<b>", "\x1b"] {
        assert!(!page.contains(markup), "{markup}");
    }
    assert!(!read("report.txt").contains('\x1b') && !read("report.json").contains('\x1b'));
}

#[test]
fn small_models_cannot_ask_for_much_memory() {
    let huge = 1i64 << 40;
    let shape = |dims: &[i64]| Tensor::vector(dims);
    let cases: Vec<(&str, Vec<Tensor>)> = vec![
        ("Expand", vec![shape(&[huge, 1])]),
        ("Tile", vec![shape(&[huge, 1])]),
        ("Pad", vec![shape(&[0, 0, huge, huge])]),
        ("Reshape", vec![shape(&[huge, huge])]),
        ("Resize", vec![Tensor::vector::<f32>(&[]), Tensor::vector(&[1e12f32, 1e12])]),
    ];
    for (name, constants) in cases {
        let ran = run_graph(chain(&[1, 1], vec![(op(name), constants)]), &[1, 1]);
        assert!(matches!(ran.code, Some(3..=5)), "{name}: {:?} {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains(name), "{name}: {}", ran.stderr);
    }
    // The shape is computed, so it is known only when the model runs.
    let size = (op("ConstantOfShape"), vec![]);
    let cast = op("Cast").with("to", Attr::Int(DType::I64.to_onnx() as i64));
    let scaled = (op("Mul"), vec![floats(&[2], 3e12)]);
    let graph = chain(&[2], vec![scaled, (cast, vec![]), size]);
    let ran = run_graph(graph, &[2]);
    assert!(matches!(ran.code, Some(3..=5)), "{:?} {}", ran.code, ran.stderr);
    assert!(ran.stderr.contains("ConstantOfShape"), "{}", ran.stderr);
}

#[test]
fn geometry_without_sense_is_refused_with_the_node() {
    let weight = || vec![floats(&[2, 2, 3, 3], 0.1)];
    let conv = |attr: &str, values: Vec<i64>| (op("Conv").with(attr, Attr::Ints(values)), weight());
    let group = |n| (op("Conv").with("group", Attr::Int(n)), weight());
    let pool = |attr: &str, values: Vec<i64>| {
        let node = op("MaxPool").with("kernel_shape", Attr::Ints(vec![2, 2]));
        (node.with(attr, Attr::Ints(values)), vec![])
    };
    let cases = vec![
        ("stride 0", conv("strides", vec![0, 1])),
        ("dilation 0", conv("dilations", vec![0, 0])),
        ("negative dilation", conv("dilations", vec![-3, 1])),
        ("negative padding", conv("pads", vec![-9, -9, -9, -9])),
        ("huge padding", conv("pads", vec![i64::MAX, 0, i64::MAX, 0])),
        ("kernel shape of another weight", conv("kernel_shape", vec![5, 5])),
        ("group 0", group(0)),
        ("group that does not divide", group(3)),
        ("negative group", group(-1)),
        ("weight of higher rank", (op("Conv"), vec![floats(&[2, 2, 1, 1, 1, 1], 1.0)])),
        ("kernel 0", (op("Conv"), vec![floats(&[2, 2, 0, 3], 1.0)])),
        ("pool stride 0", pool("strides", vec![0, 0])),
        ("two unknown sizes", (op("Reshape"), vec![Tensor::vector(&[-1i64, -1])])),
        (
            "a copied size that is not there",
            (op("Reshape"), vec![Tensor::vector(&[1i64, 1, 1, 1, 0])]),
        ),
        ("split into other sums", (op("Split"), vec![Tensor::vector(&[100i64])])),
        ("index out of range", (op("Gather"), vec![Tensor::vector(&[77i64])])),
        ("no such axis", (op("Softmax").with("axis", Attr::Int(9)), vec![])),
        ("a wrong kind", (op("Softmax").with("axis", Attr::Float(1.0)), vec![])),
        ("a missing input", (op("Conv"), vec![])),
    ];
    for (what, (node, constants)) in cases {
        let name = node.name.clone();
        let ran = run_graph(chain(&[1, 2, 5, 5], vec![(node, constants)]), &[1, 2, 5, 5]);
        assert!(matches!(ran.code, Some(3..=5)), "{what}: {:?} {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains(&name), "{what}: {}", ran.stderr);
    }
}

fn quantized(scale: Tensor, zero: Tensor, node: Node) -> Graph {
    let dequantize = Node { op: "DequantizeLinear".to_string(), ..node.clone() };
    let parameters = || vec![scale.clone(), zero.clone()];
    chain(&[1, 4], vec![(node, parameters()), (dequantize, parameters())])
}

#[test]
fn parameters_of_quantization_must_fit() {
    let scalar = |v: f32| floats(&[], v);
    let zero = || Tensor::scalar(3u8);
    let node = || op("QuantizeLinear");
    let wrong = [
        ("scales for no axis", quantized(floats(&[3], 0.1), Tensor::vector(&[0u8; 3]), node())),
        (
            "an axis that is not there",
            quantized(
                floats(&[4], 0.1),
                Tensor::vector(&[0u8; 4]),
                node().with("axis", Attr::Int(5)),
            ),
        ),
        (
            "another number of zero points",
            quantized(scalar(0.1), Tensor::vector(&[0u8; 2]), node()),
        ),
        (
            "blocks of nothing",
            quantized(
                floats(&[1, 2], 0.1),
                Tensor::from_slice(vec![1, 2], &[0u8; 2]).unwrap(),
                node().with("block_size", Attr::Int(-1)),
            ),
        ),
        (
            "blocks that do not fit",
            quantized(
                floats(&[1, 3], 0.1),
                Tensor::from_slice(vec![1, 3], &[0u8; 3]).unwrap(),
                node().with("block_size", Attr::Int(2)),
            ),
        ),
    ];
    for (what, graph) in wrong {
        let ran = run_graph(graph, &[1, 4]);
        assert!(matches!(ran.code, Some(3 | 4)), "{what}: {:?} {}", ran.code, ran.stderr);
        assert!(ran.stderr.contains("the QuantizeLinear"), "{what}: {}", ran.stderr);
    }
    // What the specification does not forbid is computed, in every mode.
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE / 2.0, f32::MAX] {
        run_graph(quantized(scalar(scale), zero(), node()), &[1, 4]).succeeds();
    }
}

#[test]
fn strange_weights_are_quantized_with_a_warning_or_without() {
    let dir = tempdir().unwrap();
    let data = input(&[1, 2, 3, 3], dir.path());
    let cases = [
        ("NaN", Some("NaN or infinite")),
        ("inf", Some("NaN or infinite")),
        ("0", None),
        ("-0", None),
        ("1e-42", None),
        ("3e38", None),
    ];
    for (value, warning) in cases {
        let mut weight = floats(&[2, 2, 1, 1], 0.5).to_f32().unwrap();
        weight[1] = value.parse().unwrap();
        let spoiled = Tensor::from_slice(vec![2, 2, 1, 1], &weight).unwrap();
        let constant = floats(&[2, 2, 1, 1], value.parse().unwrap());
        for weights in [spoiled, constant] {
            let graph = chain(&[1, 2, 3, 3], vec![(op("Conv"), vec![weights])]);
            let model = save(graph, &dir.path().join("m.onnx"));
            std::fs::remove_file(dir.path().join("out.onnx")).ok();
            let out = dir.path().join("out.onnx").display().to_string();
            let line = ["quantize", &model, "-o", &out, "--calibrate", &data, "--json"];
            let ran = run(line);
            let report = ran.succeeds().json();
            let warnings = report["warnings"].to_string();
            assert_eq!(warning.is_some_and(|w| warnings.contains(w)), warning.is_some(), "{value}");
            run(["run", &out, "--input", &data]).succeeds();
            std::fs::remove_file(model).unwrap();
        }
    }
}

/// `Loop` with a condition that stays true and no number of trips.
fn endless() -> Graph {
    let mut body = Graph::new("body");
    let value =
        |g: &mut Graph, name: &str, dtype| g.add_value(name, ValueType::fixed(dtype, &[])).unwrap();
    let (i, go) = (value(&mut body, "i", DType::I64), value(&mut body, "go", DType::Bool));
    let on = value(&mut body, "on", DType::Bool);
    let carried = body.add_value("carried", ValueType::fixed(DType::F32, &[1])).unwrap();
    let next = body.add_value("next", ValueType::fixed(DType::F32, &[1])).unwrap();
    [i, go, carried].into_iter().for_each(|v| body.add_input(v));
    body.add_node(Node::new("Identity", "stay", &[go], &[on]));
    body.add_node(Node::new("Identity", "keep", &[carried], &[next]));
    [on, next].into_iter().for_each(|v| body.add_output(v));
    let mut graph = Graph::new("g");
    let x = graph.add_value("x", ValueType::fixed(DType::F32, &[1])).unwrap();
    graph.add_input(x);
    let yes = Tensor::scalar(1u8).cast(DType::Bool).unwrap();
    let go = graph.add_constant("start", yes).unwrap();
    let y = graph.add_value("y", ValueType::default()).unwrap();
    let mut node = Node::new("Loop", "for ever", &[], &[y]).with("body", Attr::Graph(body.into()));
    node.inputs = vec![None, Some(go), Some(x)];
    graph.add_node(node);
    graph.add_output(y);
    graph
}

/// The meaning of such a model is to run for ever; Ctrl-C must still end it at once.
#[test]
fn an_endless_loop_can_be_interrupted() {
    let dir = tempdir().unwrap();
    let (model, data) = (save(endless(), &dir.path().join("m.onnx")), input(&[1], dir.path()));
    let mut command = fewbit();
    let mut child = command.args(["run", &model, "--input", &data]).spawn().unwrap();
    process::wait_for_handlers(&child);
    std::thread::sleep(Duration::from_millis(200));
    assert!(child.try_wait().unwrap().is_none(), "the loop ended");
    process::send("-INT", &child);
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
