//! Codes of few bits in words of 32, as the checkpoints of Hugging Face keep them.
//!
//! A matrix has `[rows, columns]`, that is `[outputs, inputs]`; its codes are given one in a byte,
//! row after row. [`Order`] says which of them share a word and where:
//!
//! | order | words | used by |
//! |---|---|---|
//! | [`Order::Rows`] | `[rows, columns / n]`, neighbours along a row | compressed-tensors |
//! | [`Order::Columns`] | `[columns / n, rows]`, neighbours along a column of inputs | GPTQ |
//! | [`Order::Awq`] | `[columns, rows / 8]`, eight outputs interleaved | AWQ |
//!
//! The lowest bits of a word come first in all of them.

use fewbit_core::{Error, Result};

/// Places of outputs within a word of AWQ: nibble `i` holds output `AWQ[i]` of its eight.
const AWQ: [usize; 8] = [0, 2, 4, 6, 1, 3, 5, 7];

/// Which codes share a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Neighbours of a row; a row begins with a word of its own.
    Rows,
    /// Neighbours of a column; the words of one input block lie side by side.
    Columns,
    /// Eight outputs of one input, even ones before odd ones; 4 bits only.
    Awq,
}

/// Size and order of a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Bits of a code: 2, 4 or 8.
    pub bits: usize,
    /// Which codes share a word.
    pub order: Order,
}

impl Packing {
    /// Codes in a word.
    pub fn per_word(&self) -> usize {
        32 / self.bits.max(1)
    }

    /// Shape of the words.
    ///
    /// # Errors
    /// `FB-4505` for other widths, and where words of this order would not be full.
    pub fn shape(&self) -> Result<[usize; 2]> {
        let (n, Packing { rows, columns, bits, order }) = (self.per_word(), *self);
        if !matches!(bits, 2 | 4 | 8) || (order == Order::Awq && bits != 4) {
            return Err(Error::unsupported(format!("codes of {bits} bits")).code("FB-4505"));
        }
        let whole = |length: usize, what: &str| match length.is_multiple_of(n) {
            true => Ok(length / n),
            false => Err(Error::unsupported(format!("{length} {what} are no multiple of {n}"))
                .code("FB-4505")
                .hint("this layout packs whole words; compressed-tensors takes any size")),
        };
        Ok(match order {
            Order::Rows => [rows, columns.div_ceil(n)],
            Order::Columns => [whole(columns, "inputs")?, rows],
            Order::Awq => [columns, whole(rows, "outputs")?],
        })
    }

    /// Word and place in it of a code.
    fn place(&self, row: usize, column: usize, width: usize) -> (usize, usize) {
        let n = self.per_word();
        match self.order {
            Order::Rows => (row * width + column / n, column % n),
            Order::Columns => (column / n * width + row, column % n),
            Order::Awq => {
                let place = AWQ.iter().position(|&at| at == row % 8).unwrap_or(0);
                (column * width + row / 8, place)
            }
        }
    }

    /// Words from codes, little-endian.
    ///
    /// # Errors
    /// As [`shape`](Packing::shape); an internal error when codes are missing.
    pub fn pack(&self, codes: &[u8]) -> Result<Vec<u8>> {
        let [height, width] = self.shape()?;
        if codes.len() != self.rows.saturating_mul(self.columns) {
            return Err(Error::internal(format!("{} codes for {self:?}", codes.len())));
        }
        let mut words = vec![0u32; height * width];
        for (row, codes) in codes.chunks(self.columns.max(1)).enumerate() {
            for (column, &code) in codes.iter().enumerate() {
                let (word, at) = self.place(row, column, width);
                words[word] |= u32::from(code) << (at * self.bits);
            }
        }
        Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
    }

    /// Codes from words.
    ///
    /// # Errors
    /// As [`shape`](Packing::shape); `FB-3517` when there are not as many words as the shape needs.
    pub fn unpack(&self, bytes: &[u8]) -> Result<Vec<u8>> {
        let [height, width] = self.shape()?;
        let (words, rest) = bytes.as_chunks::<4>();
        let needed = height.checked_mul(width);
        if needed != Some(words.len()) || !rest.is_empty() {
            let what = format!("{} bytes where {height} times {width} words belong", bytes.len());
            return Err(Error::bad_input(what).code("FB-3517"));
        }
        let mask = (1u32 << self.bits) - 1;
        let mut codes = vec![0; self.rows * self.columns];
        for (row, codes) in codes.chunks_mut(self.columns.max(1)).enumerate() {
            for (column, code) in codes.iter_mut().enumerate() {
                let (word, at) = self.place(row, column, width);
                *code = (u32::from_le_bytes(words[word]) >> (at * self.bits) & mask) as u8;
            }
        }
        Ok(codes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(rows: usize, columns: usize, bits: usize) -> Vec<u8> {
        let all = (0..rows * columns).map(|i| (i.wrapping_mul(2_654_435_761) >> 7) as u8);
        all.map(|code| code & ((1u32 << bits) - 1) as u8).collect()
    }

    #[test]
    fn packing_is_undone() {
        for (order, rows, columns) in
            [(Order::Rows, 3, 21), (Order::Columns, 5, 32), (Order::Awq, 16, 3)]
        {
            for bits in [2, 4, 8] {
                let packing = Packing { rows, columns, bits, order };
                if order == Order::Awq && bits != 4 {
                    assert_eq!(packing.shape().unwrap_err().stable_code(), "FB-4505");
                    continue;
                }
                let codes = codes(rows, columns, bits);
                let packed = packing.pack(&codes).unwrap();
                assert_eq!(packing.unpack(&packed).unwrap(), codes, "{packing:?}");
                assert_eq!(packing.unpack(&packed[4..]).unwrap_err().stable_code(), "FB-3517");
            }
        }
    }

    fn words(packing: Packing, code: impl Fn(usize, usize) -> usize) -> Vec<u32> {
        let Packing { rows, columns, .. } = packing;
        let all = (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c)));
        let codes: Vec<u8> = all.map(|(r, c)| code(r, c) as u8).collect();
        let packed = packing.pack(&codes).unwrap();
        packed.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect()
    }

    /// What `pack_to_int32` of compressed-tensors 0.20 makes of codes around 0; words hold them
    /// from 0 on.
    #[test]
    fn rows_are_packed_as_by_compressed_tensors() {
        let four = Packing { rows: 3, columns: 16, bits: 4, order: Order::Rows };
        let expected =
            [[0xd27c_16b0, 0x5af4_9e38], [0x27c1_6b05, 0xaf49_e38d], [0x7c16_b05a, 0xf49e_38d2]];
        assert_eq!(words(four, |r, c| (r * 37 + c * 11) % 16), expected.concat());
        let eight = Packing { rows: 2, columns: 6, bits: 8, order: Order::Rows };
        let expected = [[0x9f6a_3500, 0x9d4], [0xfac5_905b, 0x642f]];
        assert_eq!(words(eight, |r, c| (r * 91 + c * 53) % 256), expected.concat());
    }

    /// What the packers of GPTQModel and AutoAWQ make of the same codes.
    #[test]
    fn columns_are_packed_as_by_gptq_and_awq() {
        let packing = Packing { rows: 8, columns: 8, bits: 4, order: Order::Columns };
        let code = |r: usize, c: usize| (r * 37 + c * 11) % 16;
        let gptq = [
            0xd27c_16b0,
            0x27c1_6b05,
            0x7c16_b05a,
            0xc16b_05af,
            0x16b0_5af4,
            0x6b05_af49,
            0xb05a_f49e,
            0x05af_49e3,
        ];
        assert_eq!(words(packing, code), gptq);
        let awq = [
            0x39f5_e4a0,
            0xe4a0_9f5b,
            0x9f5b_4a06,
            0x4a06_f5b1,
            0xf5b1_a06c,
            0xa06c_5b17,
            0x5b17_06c2,
            0x06c2_b17d,
        ];
        assert_eq!(words(Packing { order: Order::Awq, ..packing }, code), awq);
    }

    #[test]
    fn sizes_that_leave_words_open_are_refused() {
        let packing = Packing { rows: 4, columns: 12, bits: 4, order: Order::Columns };
        assert_eq!(packing.shape().unwrap_err().stable_code(), "FB-4505");
        let packing = Packing { order: Order::Awq, ..packing };
        assert_eq!(packing.pack(&[0; 48]).unwrap_err().stable_code(), "FB-4505");
        let packing = Packing { order: Order::Rows, ..packing };
        assert_eq!(packing.shape().unwrap(), [4, 2]);
    }
}
