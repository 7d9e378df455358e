//! Slices of 8-bit values of either signedness.

/// Quantized values to read: unsigned or signed.
#[derive(Clone, Copy, Debug)]
pub enum Int8<'a> {
    /// 0 to 255.
    U8(&'a [u8]),
    /// -128 to 127.
    I8(&'a [i8]),
}

impl<'a> Int8<'a> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The raw bytes.
    pub fn bytes(&self) -> &'a [u8] {
        match self {
            Int8::U8(values) => values,
            Int8::I8(values) => bytemuck::cast_slice(values),
        }
    }

    /// The values from `start` on.
    pub fn from(&self, start: usize) -> Int8<'a> {
        match self {
            Int8::U8(values) => Int8::U8(&values[start..]),
            Int8::I8(values) => Int8::I8(&values[start..]),
        }
    }

    /// The `len` values from `start` on.
    pub fn range(&self, start: usize, len: usize) -> Int8<'a> {
        match self {
            Int8::U8(values) => Int8::U8(&values[start..][..len]),
            Int8::I8(values) => Int8::I8(&values[start..][..len]),
        }
    }

    /// The value at `index`.
    pub fn get(&self, index: usize) -> i32 {
        match self {
            Int8::U8(values) => i32::from(values[index]),
            Int8::I8(values) => i32::from(values[index]),
        }
    }

    /// What turns a byte into its unsigned form `value + offset`: `byte ^ flip`, where the offset
    /// equals `flip` (0 for unsigned values, 128 for signed ones).
    pub(crate) fn flip(&self) -> u8 {
        match self {
            Int8::U8(_) => 0,
            Int8::I8(_) => 0x80,
        }
    }
}

/// Quantized values to write: unsigned or signed.
#[derive(Debug)]
pub enum Int8Mut<'a> {
    /// 0 to 255.
    U8(&'a mut [u8]),
    /// -128 to 127.
    I8(&'a mut [i8]),
}

impl<'a> Int8Mut<'a> {
    /// The raw bytes.
    pub fn into_bytes(self) -> &'a mut [u8] {
        match self {
            Int8Mut::U8(values) => values,
            Int8Mut::I8(values) => bytemuck::cast_slice_mut(values),
        }
    }

    /// The smallest and the largest value that fits.
    pub fn limits(&self) -> (i32, i32) {
        match self {
            Int8Mut::U8(_) => (0, 255),
            Int8Mut::I8(_) => (-128, 127),
        }
    }
}
