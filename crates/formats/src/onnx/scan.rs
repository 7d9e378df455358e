//! A walk over the encoded bytes before anything is decoded.
//!
//! It finds what is damaged and says at which byte and in which field, bounds nesting and the
//! number of messages before memory is spent on them, and touches no weights. What passes here
//! the decoder takes without an error of its own.

use crate::limits::{MAX_MESSAGE_DEPTH, MAX_MESSAGES};
use fewbit_core::{Error, Result, ResultExt};

/// Messages of the ONNX schema, as far as the walk goes into them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ModelProto`.
    Model,
    /// `GraphProto`.
    Graph,
    /// `NodeProto`.
    Node,
    /// `AttributeProto`.
    Attribute,
    /// `TensorProto`.
    Tensor,
    /// `SparseTensorProto`.
    Sparse,
    /// `ValueInfoProto`.
    ValueInfo,
    /// `TypeProto`, of which only tensors are looked into.
    Type,
    /// `TypeProto.Tensor`.
    TensorType,
    /// `TensorShapeProto`.
    Shape,
    /// `TensorShapeProto.Dimension`.
    Dimension,
    /// `FunctionProto`.
    Function,
    /// `StringStringEntryProto`.
    Entry,
    /// `OperatorSetIdProto`.
    Opset,
    /// `TensorAnnotation`.
    Annotation,
}

/// How a field is encoded.
#[derive(Clone, Copy)]
enum Form {
    /// An integer.
    Varint,
    /// Integers, packed or not.
    Varints,
    /// A 32-bit number.
    Fixed32,
    /// 32-bit numbers, packed or not.
    Fixed32s,
    /// 64-bit numbers, packed or not.
    Fixed64s,
    /// Bytes of any content.
    Bytes,
    /// UTF-8.
    Text,
    /// A message.
    Message(Kind),
}

use Form::{Bytes, Fixed32, Fixed32s, Fixed64s, Message, Text, Varint, Varints};

type Field = (u32, &'static str, Form);

const fn entry(number: u32, name: &'static str) -> Field {
    (number, name, Message(Kind::Entry))
}

const MODEL: &[Field] = &[
    (1, "ir_version", Varint),
    (2, "producer_name", Text),
    (3, "producer_version", Text),
    (4, "domain", Text),
    (5, "model_version", Varint),
    (6, "doc_string", Text),
    (7, "graph", Message(Kind::Graph)),
    (8, "opset_import", Message(Kind::Opset)),
    entry(14, "metadata_props"),
    (20, "training_info", Bytes),
    (25, "functions", Message(Kind::Function)),
    (26, "configuration", Bytes),
];

const GRAPH: &[Field] = &[
    (1, "node", Message(Kind::Node)),
    (2, "name", Text),
    (5, "initializer", Message(Kind::Tensor)),
    (10, "doc_string", Text),
    (11, "input", Message(Kind::ValueInfo)),
    (12, "output", Message(Kind::ValueInfo)),
    (13, "value_info", Message(Kind::ValueInfo)),
    (14, "quantization_annotation", Message(Kind::Annotation)),
    (15, "sparse_initializer", Message(Kind::Sparse)),
    entry(16, "metadata_props"),
];

const NODE: &[Field] = &[
    (1, "input", Text),
    (2, "output", Text),
    (3, "name", Text),
    (4, "op_type", Text),
    (5, "attribute", Message(Kind::Attribute)),
    (6, "doc_string", Text),
    (7, "domain", Text),
    (8, "overload", Text),
    entry(9, "metadata_props"),
    (10, "device_configurations", Bytes),
];

const ATTRIBUTE: &[Field] = &[
    (1, "name", Text),
    (2, "f", Fixed32),
    (3, "i", Varint),
    (4, "s", Bytes),
    (5, "t", Message(Kind::Tensor)),
    (6, "g", Message(Kind::Graph)),
    (7, "floats", Fixed32s),
    (8, "ints", Varints),
    (9, "strings", Bytes),
    (10, "tensors", Message(Kind::Tensor)),
    (11, "graphs", Message(Kind::Graph)),
    (13, "doc_string", Text),
    (14, "tp", Bytes),
    (15, "type_protos", Bytes),
    (20, "type", Varint),
    (21, "ref_attr_name", Text),
    (22, "sparse_tensor", Message(Kind::Sparse)),
    (23, "sparse_tensors", Message(Kind::Sparse)),
];

const TENSOR: &[Field] = &[
    (1, "dims", Varints),
    (2, "data_type", Varint),
    (3, "segment", Bytes),
    (4, "float_data", Fixed32s),
    (5, "int32_data", Varints),
    (6, "string_data", Bytes),
    (7, "int64_data", Varints),
    (8, "name", Text),
    (9, "raw_data", Bytes),
    (10, "double_data", Fixed64s),
    (11, "uint64_data", Varints),
    (12, "doc_string", Text),
    entry(13, "external_data"),
    (14, "data_location", Varint),
    entry(16, "metadata_props"),
];

const SPARSE: &[Field] = &[
    (1, "values", Message(Kind::Tensor)),
    (2, "indices", Message(Kind::Tensor)),
    (3, "dims", Varints),
];

const VALUE_INFO: &[Field] = &[
    (1, "name", Text),
    (2, "type", Message(Kind::Type)),
    (3, "doc_string", Text),
    entry(4, "metadata_props"),
];

const TYPE: &[Field] = &[(1, "tensor_type", Message(Kind::TensorType)), (6, "denotation", Text)];
const TENSOR_TYPE: &[Field] = &[(1, "elem_type", Varint), (2, "shape", Message(Kind::Shape))];
const SHAPE: &[Field] = &[(1, "dim", Message(Kind::Dimension))];
const DIMENSION: &[Field] =
    &[(1, "dim_value", Varint), (2, "dim_param", Text), (3, "denotation", Text)];

const FUNCTION: &[Field] = &[
    (1, "name", Text),
    (4, "input", Text),
    (5, "output", Text),
    (6, "attribute", Text),
    (7, "node", Message(Kind::Node)),
    (8, "doc_string", Text),
    (9, "opset_import", Message(Kind::Opset)),
    (10, "domain", Text),
    (11, "attribute_proto", Message(Kind::Attribute)),
    (12, "value_info", Message(Kind::ValueInfo)),
    (13, "overload", Text),
    entry(14, "metadata_props"),
];

const ENTRY: &[Field] = &[(1, "key", Text), (2, "value", Text)];
const OPSET: &[Field] = &[(1, "domain", Text), (2, "version", Varint)];
const ANNOTATION: &[Field] = &[(1, "tensor_name", Text), entry(2, "quant_parameter_tensor_names")];

impl Kind {
    fn fields(self) -> &'static [Field] {
        match self {
            Kind::Model => MODEL,
            Kind::Graph => GRAPH,
            Kind::Node => NODE,
            Kind::Attribute => ATTRIBUTE,
            Kind::Tensor => TENSOR,
            Kind::Sparse => SPARSE,
            Kind::ValueInfo => VALUE_INFO,
            Kind::Type => TYPE,
            Kind::TensorType => TENSOR_TYPE,
            Kind::Shape => SHAPE,
            Kind::Dimension => DIMENSION,
            Kind::Function => FUNCTION,
            Kind::Entry => ENTRY,
            Kind::Opset => OPSET,
            Kind::Annotation => ANNOTATION,
        }
    }
}

impl Kind {
    /// The field without which such a message says nothing. To ask for it here keeps a file of
    /// empty messages from filling the memory with what they decode to.
    fn required(self) -> Option<(u32, &'static str)> {
        match self {
            Kind::Node => Some((4, "op_type")),
            Kind::Attribute => Some((1, "name")),
            Kind::Tensor => Some((2, "data_type")),
            Kind::ValueInfo => Some((1, "name")),
            _ => None,
        }
    }
}

/// Walks an encoded message of the given kind.
///
/// # Errors
/// The first damaged field, with its byte offset and its path.
pub fn scan(bytes: &[u8], kind: Kind) -> Result<()> {
    let mut walk = Walk { bytes, position: 0, messages: 0 };
    walk.message(kind, bytes.len(), 0)
}

struct Walk<'a> {
    bytes: &'a [u8],
    position: usize,
    messages: usize,
}

/// Highest field number of any message here.
const MAX_FIELD: usize = 26;

impl Walk<'_> {
    fn message(&mut self, kind: Kind, end: usize, depth: usize) -> Result<()> {
        self.messages += 1;
        if self.messages > MAX_MESSAGES {
            let limit = format!("more than {MAX_MESSAGES} nodes, tensors and attributes");
            return Err(Error::resource(limit).code("FB-5203"));
        }
        if depth > MAX_MESSAGE_DEPTH {
            let limit = format!("messages nest deeper than {MAX_MESSAGE_DEPTH}");
            return Err(Error::bad_input(limit).code("FB-3105"));
        }
        let mut seen = [0u32; MAX_FIELD + 1];
        while self.position < end {
            let start = self.position;
            let (number, wire) = self.key(end)?;
            let known = kind.fields().iter().find(|(n, ..)| *n == number);
            let Some(&(_, name, form)) = known else {
                self.skip(wire, end).at(|| format!("unknown field {number}"))?;
                continue;
            };
            let index = seen[number as usize];
            seen[number as usize] += 1;
            self.field(form, wire, end, depth, start).at(|| format!("{name}[{index}]"))?;
        }
        match kind.required() {
            Some((number, name)) if seen[number as usize] == 0 => {
                let what = format!("`{name}` is missing (byte {end})");
                Err(Error::bad_input(what).code("FB-3204"))
            }
            _ => Ok(()),
        }
    }

    fn field(
        &mut self,
        form: Form,
        wire: u8,
        end: usize,
        depth: usize,
        start: usize,
    ) -> Result<()> {
        match (form, wire) {
            (Varint | Varints, 0) => self.varint(end).map(drop),
            (Fixed32 | Fixed32s, 5) => self.advance(4, end),
            (Fixed64s, 1) => self.advance(8, end),
            (Varints, 2) => self.packed_varints(end),
            (Fixed32s, 2) => self.packed_fixed(4, end),
            (Fixed64s, 2) => self.packed_fixed(8, end),
            (Bytes, 2) => self.skip(2, end),
            (Text, 2) => self.text(end),
            (Message(kind), 2) => {
                let end = self.length(end)?;
                self.message(kind, end, depth + 1)
            }
            _ => Err(damaged(format!("wire type {wire} does not fit the field"), start)),
        }
    }

    fn key(&mut self, end: usize) -> Result<(u32, u8)> {
        let start = self.position;
        let key = self.varint(end)?;
        let number = u32::try_from(key >> 3).unwrap_or(0);
        if number == 0 || number >= 1 << 29 {
            return Err(damaged(format!("{} is no field number", key >> 3), start));
        }
        Ok((number, (key & 7) as u8))
    }

    fn varint(&mut self, end: usize) -> Result<u64> {
        let start = self.position;
        let mut value = 0u64;
        for shift in 0..10 {
            let Some(&byte) = self.bytes[..end].get(self.position) else {
                return Err(damaged("the message ends inside a number", start));
            };
            self.position += 1;
            value |= u64::from(byte & 0x7f).wrapping_shl(7 * shift);
            if byte < 0x80 {
                // The tenth byte holds the one bit that is left of 64.
                let fits = shift < 9 || byte < 2;
                return if fits { Ok(value) } else { Err(too_long(start)) };
            }
        }
        Err(too_long(start))
    }

    /// Reads a length and returns where it ends.
    fn length(&mut self, end: usize) -> Result<usize> {
        let start = self.position;
        let len = self.varint(end)?;
        let left = end - self.position;
        match usize::try_from(len) {
            Ok(len) if len <= left => Ok(self.position + len),
            _ => Err(damaged(format!("{len} bytes announced, {left} left"), start)),
        }
    }

    fn advance(&mut self, count: usize, end: usize) -> Result<()> {
        if end - self.position < count {
            return Err(damaged("the message ends inside a number", self.position));
        }
        self.position += count;
        Ok(())
    }

    fn skip(&mut self, wire: u8, end: usize) -> Result<()> {
        match wire {
            0 => self.varint(end).map(drop),
            1 => self.advance(8, end),
            2 => {
                self.position = self.length(end)?;
                Ok(())
            }
            5 => self.advance(4, end),
            3 | 4 => Err(damaged("groups are not part of ONNX", self.position)),
            _ => Err(damaged(format!("wire type {wire} does not exist"), self.position)),
        }
    }

    fn text(&mut self, end: usize) -> Result<()> {
        let end = self.length(end)?;
        let text = &self.bytes[self.position..end];
        if let Err(error) = std::str::from_utf8(text) {
            let offset = self.position + error.valid_up_to();
            return Err(Error::bad_input(format!("not UTF-8 (byte {offset})")).code("FB-3203"));
        }
        self.position = end;
        Ok(())
    }

    fn packed_varints(&mut self, end: usize) -> Result<()> {
        let end = self.length(end)?;
        while self.position < end {
            self.varint(end)?;
        }
        Ok(())
    }

    fn packed_fixed(&mut self, size: usize, end: usize) -> Result<()> {
        let start = self.position;
        let end = self.length(end)?;
        if !(end - self.position).is_multiple_of(size) {
            let len = end - self.position;
            return Err(damaged(format!("{len} bytes hold no whole {size}-byte numbers"), start));
        }
        self.position = end;
        Ok(())
    }
}

fn damaged(what: impl Into<String>, offset: usize) -> Error {
    Error::bad_input(format!("{} (byte {offset})", what.into())).code("FB-3201")
}

fn too_long(offset: usize) -> Error {
    damaged("a number is longer than 64 bits", offset)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(bytes: &[u8]) -> Error {
        scan(bytes, Kind::Model).expect_err("must be refused")
    }

    #[test]
    fn damage_is_placed() {
        let cases: &[(&[u8], &str)] = &[
            (b"\x08", "ir_version[0]: the message ends inside a number (byte 1)"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "longer than 64 bits (byte 1)"),
            (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", "longer than 64 bits (byte 1)"),
            (b"\x08\x08\x3a\x05\x0a\x09", "5 bytes announced, 2 left (byte 3)"),
            (b"\x3a\x02\x0a\x09", "graph[0]: node[0]: 9 bytes announced, 0 left (byte 3)"),
            (b"\x3a\x07\x0a\x03\x22\x01x\x0a\x05", "graph[0]: node[1]: 5 bytes announced, 0 left"),
            (b"\x3a\x02\x0a\x00", "graph[0]: node[0]: `op_type` is missing (byte 4)"),
            (b"\x12\x01\xff", "producer_name[0]: not UTF-8 (byte 2)"),
            (b"\x0a\x00", "wire type 2 does not fit the field (byte 0)"),
            (b"\xfb\x01\xfb\x01", "unknown field 31: groups are not part of ONNX"),
            (b"\x00\x00", "0 is no field number (byte 0)"),
            (b"\x0f", "wire type 7 does not fit"),
        ];
        for (bytes, expected) in cases {
            let error = model(bytes).to_string();
            assert!(error.contains(expected), "{bytes:x?}: {error}");
        }
    }

    #[test]
    fn unknown_fields_pass() {
        scan(b"\x08\x08\xf8\x3f\x01\xfa\x3f\x02ab\xf9\x3f12345678\xfd\x3f1234", Kind::Model)
            .unwrap();
    }

    /// `levels` subgraphs nested in each other.
    fn nested(levels: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        // From the inside out: attribute.g, node.attribute, graph.node; at last model.graph.
        let keys = [0x32, 0x2a, 0x0a].into_iter().cycle().take(3 * levels).chain([0x3a]);
        for key in keys {
            let mut outer = vec![key];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend(&bytes);
            match key {
                0x32 => bytes = [b"\x0a\x01g", &outer[..]].concat(),
                0x2a => bytes = [b"\x22\x01x", &outer[..]].concat(),
                _ => bytes = outer,
            }
        }
        bytes
    }

    #[test]
    fn nesting_is_bounded() {
        scan(&nested(32), Kind::Model).unwrap();
        assert_eq!(model(&nested(33)).stable_code(), "FB-3105");
        assert_eq!(model(&nested(10_000)).stable_code(), "FB-3105");
    }
}
