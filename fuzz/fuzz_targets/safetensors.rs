//! Any bytes as a safetensors file: an error or a sound file, never a panic.

#![no_main]

use bytes::Bytes;
use fewbit_formats::safetensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(found) = safetensors::read_bytes(&Bytes::copy_from_slice(data)) else { return };
    let mut total = 0;
    for tensor in found.tensors() {
        let whole = tensor.to_tensor().expect("was checked");
        assert_eq!((whole.shape(), whole.dtype()), (&tensor.shape[..], tensor.dtype));
        assert!(found.get(&tensor.name).is_some());
        total += tensor.bytes.as_ref().len();
    }
    // The tensors fill the file exactly.
    let header = u64::from_le_bytes(data[..8].try_into().expect("was checked"));
    assert_eq!(8 + header as usize + total, data.len());
});
