//! Several elements in a byte: first element in the lowest bits (ONNX, `TensorProto.raw_data`).

/// Unpacks `count` codes of `bits` (2 or 4) each, sign-extended when `signed`.
pub fn unpack_bits(bytes: &[u8], bits: usize, signed: bool, count: usize) -> Vec<i64> {
    let per_byte = 8 / bits;
    let mask = (1u8 << bits) - 1;
    let code = |i: usize| {
        let raw = (bytes[i / per_byte] >> (bits * (i % per_byte)) & mask) as i64;
        let sign = 1i64 << (bits - 1);
        if signed { (raw ^ sign) - sign } else { raw }
    };
    (0..count.min(bytes.len() * per_byte)).map(code).collect()
}

/// Packs codes of `bits` (2 or 4) each into `out`; unused high bits become zero.
pub fn pack_bits(codes: impl IntoIterator<Item = i64>, bits: usize, out: &mut [u8]) {
    let per_byte = 8 / bits;
    let mask = (1u8 << bits) - 1;
    out.fill(0);
    for (i, code) in codes.into_iter().enumerate() {
        if let Some(byte) = out.get_mut(i / per_byte) {
            *byte |= (code as u8 & mask) << (bits * (i % per_byte));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_is_in_the_low_bits() {
        let mut out = [0; 2];
        pack_bits([1, -2, 7], 4, &mut out);
        assert_eq!(out, [0xe1, 0x07]);
        assert_eq!(unpack_bits(&out, 4, true, 3), [1, -2, 7]);
        pack_bits([1, -2, -1, 0, 1], 2, &mut out);
        assert_eq!(unpack_bits(&out, 2, true, 5), [1, -2, -1, 0, 1]);
    }
}
