//! `Upsample` and the first `Resize`, which knew one way to map coordinates.

use super::attributes::replace;
use fewbit_core::{Attr, DType, Graph, Node, NodeId, Patch, Result, Tensor, ValueId, ValueType};

/// `Upsample` (7: scales as attribute, 9: as input) as `Resize` of operator set 11.
pub(super) fn from_upsample(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    let scales = match node.floats("scales")? {
        Some(scales) => {
            Some(patch.add_constant(&format!("{}.scales", node.name), Tensor::vector(scales)))
        }
        None => node.input(1),
    };
    rewrite(patch, id, node, scales)
}

/// `Resize` of operator set 10, which rounded down where an axis grows and up where it shrinks.
pub(super) fn from_version_10(
    graph: &Graph,
    patch: &mut Patch,
    id: NodeId,
    node: &Node,
) -> Result<()> {
    // One that was rewritten from Upsample a rule earlier has its new form already.
    let (2, Some(scales)) = (node.inputs.len(), node.input(1)) else {
        return Ok(());
    };
    let known = graph.constant(scales).map(Tensor::to_f32).transpose()?;
    let any = |is: fn(&f32) -> bool| known.as_ref().is_none_or(|known| known.iter().any(is));
    let is_linear = node.string("mode")? == Some("linear");
    match (any(|&scale| scale < 1.0) && !is_linear, any(|&scale| scale > 1.0)) {
        (false, _) => rewrite(patch, id, node, Some(scales)),
        (true, false) => {
            let new = resize(patch, node, Some(scales), "ceil")?;
            replace(patch, id, new);
            Ok(())
        }
        (true, true) => shrink_then_grow(patch, id, node, scales),
    }
}

/// Each axis of nearest neighbours by itself: first those that shrink, then those that grow.
fn shrink_then_grow(patch: &mut Patch, id: NodeId, node: &Node, scales: ValueId) -> Result<()> {
    let mut value =
        |what: &str| patch.add_value(&format!("{}.{what}", node.name), ValueType::default());
    let (less, more, small) = (value("less"), value("more"), value("small"));
    let one = patch.add_constant(&format!("{}.one", node.name), Tensor::scalar(1f32));
    let mut shrink = resize(patch, node, Some(less), "ceil")?;
    (shrink.name, shrink.outputs) = (String::new(), vec![Some(small)]);
    let mut grow = resize(patch, node, Some(more), "floor")?;
    grow.inputs[0] = Some(small);
    patch.add_node(Node::new("Min", "", &[scales, one], &[less]));
    patch.add_node(Node::new("Max", "", &[scales, one], &[more]));
    patch.add_node(shrink);
    replace(patch, id, grow);
    Ok(())
}

fn rewrite(patch: &mut Patch, id: NodeId, node: &Node, scales: Option<ValueId>) -> Result<()> {
    let new = resize(patch, node, scales, "floor")?;
    replace(patch, id, new);
    Ok(())
}

/// The node in the form of operator set 11.
fn resize(
    patch: &mut Patch,
    node: &Node,
    scales: Option<ValueId>,
    nearest_mode: &str,
) -> Result<Node> {
    let roi =
        patch.add_constant(&format!("{}.roi", node.name), Tensor::zeros(DType::F32, vec![0])?);
    let mut new = Node {
        op: "Resize".to_string(),
        inputs: vec![node.input(0), Some(roi), scales],
        ..node.clone()
    };
    new.attrs.retain(|(name, _)| name != "scales");
    new.set_attr("coordinate_transformation_mode", Attr::String("asymmetric".into()));
    new.set_attr("nearest_mode", Attr::String(nearest_mode.into()));
    Ok(new)
}
