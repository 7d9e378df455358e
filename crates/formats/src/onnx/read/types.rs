//! `TypeProto` to [`ValueType`], and what of a `ValueInfoProto` is carried along.

use crate::onnx::schema::{
    DimensionProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use bytes::Bytes;
use fewbit_core::{DType, Dim, Error, Result, ResultExt, ValueType};
use prost::Message;

/// A declared value: its type, and the rest of the message for [`crate::onnx`] to carry.
#[derive(Clone, Default)]
pub(super) struct Declared {
    pub(super) ty: ValueType,
    pub(super) rest: Option<ValueInfoProto>,
}

/// Decodes the type of a value and splits off what [`ValueType`] cannot say.
pub(super) fn declared(info: &ValueInfoProto) -> Result<Declared> {
    let (ty, named) = match &info.r#type {
        None => (ValueType::default(), None),
        Some(encoded) => value_type(encoded).at(|| "type")?,
    };
    let rest = ValueInfoProto {
        name: None,
        r#type: named.map(|t| t.encode_to_vec().into()),
        doc_string: info.doc_string.clone().filter(|s| !s.is_empty()),
        metadata_props: info.metadata_props.clone(),
    };
    let rest = (rest != ValueInfoProto::default()).then_some(rest);
    Ok(Declared { ty, rest })
}

/// The type, and the same message with nothing but its denotations (if it has any).
fn value_type(encoded: &Bytes) -> Result<(ValueType, Option<TypeProto>)> {
    let proto = TypeProto::decode(encoded.clone())
        .map_err(|e| Error::bad_input(e.to_string()).code("FB-3201"))?;
    let Some(tensor) = &proto.tensor_type else {
        let opaque = (!encoded.is_empty()).then(|| encoded.to_vec());
        return Ok((ValueType { opaque, ..Default::default() }, None));
    };
    let dtype = match tensor.elem_type.unwrap_or(0) {
        0 => None,
        code => Some(element_type("elem_type", code)?),
    };
    let dims = tensor.shape.as_ref().map(|s| s.dim.iter().enumerate().map(dimension).collect());
    let shape = dims.transpose()?;
    Ok((ValueType { dtype, shape, opaque: None }, denotations(&proto, tensor)))
}

/// The type of elements that a field names by its number.
pub(super) fn element_type(field: &str, code: i32) -> Result<DType> {
    DType::from_onnx(code).ok_or_else(|| {
        let name = match code {
            27 => " (float6e2m3)",
            28 => " (float6e3m2)",
            _ => "",
        };
        Error::unsupported(format!("`{field}` {code}{name} is unknown; 1 to 26 are allowed"))
            .code("FB-4101")
    })
}

fn dimension((axis, dim): (usize, &DimensionProto)) -> Result<Dim> {
    match (dim.dim_value, &dim.dim_param) {
        // Some exporters write -1 for a size they do not know.
        (Some(-1), _) => Ok(Dim::Unknown),
        (Some(size), _) => usize::try_from(size).map(Dim::Known).map_err(|_| {
            Error::bad_input(format!("shape.dim[{axis}] is {size}, a negative size"))
                .code("FB-3220")
        }),
        (None, Some(name)) if !name.is_empty() => Ok(Dim::Named(name.clone())),
        (None, _) => Ok(Dim::Unknown),
    }
}

fn denotations(proto: &TypeProto, tensor: &TensorTypeProto) -> Option<TypeProto> {
    let strip = |d: &DimensionProto| DimensionProto {
        denotation: d.denotation.clone(),
        ..Default::default()
    };
    let dim: Vec<_> = tensor.shape.iter().flat_map(|s| &s.dim).map(strip).collect();
    let any = proto.denotation.is_some() || dim.iter().any(|d| d.denotation.is_some());
    any.then(|| TypeProto {
        tensor_type: Some(TensorTypeProto {
            elem_type: None,
            shape: Some(TensorShapeProto { dim }),
        }),
        denotation: proto.denotation.clone(),
    })
}
