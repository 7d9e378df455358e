//! `Constant` nodes to constants of the graph (<https://onnx.ai/onnx/operators/onnx__Constant.html>).

use fewbit_core::{Attr, Node, Result, Tensor};

/// The tensor of a `Constant` node; `None` for other nodes and for sparse constants.
///
/// # Errors
/// Never for attributes that were decoded; the tensor of a string list might have no size.
pub(super) fn fold(node: &Node) -> Result<Option<Tensor>> {
    if !node.is("Constant") || node.outputs.len() != 1 || !node.inputs.is_empty() {
        return Ok(None);
    }
    let [(name, attr)] = &node.attrs[..] else { return Ok(None) };
    Ok(Some(match (name.as_str(), attr) {
        ("value", Attr::Tensor(tensor)) => tensor.clone(),
        ("value_float", Attr::Float(value)) => Tensor::scalar(*value),
        ("value_floats", Attr::Floats(values)) => Tensor::vector(values),
        ("value_int", Attr::Int(value)) => Tensor::scalar(*value),
        ("value_ints", Attr::Ints(values)) => Tensor::vector(values),
        ("value_string", Attr::String(value)) => Tensor::from_strings(vec![], vec![value.clone()])?,
        ("value_strings", Attr::Strings(values)) => {
            Tensor::from_strings(vec![values.len()], values.clone())?
        }
        _ => return Ok(None),
    }))
}
