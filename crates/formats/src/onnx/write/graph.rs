//! [`Graph`] to `GraphProto`.

use super::tensor::{ExternalPlan, encode};
use crate::onnx::schema::{
    AttributeProto, DimensionProto, GraphProto, NodeProto, SparseTensorProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type as kind,
};
use bytes::Bytes;
use fewbit_core::{Attr, Dim, Error, Graph, Node, Result, ResultExt, ValueId, ValueType};
use prost::Message;
use std::collections::HashSet;

/// What the parts of the writer share.
pub(super) struct Context {
    /// IR versions before 4 allow an initializer only as the default of an input.
    pub(super) initializers_are_inputs: bool,
    /// Where large weights go.
    pub(super) external: Option<ExternalPlan>,
}

/// Encodes a graph and its subgraphs. Weights are shared, not copied.
///
/// # Errors
/// When bytes that were carried along are damaged.
pub(super) fn encode_graph(graph: &Graph, context: &mut Context) -> Result<GraphProto> {
    let carried: GraphProto = decode(&graph.carried)?;
    let mut proto = GraphProto {
        name: Some(graph.name.clone()),
        doc_string: text(&graph.doc),
        quantization_annotation: carried.quantization_annotation,
        metadata_props: carried.metadata_props,
        ..Default::default()
    };
    constants(graph, &mut proto, context)?;
    for (id, node) in graph.nodes() {
        match sparse_initializer(graph, node)? {
            Some(sparse) => proto.sparse_initializer.push(sparse),
            None => {
                let node = encode_node(graph, node, context).at(|| graph.label(id))?;
                proto.node.push(node);
            }
        }
    }
    let infos = |ids: &[ValueId]| -> Result<Vec<ValueInfoProto>> {
        ids.iter().map(|&id| value_info(graph, id)).collect()
    };
    proto.input = infos(graph.inputs()).at(|| "input")?;
    proto.output = infos(graph.outputs()).at(|| "output")?;
    proto.value_info = infos(&described(graph)).at(|| "value_info")?;
    Ok(proto)
}

/// Decodes a message that was carried along; an empty one is the default.
pub(super) fn decode<M: Message + Default>(encoded: &[u8]) -> Result<M> {
    M::decode(encoded).map_err(|e| Error::internal(format!("carried bytes are damaged: {e}")))
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

/// Constants become initializers; where those are not allowed, `Constant` nodes.
fn constants(graph: &Graph, proto: &mut GraphProto, context: &mut Context) -> Result<()> {
    let inputs: HashSet<ValueId> = graph.inputs().iter().copied().collect();
    let outputs: HashSet<ValueId> = graph.outputs().iter().copied().collect();
    for id in graph.value_ids() {
        let value = graph.value(id);
        let Some(tensor) = &value.constant else { continue };
        // Not every runtime lets a graph give out an initializer.
        let is_node =
            !inputs.contains(&id) && (outputs.contains(&id) || context.initializers_are_inputs);
        if is_node {
            let value_of = encode(tensor, None);
            proto.node.push(constant_node(&value.name, value_of));
            continue;
        }
        let carried: GraphProto = decode(&value.carried)?;
        let rest = carried.initializer.into_iter().next().unwrap_or_default();
        let mut encoded = encode(tensor, context.external.as_mut());
        encoded.name = Some(value.name.clone());
        encoded.doc_string = rest.doc_string;
        encoded.metadata_props = rest.metadata_props;
        proto.initializer.push(encoded);
    }
    Ok(())
}

fn constant_node(name: &str, value: TensorProto) -> NodeProto {
    NodeProto {
        op_type: Some("Constant".to_string()),
        output: vec![name.to_string()],
        attribute: vec![AttributeProto {
            name: Some("value".to_string()),
            r#type: Some(kind::TENSOR),
            t: Some(value),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The reader turns a sparse initializer into a `Constant` whose tensor has the value's name.
fn sparse_initializer(graph: &Graph, node: &Node) -> Result<Option<SparseTensorProto>> {
    let (true, [(_, Attr::Opaque(encoded))], Some(output)) =
        (node.is("Constant"), &node.attrs[..], node.output(0))
    else {
        return Ok(None);
    };
    let attribute: AttributeProto = decode(encoded)?;
    let is_named = |s: &SparseTensorProto| {
        s.values.as_ref().is_some_and(|v| !v.name().is_empty() && v.name() == graph.name_of(output))
    };
    Ok(attribute.sparse_tensor.filter(is_named))
}

fn encode_node(graph: &Graph, node: &Node, context: &mut Context) -> Result<NodeProto> {
    let carried: NodeProto = decode(&node.carried)?;
    let names = |slots: &[Option<ValueId>]| {
        slots.iter().map(|v| v.map_or("", |v| graph.name_of(v)).to_string()).collect()
    };
    let mut proto = NodeProto {
        input: names(&node.inputs),
        output: names(&node.outputs),
        name: text(&node.name),
        op_type: Some(node.op.clone()),
        domain: text(&node.domain),
        doc_string: text(&node.doc),
        overload: carried.overload,
        metadata_props: carried.metadata_props,
        device_configurations: carried.device_configurations,
        ..Default::default()
    };
    for (name, attr) in &node.attrs {
        let mut attribute = encode_attr(attr, context).at(|| format!("attribute {name:?}"))?;
        attribute.name = Some(name.clone());
        let note = carried.attribute.iter().find(|a| a.name() == name);
        if let Some(note) = note {
            attribute.doc_string = note.doc_string.clone();
        }
        proto.attribute.push(attribute);
    }
    Ok(proto)
}

fn encode_attr(attr: &Attr, context: &mut Context) -> Result<AttributeProto> {
    let of = |code: i32| AttributeProto { r#type: Some(code), ..Default::default() };
    let bytes = |s: &Vec<u8>| Bytes::copy_from_slice(s);
    Ok(match attr {
        Attr::Float(v) => AttributeProto { f: Some(*v), ..of(kind::FLOAT) },
        Attr::Int(v) => AttributeProto { i: Some(*v), ..of(kind::INT) },
        Attr::String(v) => AttributeProto { s: Some(bytes(v)), ..of(kind::STRING) },
        Attr::Tensor(v) => AttributeProto { t: Some(encode(v, None)), ..of(kind::TENSOR) },
        Attr::Graph(v) => AttributeProto { g: Some(encode_graph(v, context)?), ..of(kind::GRAPH) },
        Attr::Floats(v) => AttributeProto { floats: v.clone(), ..of(kind::FLOATS) },
        Attr::Ints(v) => AttributeProto { ints: v.clone(), ..of(kind::INTS) },
        Attr::Strings(v) => {
            AttributeProto { strings: v.iter().map(bytes).collect(), ..of(kind::STRINGS) }
        }
        Attr::Tensors(v) => {
            let tensors = v.iter().map(|t| encode(t, None)).collect();
            AttributeProto { tensors, ..of(kind::TENSORS) }
        }
        Attr::Graphs(v) => {
            let graphs = v.iter().map(|g| encode_graph(g, context)).collect::<Result<_>>()?;
            AttributeProto { graphs, ..of(kind::GRAPHS) }
        }
        Attr::Opaque(encoded) => decode(encoded)?,
    })
}

/// Values between nodes of which something is known, where something uses them.
fn described(graph: &Graph) -> Vec<ValueId> {
    let mut used: HashSet<ValueId> = HashSet::new();
    for (_, node) in graph.nodes() {
        used.extend(node.inputs.iter().chain(&node.outputs).flatten());
    }
    graph.inputs().iter().chain(graph.outputs()).for_each(|id| {
        used.remove(id);
    });
    let known = |id: &ValueId| {
        let value = graph.value(*id);
        let said = value.ty != ValueType::default() || !value.carried.is_empty();
        used.contains(id) && value.constant.is_none() && said
    };
    graph.value_ids().filter(known).collect()
}

fn value_info(graph: &Graph, id: ValueId) -> Result<ValueInfoProto> {
    let value = graph.value(id);
    let carried: GraphProto = decode(&value.carried)?;
    let rest = carried.value_info.into_iter().next().unwrap_or_default();
    let named: Option<TypeProto> = rest.r#type.as_deref().map(decode).transpose()?;
    Ok(ValueInfoProto {
        name: Some(value.name.clone()),
        r#type: encode_type(&value.ty, named.unwrap_or_default()),
        doc_string: rest.doc_string,
        metadata_props: rest.metadata_props,
    })
}

/// The encoded type, with the denotations that were carried along where they still fit.
fn encode_type(ty: &ValueType, named: TypeProto) -> Option<Bytes> {
    if let Some(opaque) = &ty.opaque {
        return Some(Bytes::copy_from_slice(opaque));
    }
    if ty.dtype.is_none() && ty.shape.is_none() {
        return None;
    }
    let names = named.tensor_type.and_then(|t| t.shape).map(|s| s.dim).unwrap_or_default();
    let shape = ty.shape.as_ref().map(|dims| {
        let fits = names.len() == dims.len();
        let name = |axis: usize| if fits { names[axis].denotation.clone() } else { None };
        let dim = dims.iter().enumerate().map(|(axis, dim)| encode_dim(dim, name(axis))).collect();
        TensorShapeProto { dim }
    });
    let tensor = TensorTypeProto { elem_type: ty.dtype.map(|d| d.to_onnx()), shape };
    let proto = TypeProto { tensor_type: Some(tensor), denotation: named.denotation };
    Some(proto.encode_to_vec().into())
}

fn encode_dim(dim: &Dim, denotation: Option<String>) -> DimensionProto {
    let mut proto = DimensionProto { denotation, ..Default::default() };
    match dim {
        Dim::Known(size) => proto.dim_value = Some(*size as i64),
        Dim::Named(name) => proto.dim_param = Some(name.clone()),
        Dim::Unknown => {}
    }
    proto
}
