//! Codes of a few bits in planes: the layout that a vector takes apart with a shift and a mask.
//!
//! `N` bytes of `BITS`-bit planes hold `N * 8 / BITS` codes: plane `p` of byte `i` is code
//! `p * N + i`.

/// Packs `BITS` bits of each code, from bit `shift` on, into planes.
pub(super) fn pack<const BITS: usize>(codes: &[u8], shift: usize, planes: &mut [u8]) {
    let mask = (1u8 << BITS) - 1;
    planes.fill(0);
    for (p, codes) in codes.chunks_exact(planes.len()).enumerate() {
        for (byte, code) in planes.iter_mut().zip(codes) {
            *byte |= (code >> shift & mask) << (p * BITS);
        }
    }
}

/// Two codes of 4 bits per byte.
#[inline(always)]
pub(super) fn unpack4<const N: usize>(planes: &[u8; N], codes: &mut [u8]) {
    let (low, high) = codes[..2 * N].split_at_mut(N);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(planes) {
        *low = byte & 15;
        *high = byte >> 4;
    }
}

/// Four codes of 2 bits per byte.
#[inline(always)]
pub(super) fn unpack2<const N: usize>(planes: &[u8; N], codes: &mut [u8]) {
    for (p, plane) in codes[..4 * N].chunks_exact_mut(N).enumerate() {
        for (code, byte) in plane.iter_mut().zip(planes) {
            *code = byte >> (2 * p) & 3;
        }
    }
}

/// Adds two bits above the lower `SHIFT` ones.
#[inline(always)]
pub(super) fn add2<const N: usize, const SHIFT: usize>(planes: &[u8; N], codes: &mut [u8]) {
    for (p, plane) in codes[..4 * N].chunks_exact_mut(N).enumerate() {
        for (code, byte) in plane.iter_mut().zip(planes) {
            *code |= (byte >> (2 * p) & 3) << SHIFT;
        }
    }
}

/// Adds one bit above the lower `SHIFT` ones.
#[inline(always)]
pub(super) fn add1<const N: usize, const SHIFT: usize>(planes: &[u8; N], codes: &mut [u8]) {
    for (p, plane) in codes[..8 * N].chunks_exact_mut(N).enumerate() {
        for (code, byte) in plane.iter_mut().zip(planes) {
            *code |= (byte >> p & 1) << SHIFT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_come_back() {
        let codes: Vec<u8> = (0..512u32).map(|i| (i * 37 % 64) as u8).collect();
        let (mut low, mut high) = ([0; 256], [0; 128]);
        pack::<4>(&codes, 0, &mut low);
        pack::<2>(&codes, 4, &mut high);
        let mut back = [0; 512];
        unpack4(&low, &mut back);
        add2::<128, 4>(&high, &mut back);
        assert_eq!(back, *codes);
        let (mut two, mut one) = ([0; 128], [0; 64]);
        pack::<2>(&codes, 0, &mut two);
        pack::<1>(&codes, 2, &mut one);
        unpack2(&two, &mut back);
        add1::<64, 2>(&one, &mut back);
        assert!(back.iter().zip(&codes).all(|(b, c)| *b == c & 7));
    }
}
