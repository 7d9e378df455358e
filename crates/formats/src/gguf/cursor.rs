//! Reading numbers and texts in a row, never past the end.

use fewbit_core::{Error, Result};

/// A place in the bytes of a file.
pub(crate) struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    /// Starts at byte `at`.
    pub(crate) fn new(bytes: &'b [u8], at: usize) -> Self {
        Cursor { bytes, at }
    }

    /// The byte that is read next.
    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// When the file ends before.
    pub(crate) fn take(&mut self, count: u64) -> Result<&'b [u8]> {
        let left = self.left();
        match usize::try_from(count).ok().filter(|&count| count <= left) {
            Some(count) => {
                let taken = &self.bytes[self.at..self.at + count];
                self.at += count;
                Ok(taken)
            }
            None => {
                Err(Error::bad_input(format!("needs {count} bytes, {left} are left in the file"))
                    .code("FB-3603")
                    .at(format!("byte {}", self.at))
                    .hint("the file is cut off or damaged: download or copy it again"))
            }
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    /// The next byte.
    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// The next 16-bit number.
    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// The next 32-bit number.
    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// The next 64-bit number.
    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// The next boolean, stored as 0 or 1.
    pub(crate) fn bool(&mut self) -> Result<bool> {
        let at = self.at;
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::bad_input(format!("a boolean is {other}; 0 and 1 are allowed"))
                .code("FB-3604")
                .at(format!("byte {at}"))),
        }
    }

    /// The next text, stored behind its length.
    pub(crate) fn text(&mut self) -> Result<&'b str> {
        let length = self.u64()?;
        let at = self.at;
        std::str::from_utf8(self.take(length)?).map_err(|e| {
            Error::bad_input("a text is not UTF-8")
                .code("FB-3604")
                .at(format!("byte {}", at + e.valid_up_to()))
        })
    }
}
