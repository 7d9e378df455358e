//! `Softmax` and its kin, which flattened their input to a matrix before operator set 13.

use fewbit_core::{Attr, DType, Graph, Node, NodeId, Patch, Result, ValueType};

/// Flattens at the old axis (default 1), takes the softmax of each row, restores the shape.
pub(super) fn flattened(graph: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    let (Some(input), Some(output)) = (node.input(0), node.output(0)) else {
        return Ok(());
    };
    let axis = node.int("axis")?.unwrap_or(1);
    let rank = graph.value(input).ty.rank();
    let is_last = axis == -1 || rank.is_some_and(|r| axis == r as i64 - 1);
    if is_last {
        patch.set_attr(id, "axis", Attr::Int(-1));
        return Ok(());
    }
    let mut value = |what: &str, ty| patch.add_value(&format!("{}.{what}", node.name), ty);
    let shape = value("shape", ValueType { dtype: Some(DType::I64), ..Default::default() });
    let flat = value("flat", ValueType::default());
    let rows = value("rows", ValueType::default());
    patch.remove_node(id);
    patch.add_node(Node::new("Shape", "", &[input], &[shape]));
    patch.add_node(Node::new("Flatten", "", &[input], &[flat]).with("axis", Attr::Int(axis)));
    let softmax = Node::new(&node.op, node.name.clone(), &[flat], &[rows]);
    patch.add_node(softmax.with("axis", Attr::Int(-1)));
    patch.add_node(Node::new("Reshape", "", &[rows, shape], &[output]));
    Ok(())
}
