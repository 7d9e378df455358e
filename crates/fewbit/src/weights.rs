//! What the constants of a model are: how many, how large, and whether they are sound.

use fewbit_core::{DType, Graph, Tensor};

/// Totals over the constants of a model, subgraphs included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Constants {
    /// Elements of float and low-bit tensors; shapes and indices do not count.
    pub parameters: u64,
    /// Bytes of all constants.
    pub bytes: u64,
    /// Bytes of constants with 8 or fewer bits for each element.
    pub low_bit_bytes: u64,
}

/// Counts the constants of a graph and of its subgraphs.
pub(crate) fn count(graph: &Graph) -> Constants {
    let mut total = Constants::default();
    each(graph, &mut |_, tensor| {
        let bytes = tensor.bytes().len() as u64;
        let index = matches!(tensor.dtype(), DType::I64 | DType::Bool | DType::String);
        total.parameters += if index { 0 } else { tensor.len() as u64 };
        total.bytes += bytes;
        let low_bit = tensor.dtype().bits() <= 8 && tensor.dtype() != DType::Bool;
        total.low_bit_bytes += if low_bit { bytes } else { 0 };
    });
    total
}

/// One line for each float constant that holds NaN or infinity.
pub(crate) fn unsound(graph: &Graph) -> Vec<String> {
    let mut lines = Vec::new();
    each(graph, &mut |name, tensor| {
        let Ok(values) = tensor.cow::<f32>() else {
            return;
        };
        let bad = values.iter().filter(|v| !v.is_finite()).count();
        if bad > 0 {
            lines.push(format!("constant `{name}` holds {bad} values that are NaN or infinite"));
        }
    });
    lines
}

fn each(graph: &Graph, see: &mut dyn FnMut(&str, &Tensor)) {
    for id in graph.value_ids() {
        if let Some(tensor) = graph.constant(id) {
            see(graph.name_of(id), tensor);
        }
    }
    let attrs = graph.nodes().flat_map(|(_, node)| &node.attrs);
    attrs.flat_map(|(_, attr)| attr.graphs()).for_each(|inner| each(inner, see));
}
