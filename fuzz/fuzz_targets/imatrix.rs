//! Any bytes as an importance matrix, in either form: an error or a sound one, never a panic.

#![no_main]

use bytes::Bytes;
use fewbit_formats::imatrix::ImportanceMatrix;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(found) = ImportanceMatrix::from_bytes(&Bytes::copy_from_slice(data)) else { return };
    for entry in found.entries.values() {
        let means = entry.means();
        assert_eq!(means.len(), entry.sums.len());
        assert!(means.iter().all(|mean| *mean >= 0.0));
    }
});
