//! Means over whole planes as the pools they are.
//!
//! Exporters write `x.mean((2, 3))` as `ReduceMean`; integer kernels, here and in other engines,
//! are those of `GlobalAveragePool`.

use fewbit_core::{Attr, DType, Dim, Graph, Model, Node, Patch, Result, ValueId, ValueType};
use fewbit_exec::{OpTable, axis_index, infer_types};

/// Makes each `ReduceMean` over all spatial axes a `GlobalAveragePool`, with a `Flatten` behind it
/// where the axes go.
///
/// # Errors
/// When an attribute is of another kind.
pub(super) fn to_pools(model: &Model) -> Result<Patch> {
    let graph = &model.graph;
    let mut patch = Patch::new(graph);
    let means: Vec<_> = graph.nodes().filter(|(_, node)| node.is("ReduceMean")).collect();
    if means.is_empty() {
        return Ok(patch);
    }
    let types = infer_types(model, &OpTable::standard(), &[])?;
    for (id, node) in means {
        let (Some(x), Some(y)) = (node.input(0), node.output(0)) else { continue };
        let ty = &types[x.index()];
        if !covers_planes(graph, node, ty)? {
            continue;
        }
        patch.remove_node(id);
        if node.int("keepdims")?.unwrap_or(1) != 0 {
            patch.add_node(Node::new("GlobalAveragePool", node.name.clone(), &[x], &[y]));
            continue;
        }
        let pooled = patch.add_value(&format!("{}_pooled", graph.name_of(y)), pooled(ty));
        patch.add_node(Node::new("GlobalAveragePool", node.name.clone(), &[x], &[pooled]));
        patch.add_node(flatten(node, pooled, y));
    }
    Ok(patch)
}

/// Whether a node reduces all axes behind the channels of a float tensor, and no other.
fn covers_planes(graph: &Graph, node: &Node, ty: &ValueType) -> Result<bool> {
    let axes = match (node.ints("axes")?, node.input(1)) {
        (Some(axes), _) => axes.to_vec(),
        (None, Some(axes)) => match graph.constant(axes) {
            Some(axes) => axes.to_i64()?,
            None => return Ok(false),
        },
        (None, None) => return Ok(false),
    };
    let Some(rank) = ty.rank().filter(|&rank| rank > 2 && ty.dtype == Some(DType::F32)) else {
        return Ok(false);
    };
    let axes: Option<Vec<usize>> = axes.iter().map(|&a| axis_index(a, rank).ok()).collect();
    let Some(mut axes) = axes else { return Ok(false) };
    axes.sort_unstable();
    Ok(axes.into_iter().eq(2..rank))
}

/// The type of the pooled value.
fn pooled(ty: &ValueType) -> ValueType {
    let dims = ty.shape.iter().flatten().enumerate();
    let dims = dims.map(|(axis, dim)| if axis < 2 { dim.clone() } else { Dim::Known(1) });
    ValueType::tensor(DType::F32, dims.collect())
}

fn flatten(node: &Node, pooled: ValueId, y: ValueId) -> Node {
    let name = format!("{}_flatten", node.name);
    Node::new("Flatten", name, &[pooled], &[y]).with("axis", Attr::Int(1))
}
