//! Where the heads of a tensor lie: `[batch, heads, rows, size]`, or packed as
//! `[batch, rows, heads * size]`.

use fewbit_core::{Error, Result};

/// The layout of one tensor of heads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Heads {
    pub batch: usize,
    pub count: usize,
    pub rows: usize,
    pub size: usize,
    pub packed: bool,
}

impl Heads {
    /// Reads the layout from a shape; packed heads need their count.
    ///
    /// # Errors
    /// When the rank is neither 3 nor 4, or the heads do not divide the last dimension.
    pub fn of(shape: &[usize], count: i64) -> Result<Heads> {
        match *shape {
            [batch, count, rows, size] => Ok(Heads { batch, count, rows, size, packed: false }),
            [batch, rows, hidden] => match usize::try_from(count) {
                Ok(count) if count > 0 && hidden % count == 0 => {
                    Ok(Heads { batch, count, rows, size: hidden / count, packed: true })
                }
                _ => Err(Error::bad_input(format!("{count} heads do not divide {shape:?}"))),
            },
            _ => Err(Error::bad_input(format!("expected rank 3 or 4, found {shape:?}"))),
        }
    }

    /// The first element of head `head` of sample `batch`.
    pub fn start(&self, batch: usize, head: usize) -> usize {
        match self.packed {
            true => batch * self.rows * self.count * self.size + head * self.size,
            false => (batch * self.count + head) * self.rows * self.size,
        }
    }

    /// From one row of a head to the next.
    pub fn stride(&self) -> usize {
        if self.packed { self.count * self.size } else { self.size }
    }

    /// The same heads with rows of another size.
    pub fn with_size(self, size: usize) -> Heads {
        Heads { size, ..self }
    }

    /// The shape that this layout describes.
    pub fn shape(&self) -> Vec<usize> {
        match self.packed {
            true => vec![self.batch, self.rows, self.count.saturating_mul(self.size)],
            false => vec![self.batch, self.count, self.rows, self.size],
        }
    }
}
