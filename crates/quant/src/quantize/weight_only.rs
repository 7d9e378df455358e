//! Weight-only quantization: few-bit weights behind `DequantizeLinear`, float everything else.

use super::weight::quantize_weight;
use crate::plan::Plan;
use crate::upgrade::upgrade;
use fewbit_core::{
    Attr, Granularity, Model, Node, NodeId, Patch, QuantScheme, Result, ResultExt, ValueId,
    ValueType,
};
use std::collections::HashMap;

/// Oldest operator sets with `DequantizeLinear` per axis, and with blocks and 4-bit types.
const OPSET_AXIS: i64 = 13;
const OPSET_BLOCK: i64 = 21;

/// Quantizes the weights of a prepared model by plan.
///
/// # Errors
/// When the plan belongs to another model, or the model cannot be brought to the operator set
/// that the schemes need.
pub fn quantize_weight_only(model: &Model, plan: &Plan) -> Result<Model> {
    let placement = plan.placement(model)?;
    let needs_blocks = placement.weights().iter().any(|(_, s)| {
        matches!(s.granularity, Granularity::Block { .. }) || s.storage.is_sub_byte()
    });
    let mut quantized = upgrade(model, if needs_blocks { OPSET_BLOCK } else { OPSET_AXIS })?;
    // Rewrites give nodes new ids; names are what plan and model share.
    let schemes: HashMap<&str, QuantScheme> = placement
        .weights()
        .iter()
        .map(|&(id, s)| (model.graph.node(id).name.as_str(), s))
        .collect();
    let graph = &quantized.graph;
    let mut patch = Patch::new(graph);
    let mut done: HashMap<(ValueId, QuantScheme), ValueId> = HashMap::new();
    for (id, node) in graph.nodes() {
        if let Some(&scheme) = schemes.get(node.name.as_str()) {
            quantize_node(&quantized, &mut patch, &mut done, (id, node), scheme, plan)
                .at(|| graph.label(id))?;
        }
    }
    patch.apply(&mut quantized.graph)?;
    Patch::remove_dead(&mut quantized.graph)?;
    Ok(quantized)
}

fn quantize_node(
    model: &Model,
    patch: &mut Patch,
    done: &mut HashMap<(ValueId, QuantScheme), ValueId>,
    (id, node): (NodeId, &Node),
    scheme: QuantScheme,
    plan: &Plan,
) -> Result<()> {
    let graph = &model.graph;
    let Some((value, tensor)) = node.input(1).and_then(|v| Some((v, graph.constant(v)?))) else {
        return Ok(());
    };
    if let Some(&restored) = done.get(&(value, scheme)) {
        patch.set_input(id, 1, Some(restored));
        return Ok(());
    }
    let weight = quantize_weight(tensor, &scheme, plan.recipe.rounding, &[])?;
    let name = graph.name_of(value);
    let codes = patch.add_constant(&format!("{name}_quantized"), weight.codes);
    let scale = patch.add_constant(&format!("{name}_scale"), weight.scales);
    let zero_point = patch.add_constant(&format!("{name}_zero_point"), weight.zero_points);
    let restored = patch.add_value(&format!("{name}_dequantized"), ValueType::of(tensor));
    let mut dequantize = Node::new(
        "DequantizeLinear",
        format!("{name}_dq"),
        &[codes, scale, zero_point],
        &[restored],
    );
    match scheme.granularity {
        Granularity::Tensor => {}
        Granularity::Axis(axis) => dequantize.set_attr("axis", Attr::Int(axis as i64)),
        Granularity::Block { axis, size } => {
            dequantize.set_attr("axis", Attr::Int(axis as i64));
            dequantize.set_attr("block_size", Attr::Int(size as i64));
        }
    }
    patch.add_node(dequantize);
    patch.set_input(id, 1, Some(restored));
    done.insert((value, scheme), restored);
    Ok(())
}
