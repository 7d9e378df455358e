//! Attributes that became inputs, or changed their words.

use fewbit_core::{Attr, Graph, Node, NodeId, Patch, Result, Tensor};

/// Replaces the node by one without the named attributes, for the caller to finish.
fn without(node: &Node, names: &[&str]) -> Node {
    let mut node = node.clone();
    node.attrs.retain(|(name, _)| !names.contains(&name.as_str()));
    node
}

pub(super) fn replace(patch: &mut Patch, id: NodeId, node: Node) {
    patch.remove_node(id);
    patch.add_node(node);
}

/// Adds an int64 vector as input `index`.
fn set_ints(patch: &mut Patch, node: &mut Node, index: usize, name: &str, values: &[i64]) {
    let constant = patch.add_constant(&format!("{}.{name}", node.name), Tensor::vector(values));
    set_input(node, index, constant);
}

fn set_input(node: &mut Node, index: usize, value: fewbit_core::ValueId) {
    if node.inputs.len() <= index {
        node.inputs.resize(index + 1, None);
    }
    node.inputs[index] = Some(value);
}

/// `axes` as input 1.
pub(super) fn axes(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    if let Some(axes) = node.ints("axes")? {
        let mut new = without(node, &["axes"]);
        set_ints(patch, &mut new, 1, "axes", axes);
        replace(patch, id, new);
    }
    Ok(())
}

/// `starts`, `ends`, `axes` as inputs 1 to 3.
pub(super) fn slice(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    let mut new = without(node, &["starts", "ends", "axes"]);
    for (index, name) in [(1, "starts"), (2, "ends"), (3, "axes")] {
        if let Some(values) = node.ints(name)? {
            set_ints(patch, &mut new, index, name, values);
        }
    }
    replace(patch, id, new);
    Ok(())
}

/// `k` as input 1.
pub(super) fn top_k(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    if let Some(k) = node.int("k")? {
        let mut new = without(node, &["k"]);
        set_ints(patch, &mut new, 1, "k", &[k]);
        replace(patch, id, new);
    }
    Ok(())
}

/// `min` and `max` as inputs 1 and 2.
pub(super) fn clip(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    let mut new = without(node, &["min", "max"]);
    for (index, name) in [(1, "min"), (2, "max")] {
        if let Some(bound) = node.float(name)? {
            let constant =
                patch.add_constant(&format!("{}.{name}", node.name), Tensor::scalar(bound));
            set_input(&mut new, index, constant);
        }
    }
    replace(patch, id, new);
    Ok(())
}

/// `pads` and `value` as inputs 1 and 2.
pub(super) fn pad(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    let Some(pads) = node.ints("pads")?.or(node.ints("paddings")?) else {
        return Ok(());
    };
    let mut new = without(node, &["pads", "paddings", "value"]);
    set_ints(patch, &mut new, 1, "pads", pads);
    if let Some(value) = node.float("value")?.filter(|v| *v != 0.0) {
        let constant = patch.add_constant(&format!("{}.value", node.name), Tensor::scalar(value));
        set_input(&mut new, 2, constant);
    }
    replace(patch, id, new);
    Ok(())
}

/// `Scatter` is `ScatterElements` since 11.
pub(super) fn scatter(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    replace(patch, id, Node { op: "ScatterElements".to_string(), ..node.clone() });
    Ok(())
}

/// `ratio` means nothing outside training.
pub(super) fn dropout(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    replace(patch, id, without(node, &["ratio"]));
    Ok(())
}

/// `split` as input 1.
pub(super) fn split(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    if let Some(sizes) = node.ints("split")? {
        let mut new = without(node, &["split"]);
        set_ints(patch, &mut new, 1, "split", sizes);
        replace(patch, id, new);
    }
    Ok(())
}

/// Equal parts are counted by `num_outputs` since 18.
pub(super) fn split_count(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    if node.input(1).is_none() && node.int("num_outputs")?.is_none() {
        patch.set_attr(id, "num_outputs", Attr::Int(node.outputs.len() as i64));
    }
    Ok(())
}

/// `spatial` said whether statistics are those of channels, which they always are since 9.
pub(super) fn batch_norm(graph: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    let of_channels = |v| graph.value(v).ty.rank().is_none_or(|rank| rank == 1);
    if node.int("spatial")? == Some(0) && !node.input(1).is_none_or(of_channels) {
        return super::refuse(graph, patch, id, node);
    }
    replace(patch, id, without(node, &["spatial"]));
    Ok(())
}

/// Positions were those of whole pixels before 16, and are half a pixel off by default since.
pub(super) fn roi_align(_: &Graph, patch: &mut Patch, id: NodeId, _: &Node) -> Result<()> {
    let transform = Attr::String("output_half_pixel".into());
    patch.set_attr(id, "coordinate_transformation_mode", transform);
    Ok(())
}

/// Interpolation modes are named after what they do since 20.
pub(super) fn grid_sample(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    let renamed = match node.string("mode")? {
        Some("bilinear") => "linear",
        Some("bicubic") => "cubic",
        _ => return Ok(()),
    };
    patch.set_attr(id, "mode", Attr::String(renamed.into()));
    Ok(())
}
