use super::*;
use crate::DType;

/// `y = Relu(Add(x, w))`.
fn small() -> Graph {
    let mut g = Graph::new("small");
    let x = g.add_value("x", ValueType::fixed(DType::F32, &[2])).unwrap();
    let w = g.add_constant("w", Tensor::vector(&[1f32, 2.0])).unwrap();
    let t = g.add_value("t", ValueType::default()).unwrap();
    let y = g.add_value("y", ValueType::default()).unwrap();
    g.add_input(x);
    g.add_node(Node::new("Add", "add", &[x, w], &[t]));
    g.add_node(Node::new("Relu", "relu", &[t], &[y]));
    g.add_output(y);
    g
}

#[test]
fn a_sound_graph_verifies_and_prints() {
    let g = small();
    g.verify(None).unwrap();
    assert_eq!(g.to_string(), "in  x: f32[2]\n    t = Add(x, w)\n    y = Relu(t)\nout y: ?[..]\n");
}

#[test]
fn a_patch_inserts_a_node_in_the_right_place() {
    let mut g = small();
    let t = g.find_value("t").unwrap();
    let relu = g.nodes().nth(1).unwrap().0;
    let mut patch = Patch::new(&g);
    let between = patch.add_value("t", ValueType::default());
    patch.add_node(Node::new("Neg", "neg", &[t], &[between]));
    patch.set_input(relu, 0, Some(between));
    patch.apply(&mut g).unwrap();
    let ops: Vec<&str> = g.nodes().map(|(_, n)| n.op.as_str()).collect();
    assert_eq!(ops, ["Add", "Neg", "Relu"]);
    assert_eq!(g.name_of(between), "t_1");
}

#[test]
fn a_patch_that_breaks_the_graph_changes_nothing() {
    let mut g = small();
    let before = g.to_string();
    let add = g.nodes().next().unwrap().0;
    let mut patch = Patch::new(&g);
    patch.remove_node(add);
    assert!(patch.apply(&mut g).is_err());
    assert_eq!(g.to_string(), before);
}

#[test]
fn cycles_are_found() {
    let mut g = small();
    let (add, y) = (g.nodes().next().unwrap().0, g.find_value("y").unwrap());
    let mut patch = Patch::new(&g);
    patch.set_input(add, 1, Some(y));
    let error = patch.apply(&mut g).unwrap_err();
    assert!(error.to_string().contains("cycle"), "{error}");
}

#[test]
fn dead_nodes_and_constants_go() {
    let mut g = small();
    let mut patch = Patch::new(&g);
    let (x, unused) = (g.find_value("x").unwrap(), patch.add_value("unused", ValueType::default()));
    patch.add_node(Node::new("Exp", "exp", &[x], &[unused]));
    patch.apply(&mut g).unwrap();
    Patch::remove_dead(&mut g).unwrap();
    assert_eq!(g.node_count(), 2);
    assert!(g.constant(g.find_value("w").unwrap()).is_some());
}

#[test]
fn subgraphs_capture_by_name_and_follow_renames() {
    let mut inner = Graph::new("then");
    let t = inner.add_value("t", ValueType::default()).unwrap();
    let z = inner.add_value("z", ValueType::default()).unwrap();
    inner.add_node(Node::new("Neg", "", &[t], &[z]));
    inner.add_output(z);

    let mut g = small();
    let (t, y) = (g.find_value("t").unwrap(), g.find_value("y").unwrap());
    let r = g.add_value("r", ValueType::default()).unwrap();
    g.add_node(Node::new("If", "if", &[y], &[r]).with("then_branch", Attr::Graph(Box::new(inner))));
    g.verify(None).unwrap();
    assert_eq!(g.uses().consumers(t).len(), 2);

    let mut patch = Patch::new(&g);
    let u = patch.add_value("u", ValueType::default());
    patch.replace_uses(t, u);
    patch.add_node(Node::new("Identity", "", &[t], &[u]));
    patch.apply(&mut g).unwrap();
    assert_eq!(g.uses().consumers(u).len(), 2);
    assert_eq!(g.uses().consumers(t).len(), 1);
}

#[test]
fn nodes_of_a_patch_get_names_of_their_own() {
    let mut g = small();
    let (relu, node) = g.nodes().nth(1).map(|(id, node)| (id, node.clone())).unwrap();
    let t = g.find_value("t").unwrap();
    let mut patch = Patch::new(&g);
    for name in ["neg", "neg", ""] {
        let value = patch.add_value("n", ValueType::default());
        patch.add_node(Node::new("Neg", name, &[t], &[value]));
    }
    // In place of one that goes: its name is free.
    let name = node.name.clone();
    patch.add_node(node);
    patch.remove_node(relu);
    patch.apply(&mut g).unwrap();
    let mut names: Vec<&str> = g.nodes().map(|(_, node)| node.name.as_str()).collect();
    names.sort_unstable();
    let add = g.nodes().find(|(_, node)| node.op == "Add").unwrap().1.name.as_str();
    let mut expected = ["", "neg", "neg_1", name.as_str(), add];
    expected.sort_unstable();
    assert_eq!(names, expected);
}
