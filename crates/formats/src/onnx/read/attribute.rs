//! `AttributeProto` to [`Attr`].

use super::{Context, graph, tensor};
use crate::onnx::schema::{AttributeProto, TensorProto, attribute_type as kind};
use fewbit_core::{Attr, Error, Result, ResultExt, Tensor};
use prost::Message;

/// Decodes one attribute; its name apart.
///
/// # Errors
/// When the declared kind and the field in use differ, or the value is damaged.
pub(super) fn decode(mut proto: AttributeProto, context: &Context) -> Result<Attr> {
    if !proto.ref_attr_name().is_empty() {
        return Err(Error::bad_input("refers to an attribute of a function, but stands in none")
            .code("FB-3243"));
    }
    let used = used_kinds(&proto);
    let declared = proto.r#type.unwrap_or(kind::UNDEFINED);
    let kind = match (declared, &used[..]) {
        (kind::UNDEFINED, [one]) => *one,
        (kind::UNDEFINED, []) => return Err(wrong("no value and no `type`".into())),
        (declared, []) => declared,
        (declared, [one]) if declared == *one => declared,
        (declared, used) => {
            let used: Vec<&str> = used.iter().map(|&k| kind_name(k)).collect();
            let what = format!("`type` is {}, found {}", kind_name(declared), used.join(" and "));
            return Err(wrong(what));
        }
    };
    proto.r#type = Some(kind);
    value(proto, kind, context)
}

fn wrong(what: String) -> Error {
    Error::bad_input(what).code("FB-3103")
}

fn value(proto: AttributeProto, kind: i32, context: &Context) -> Result<Attr> {
    Ok(match kind {
        kind::FLOAT => Attr::Float(proto.f.unwrap_or_default()),
        kind::INT => Attr::Int(proto.i.unwrap_or_default()),
        kind::STRING => Attr::String(proto.s.unwrap_or_default().to_vec()),
        kind::TENSOR => {
            let proto = proto.t.ok_or_else(|| wrong("`t` is missing".into()))?;
            Attr::Tensor(tensor::decode(&proto, &context.external).at(|| "t")?)
        }
        kind::GRAPH => {
            let proto = proto.g.ok_or_else(|| wrong("`g` is missing".into()))?;
            Attr::Graph(Box::new(graph::build(proto, context)?))
        }
        kind::FLOATS => Attr::Floats(proto.floats),
        kind::INTS => Attr::Ints(proto.ints),
        kind::STRINGS => Attr::Strings(proto.strings.iter().map(|s| s.to_vec()).collect()),
        kind::TENSORS => Attr::Tensors(tensors(&proto.tensors, context)?),
        kind::GRAPHS => {
            let graphs = proto.graphs.into_iter().map(|g| graph::build(g, context));
            Attr::Graphs(graphs.collect::<Result<_>>()?)
        }
        _ => Attr::Opaque(proto.encode_to_vec()),
    })
}

fn tensors(protos: &[TensorProto], context: &Context) -> Result<Vec<Tensor>> {
    let decode = |(index, proto)| {
        tensor::decode(proto, &context.external).at(|| format!("tensors[{index}]"))
    };
    protos.iter().enumerate().map(decode).collect()
}

fn used_kinds(proto: &AttributeProto) -> Vec<i32> {
    let used = [
        // Some writers set every scalar field, to zero where it is not in use.
        (kind::FLOAT, proto.f.is_some_and(|f| f.to_bits() != 0)),
        (kind::INT, proto.i.is_some_and(|i| i != 0)),
        (kind::STRING, proto.s.as_ref().is_some_and(|s| !s.is_empty())),
        (kind::TENSOR, proto.t.is_some()),
        (kind::GRAPH, proto.g.is_some()),
        (kind::FLOATS, !proto.floats.is_empty()),
        (kind::INTS, !proto.ints.is_empty()),
        (kind::STRINGS, !proto.strings.is_empty()),
        (kind::TENSORS, !proto.tensors.is_empty()),
        (kind::GRAPHS, !proto.graphs.is_empty()),
        (kind::SPARSE_TENSOR, proto.sparse_tensor.is_some()),
        (kind::SPARSE_TENSORS, !proto.sparse_tensors.is_empty()),
        (kind::TYPE_PROTO, proto.tp.is_some()),
        (kind::TYPE_PROTOS, !proto.type_protos.is_empty()),
    ];
    used.into_iter().filter(|(_, used)| *used).map(|(kind, _)| kind).collect()
}

fn kind_name(code: i32) -> &'static str {
    const NAMES: [&str; 15] = [
        "UNDEFINED",
        "FLOAT",
        "INT",
        "STRING",
        "TENSOR",
        "GRAPH",
        "FLOATS",
        "INTS",
        "STRINGS",
        "TENSORS",
        "GRAPHS",
        "SPARSE_TENSOR",
        "SPARSE_TENSORS",
        "TYPE_PROTO",
        "TYPE_PROTOS",
    ];
    usize::try_from(code).ok().and_then(|i| NAMES.get(i)).copied().unwrap_or("an unknown kind")
}
