//! `Upsample` and the first `Resize`, which knew one way to map coordinates.

use fewbit_core::{Attr, DType, Graph, Node, NodeId, Patch, Result, Tensor};

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

/// `Resize` of operator set 10.
pub(super) fn from_version_10(_: &Graph, patch: &mut Patch, id: NodeId, node: &Node) -> Result<()> {
    // One that was rewritten from Upsample a rule earlier has its new form already.
    if node.inputs.len() > 2 {
        return Ok(());
    }
    rewrite(patch, id, node, node.input(1))
}

fn rewrite(
    patch: &mut Patch,
    id: NodeId,
    node: &Node,
    scales: Option<fewbit_core::ValueId>,
) -> Result<()> {
    let roi =
        patch.add_constant(&format!("{}.roi", node.name), Tensor::zeros(DType::F32, vec![0])?);
    let mut new = Node {
        op: "Resize".to_string(),
        inputs: vec![node.input(0), Some(roi), scales],
        ..node.clone()
    };
    new.attrs.retain(|(name, _)| name != "scales");
    new.set_attr("coordinate_transformation_mode", Attr::String("asymmetric".into()));
    new.set_attr("nearest_mode", Attr::String("floor".into()));
    patch.remove_node(id);
    patch.add_node(new);
    Ok(())
}
