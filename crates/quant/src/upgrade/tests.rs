use super::*;
use fewbit_core::{Attr, DType, Tensor, ValueType};
use fewbit_exec::{Mode, Session, SessionOptions};

/// A model of one node with input `x` of the given shape.
fn single(opset: i64, shape: &[usize], node: impl Fn(Node) -> Node, op: &str) -> Model {
    let mut graph = Graph::new("one");
    let x = graph.add_value("x", ValueType::fixed(DType::F32, shape)).unwrap();
    let y = graph.add_value("y", ValueType::default()).unwrap();
    graph.add_input(x);
    graph.add_node(node(Node::new(op, "n", &[x], &[y])));
    graph.add_output(y);
    Model { graph, opsets: vec![(String::new(), opset)], ir_version: 6, ..Default::default() }
}

fn run(model: &Model, shape: &[usize]) -> Tensor {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i| (i * 7 % 11) as f32 * 0.3 - 1.0).collect();
    let session = Session::new(model, &SessionOptions::new(Mode::Float)).unwrap();
    let x = Tensor::from_slice(shape.to_vec(), &values).unwrap();
    session.run(&[("x", x)]).unwrap().remove(0).1
}

/// The old model and the upgraded one give the same result.
fn same_result(opset: i64, shape: &[usize], op: &str, attrs: &[(&str, Attr)]) {
    let with_attrs = |mut node: Node| {
        attrs.iter().for_each(|(name, attr)| node.set_attr(name, attr.clone()));
        node
    };
    let old = single(opset, shape, with_attrs, op);
    let new = upgrade(&old, 21).unwrap();
    assert_eq!(new.opset(), 21);
    new.graph.verify(None).unwrap();
    assert_eq!(run(&old, shape), run(&new, shape), "{op} of operator set {opset}");
}

#[test]
fn old_forms_compute_the_same_after_the_upgrade() {
    let ints = |v: &[i64]| Attr::Ints(v.to_vec());
    same_result(
        7,
        &[3, 4],
        "Slice",
        &[("starts", ints(&[1, 0])), ("ends", ints(&[3, 2])), ("axes", ints(&[0, 1]))],
    );
    same_result(7, &[3, 4], "Clip", &[("min", Attr::Float(-0.2)), ("max", Attr::Float(0.4))]);
    same_result(7, &[3, 4], "Pad", &[("pads", ints(&[0, 1, 2, 0])), ("value", Attr::Float(0.5))]);
    same_result(11, &[3, 1, 4], "Squeeze", &[("axes", ints(&[1]))]);
    same_result(11, &[3, 4], "Unsqueeze", &[("axes", ints(&[0]))]);
    same_result(11, &[3, 4], "ReduceSum", &[("axes", ints(&[1]))]);
    same_result(13, &[3, 4], "ReduceMean", &[("axes", ints(&[0])), ("keepdims", Attr::Int(0))]);
    same_result(11, &[2, 3, 4], "Softmax", &[("axis", Attr::Int(1))]);
    same_result(11, &[2, 12], "Softmax", &[]);
    same_result(11, &[4, 6], "Split", &[("axis", Attr::Int(1)), ("split", ints(&[6]))]);
    same_result(
        7,
        &[1, 1, 2, 3],
        "Upsample",
        &[("scales", Attr::Floats(vec![1.0, 1.0, 2.0, 2.0]))],
    );
}

/// Nearest neighbours of operator set 10 are rounded by whether an axis shrinks.
#[test]
fn an_old_resize_rounds_as_it_did() {
    for mode in ["nearest", "linear"] {
        for scales in [[2.0, 1.7], [0.6, 0.7], [1.7, 0.6], [1.0, 0.6], [0.6, 1.7f32]] {
            let shape = [1, 1, 5, 7];
            for constant in [true, false] {
                let mut old = single(10, &shape, |n| n, "Resize");
                let graph = &mut old.graph;
                let all = Tensor::vector(&[1.0, 1.0, scales[0], scales[1]]);
                let (id, mut node) = graph.nodes().map(|(i, n)| (i, n.clone())).next().unwrap();
                let mut patch = Patch::new(graph);
                let known = patch.add_constant("scales", all);
                let computed = patch.add_value("computed", ValueType::default());
                patch.add_node(Node::new("Identity", "i", &[known], &[computed]));
                node.inputs.push(Some(if constant { known } else { computed }));
                node.set_attr("mode", Attr::String(mode.into()));
                patch.remove_node(id);
                patch.add_node(node);
                patch.apply(graph).unwrap();
                let new = upgrade(&old, 13).unwrap();
                assert_eq!(run(&old, &shape), run(&new, &shape), "{mode} {scales:?} {constant}");
            }
        }
    }
}

/// A model of one node with constants behind its input.
fn with_constants(opset: i64, shape: &[usize], op: &str, constants: &[Tensor]) -> Model {
    let mut model = single(opset, shape, |n| n, op);
    let (id, mut node) = model.graph.nodes().map(|(id, n)| (id, n.clone())).next().unwrap();
    let mut patch = Patch::new(&model.graph);
    let ids = constants.iter().map(|tensor| Some(patch.add_constant("c", tensor.clone())));
    node.inputs.extend(ids);
    patch.remove_node(id);
    patch.add_node(node);
    patch.apply(&mut model.graph).unwrap();
    model
}

/// The only node, with an attribute more.
fn with_attr(mut model: Model, name: &str, attr: Attr) -> Model {
    let (id, _) = model.graph.nodes().next().unwrap();
    let mut patch = Patch::new(&model.graph);
    patch.set_attr(id, name, attr);
    patch.apply(&mut model.graph).unwrap();
    model
}

/// ONNX Runtime refuses attributes that an operator has no longer.
#[test]
fn statistics_are_those_of_channels() {
    let of = |shape: &[usize], spatial| {
        let ones = Tensor::from_slice(shape.to_vec(), &vec![1f32; shape.iter().product()]);
        let model = with_constants(7, &[1, 3, 2, 2], "BatchNormalization", &vec![ones.unwrap(); 4]);
        with_attr(model, "spatial", Attr::Int(spatial))
    };
    for spatial in [0, 1] {
        let old = of(&[3], spatial);
        let new = upgrade(&old, 13).unwrap();
        assert!(new.graph.nodes().all(|(_, node)| node.attr("spatial").is_none()));
        assert_eq!(run(&old, &[1, 3, 2, 2]), run(&new, &[1, 3, 2, 2]));
    }
    let error = upgrade(&of(&[3, 2, 2], 0), 13).unwrap_err();
    assert!(error.to_string().contains("BatchNormalization"), "{error}");
}

#[test]
fn old_regions_stay_where_they_are() {
    let regions = Tensor::from_slice(vec![1, 4], &[1.0f32, 0.5, 5.0, 4.0]).unwrap();
    let old = with_constants(11, &[1, 1, 6, 7], "RoiAlign", &[regions, Tensor::vector(&[0i64])]);
    let new = upgrade(&old, 21).unwrap();
    assert_eq!(run(&old, &[1, 1, 6, 7]), run(&new, &[1, 1, 6, 7]));
}

#[test]
fn an_operator_without_rewrite_is_refused_by_name() {
    let model = single(18, &[1, 2, 3], |n| n, "GroupNormalization");
    let error = upgrade(&model, 21).unwrap_err();
    assert!(error.to_string().contains("GroupNormalization"), "{error}");
}

#[test]
fn the_newest_stamps_go_where_nothing_needs_them() {
    let stamped = |op: &str, opset| {
        let mut model = single(opset, &[2, 3], |n| n, op);
        model.ir_version = 14;
        let model = upgrade(&model, 21).unwrap();
        (model.opset(), model.ir_version)
    };
    assert_eq!(stamped("Relu", 28), (26, 13));
    assert_eq!(stamped("Unique", 28), (28, 13));
    assert_eq!(stamped("Relu", 24), (24, 13));
    assert_eq!(stamped("Relu", 13), (21, 13));
    let mut named = single(28, &[2, 3], |n| n, "Relu");
    named.opsets = vec![("ai.onnx".to_string(), 28)];
    assert_eq!(upgrade(&named, 21).unwrap().opsets, [("ai.onnx".to_string(), 26)]);
}

#[test]
fn what_a_branch_needs_keeps_the_operator_set() {
    let branch = single(28, &[2, 3], |n| n, "Celu").graph;
    let with = |mut node: Node| {
        node.set_attr("then_branch", Attr::Graph(Box::new(branch.clone())));
        node
    };
    assert_eq!(upgrade(&single(28, &[2, 3], with, "If"), 21).unwrap().opset(), 28);
}
