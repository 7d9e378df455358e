//! A model's messages to a stream, without a second copy of the weights in memory.
//!
//! The outer two messages (model, graph) and the initializers are written field by field, so
//! that raw bytes go from where they are straight to the stream; everything else is small.

use crate::onnx::schema::{GraphProto, ModelProto, TensorProto};
use prost::Message;
use prost::encoding::encode_varint;
use std::io::{self, Write};

/// Protobuf wire type of strings, bytes and messages.
const LENGTH_DELIMITED: u32 = 2;

/// Field numbers of `onnx.proto`.
const MODEL_GRAPH: u32 = 7;
const GRAPH_INITIALIZER: u32 = 5;
const TENSOR_RAW_DATA: u32 = 9;

/// Writes an encoded model; its length is [`Message::encoded_len`].
pub(super) fn model(mut proto: ModelProto, out: &mut impl Write) -> io::Result<()> {
    let body = proto.graph.take();
    out.write_all(&proto.encode_to_vec())?;
    match body {
        None => Ok(()),
        Some(body) => {
            key(MODEL_GRAPH, body.encoded_len(), out)?;
            graph(body, out)
        }
    }
}

fn graph(mut proto: GraphProto, out: &mut impl Write) -> io::Result<()> {
    let nodes = std::mem::take(&mut proto.node);
    let initializers = std::mem::take(&mut proto.initializer);
    for node in nodes {
        key(1, node.encoded_len(), out)?;
        out.write_all(&node.encode_to_vec())?;
    }
    for tensor in initializers {
        key(GRAPH_INITIALIZER, tensor.encoded_len(), out)?;
        initializer(tensor, out)?;
    }
    out.write_all(&proto.encode_to_vec())
}

fn initializer(mut proto: TensorProto, out: &mut impl Write) -> io::Result<()> {
    let raw = proto.raw_data.take();
    out.write_all(&proto.encode_to_vec())?;
    match raw {
        None => Ok(()),
        Some(raw) => {
            key(TENSOR_RAW_DATA, raw.len(), out)?;
            out.write_all(&raw)
        }
    }
}

fn key(field: u32, len: usize, out: &mut impl Write) -> io::Result<()> {
    let mut head = Vec::with_capacity(16);
    encode_varint(u64::from(field << 3 | LENGTH_DELIMITED), &mut head);
    encode_varint(len as u64, &mut head);
    out.write_all(&head)
}
