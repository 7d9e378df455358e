//! [`Tensor`] to `TensorProto`, its bytes here or in the external data file.

use crate::limits::MIN_EXTERNAL_BYTES;
use crate::onnx::schema::{StringStringEntryProto, TensorProto};
use bytes::Bytes;
use fewbit_core::{SharedBytes, Tensor};

/// Tensors of at least this size start on a page, so that readers can map them.
const PAGE: u64 = 4096;

/// Every external tensor starts on a cache line.
const LINE: u64 = 64;

/// Tensors that go to a file of their own, in the order of their offsets.
pub(super) struct ExternalPlan {
    /// Name of that file, relative to the model.
    pub(super) location: String,
    /// Start of each tensor and its bytes.
    pub(super) parts: Vec<(u64, SharedBytes)>,
    /// Where the file ends so far.
    pub(super) end: u64,
}

impl ExternalPlan {
    pub(super) fn new(location: String) -> Self {
        ExternalPlan { location, parts: Vec::new(), end: 0 }
    }

    /// Finds a place for the tensor; what `external_data` shall say.
    fn add(&mut self, bytes: &SharedBytes) -> Vec<StringStringEntryProto> {
        let len = bytes.as_ref().len() as u64;
        let start = self.end.next_multiple_of(if len >= PAGE { PAGE } else { LINE });
        self.parts.push((start, bytes.clone()));
        self.end = start + len;
        let entry = |key: &str, value: String| StringStringEntryProto {
            key: Some(key.to_string()),
            value: Some(value),
        };
        vec![
            entry("location", self.location.clone()),
            entry("offset", start.to_string()),
            entry("length", len.to_string()),
        ]
    }
}

/// Encodes a tensor; large ones go to `external` if there is such a file.
pub(super) fn encode(tensor: &Tensor, external: Option<&mut ExternalPlan>) -> TensorProto {
    let mut proto = TensorProto {
        dims: tensor.shape().iter().map(|&d| d as i64).collect(),
        data_type: Some(tensor.dtype().to_onnx()),
        ..Default::default()
    };
    match (tensor.shared_bytes(), external) {
        (Some(bytes), Some(plan)) if bytes.as_ref().len() >= MIN_EXTERNAL_BYTES => {
            proto.external_data = plan.add(bytes);
            proto.data_location = Some(1);
        }
        (Some(bytes), _) => proto.raw_data = Some(Bytes::from_owner(bytes.clone())),
        (None, _) => {
            let strings = tensor.strings().unwrap_or_default();
            proto.string_data = strings.iter().map(|s| Bytes::copy_from_slice(s)).collect();
        }
    }
    proto
}
