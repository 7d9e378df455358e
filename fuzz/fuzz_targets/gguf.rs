//! Any bytes as a GGUF file: an error or a sound file, never a panic; what is read can be written
//! and is read again as the same.

#![no_main]

use bytes::Bytes;
use fewbit_formats::gguf::{self, TensorInfo};
use libfuzzer_sys::fuzz_target;

/// Decoding more than this would only slow the search down.
const MAX_DECODED: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let Ok(found) = gguf::read_bytes(&Bytes::copy_from_slice(data)) else { return };
    for tensor in found.tensors() {
        assert_eq!(tensor.bytes.as_ref().len(), tensor.byte_len().expect("was checked"));
        assert!(found.get(&tensor.name).is_some());
        if tensor.bytes.as_ref().len() <= MAX_DECODED {
            assert_eq!(tensor.to_f32().expect("fits in memory").shape(), tensor.shape);
        }
    }
    let metadata = found.metadata();
    for (key, value) in metadata.iter() {
        assert_eq!(metadata.get(key).map(|v| v.type_id()), Some(value.type_id()));
        let _ = metadata.find::<u32>(key);
        let _ = metadata.find::<f32>(key);
        let _ = metadata.find::<&str>(key);
        let _ = metadata.find::<&[String]>(key);
        let _ = metadata.find::<Vec<i64>>(key);
    }
    let infos: Vec<TensorInfo> = found.tensors().iter().map(|t| t.info.clone()).collect();
    let size = gguf::file_size(metadata, &infos).expect("what was read can be written");
    assert!(size >= 24);
});
