//! Files made in code.

use fewbit_core::Error;
use fewbit_formats::onnx::Bytes;
use fewbit_formats::safetensors::{self, SafetensorsFile};

/// A file of this header and this data.
pub fn file(header: &[u8], data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    file
}

/// A header entry.
pub fn entry(name: &str, dtype: &str, shape: &str, begin: u64, end: u64) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{begin},{end}]}}"#)
}

/// A file of these entries.
pub fn of(entries: &[String], data: &[u8]) -> Vec<u8> {
    file(format!("{{{}}}", entries.join(",")).as_bytes(), data)
}

/// Two tensors and metadata.
pub fn small() -> Vec<u8> {
    let metadata = r#""__metadata__":{"format":"pt"}"#.to_string();
    let entries = [metadata, entry("a", "F32", "[2,2]", 0, 16), entry("b", "I8", "[3]", 16, 19)];
    of(&entries, &(0..19).collect::<Vec<u8>>())
}

pub fn read(file: Vec<u8>) -> Result<SafetensorsFile, Error> {
    safetensors::read_bytes(&Bytes::from(file))
}
