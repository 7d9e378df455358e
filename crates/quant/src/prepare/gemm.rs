//! `Gemm` with the factors `alpha` and `beta` moved into its constants.

use fewbit_core::{Attr, Graph, Node, NodeId, Patch, Result, Tensor, ValueId};

/// Multiplies `alpha` into a constant B and `beta` into a constant C.
pub(super) fn fold_factors(graph: &Graph) -> Result<Patch> {
    let mut patch = Patch::new(graph);
    for (id, node) in graph.nodes().filter(|(_, n)| n.is("Gemm")) {
        fold_factor(graph, &mut patch, (id, node), "alpha", 1)?;
        fold_factor(graph, &mut patch, (id, node), "beta", 2)?;
    }
    Ok(patch)
}

fn fold_factor(
    graph: &Graph,
    patch: &mut Patch,
    (id, node): (NodeId, &Node),
    name: &str,
    input: usize,
) -> Result<()> {
    let factor = node.float(name)?.unwrap_or(1.0);
    let value = node.input(input);
    let constant = value.and_then(|v| Some((v, graph.constant(v)?)));
    match constant {
        Some((value, tensor)) if factor != 1.0 => {
            let scaled = scaled(tensor, factor)?;
            let scaled = add_scaled(graph, patch, value, scaled);
            patch.set_input(id, input, Some(scaled));
            patch.set_attr(id, name, Attr::Float(1.0));
        }
        None if value.is_none() && factor != 1.0 => patch.set_attr(id, name, Attr::Float(1.0)),
        _ => {}
    }
    Ok(())
}

fn add_scaled(graph: &Graph, patch: &mut Patch, value: ValueId, tensor: Tensor) -> ValueId {
    patch.add_constant(graph.name_of(value), tensor)
}

fn scaled(tensor: &Tensor, factor: f32) -> Result<Tensor> {
    let values: Vec<f64> = tensor.to_f64()?.iter().map(|v| v * factor as f64).collect();
    Tensor::from_f64(tensor.dtype(), tensor.shape().to_vec(), &values)
}
