//! A tensor on its way from one file into another: what it is there, and how its rows come out
//! of the file it lies in.

use fewbit_core::{Error, Result, SharedBytes};
use fewbit_formats::gguf::{GgufFile, GgufTensor, TensorInfo};
use fewbit_formats::mmap::InputFile;

/// A tensor of the output.
#[derive(Clone, Debug)]
pub struct Piece {
    /// Its name and shape in the output, and the type of the bytes that are read.
    pub info: TensorInfo,
    pub(super) place: Place,
    pub(super) order: Order,
}

impl Piece {
    /// Whether it lies in a file as it is wanted.
    pub(super) fn is_mapped(&self) -> bool {
        self.order == Order::Kept && matches!(self.place, Place::File { .. })
    }
}

/// Where bytes lie.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In a file, by index, from this byte on.
    File { file: usize, offset: u64 },
    /// In memory.
    Memory(SharedBytes),
}

/// In which order rows lie there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// In the one wanted.
    Kept,
    /// Heads of so many rows, first halves of rotated pairs before second ones (Hugging Face);
    /// wanted are pairs side by side (GGUF of Llama).
    Halves { head: usize },
    /// The other way round.
    Pairs { head: usize },
    /// As the columns of a matrix.
    Columns,
}

impl Order {
    /// The stored row that is wanted as row `row`; only for orders of rows.
    pub(super) fn stored_row(self, row: usize) -> usize {
        match self {
            Order::Kept | Order::Columns => row,
            Order::Halves { head } => {
                let (first, at) = (row - row % head, row % head);
                first + (at % 2) * (head / 2) + at / 2
            }
            Order::Pairs { head } => {
                let (first, at) = (row - row % head, row % head);
                first + at % (head / 2) * 2 + at / (head / 2)
            }
        }
    }
}

/// All tensors of the output, with the files they come from.
///
/// Files are read, not mapped: mapped pages would count as memory of this process until the end.
#[derive(Debug)]
pub struct Pieces {
    list: Vec<Piece>,
    files: Vec<InputFile>,
}

impl Pieces {
    pub(super) fn new(list: Vec<Piece>, files: &[InputFile]) -> Pieces {
        Pieces { list, files: files.to_vec() }
    }

    /// The tensors of a GGUF file as they are, whatever the architecture.
    pub fn of_gguf(file: &GgufFile) -> Pieces {
        let piece = |tensor: &GgufTensor| Piece {
            info: tensor.info.clone(),
            place: place(file.files(), &tensor.bytes),
            order: Order::Kept,
        };
        Pieces::new(file.tensors().iter().map(piece).collect(), file.files())
    }

    /// The files that rows are read from.
    pub fn files(&self) -> &[InputFile] {
        &self.files
    }

    /// The tensors, in the order of the output.
    pub fn list(&self) -> &[Piece] {
        &self.list
    }

    /// Reads rows of a tensor, from row `first` on, as many as fit.
    ///
    /// # Errors
    /// When the system cannot read them.
    pub fn read(&self, tensor: usize, first: usize, out: &mut [u8]) -> Result<()> {
        let piece = &self.list[tensor];
        let width = piece.info.ty.row_bytes(piece.info.row_elements())?;
        match piece.order {
            Order::Kept => self.bytes(piece, first * width, out),
            Order::Columns => self.columns(piece, first, out),
            order => {
                for (index, row) in out.chunks_mut(width.max(1)).enumerate() {
                    self.bytes(piece, order.stored_row(first + index) * width, row)?;
                }
                Ok(())
            }
        }
    }

    /// Rows that lie as columns of a matrix of plain elements.
    fn columns(&self, piece: &Piece, first: usize, out: &mut [u8]) -> Result<()> {
        let (rows, columns) = (piece.info.rows(), piece.info.row_elements());
        let element = piece.info.ty.bytes();
        let width = (columns * element).max(1);
        let count = out.len() / width;
        let mut line = vec![0; count * element];
        for column in 0..columns {
            self.bytes(piece, (column * rows + first) * element, &mut line)?;
            for (row, value) in line.chunks(element).enumerate() {
                out[row * width + column * element..][..element].copy_from_slice(value);
            }
        }
        Ok(())
    }

    fn bytes(&self, piece: &Piece, start: usize, out: &mut [u8]) -> Result<()> {
        match &piece.place {
            Place::Memory(bytes) => {
                let found = bytes.as_ref().get(start..).and_then(|rest| rest.get(..out.len()));
                out.copy_from_slice(found.ok_or_else(|| Error::internal("rows beyond a tensor"))?);
                Ok(())
            }
            Place::File { file, offset } => self.files[*file].read_at(offset + start as u64, out),
        }
    }
}

/// Where bytes lie that are a view of one of `files`, or of none of them.
pub(super) fn place(files: &[InputFile], bytes: &SharedBytes) -> Place {
    let start = bytes.as_ref().as_ptr().addr();
    let within = |file: &InputFile| {
        let offset = start.checked_sub(file.bytes().as_ptr().addr())?;
        let end = offset.checked_add(bytes.as_ref().len())?;
        (end <= file.bytes().len()).then_some(offset as u64)
    };
    let found = files.iter().enumerate().find_map(|(i, file)| Some((i, within(file)?)));
    match found {
        Some((file, offset)) => Place::File { file, offset },
        None => Place::Memory(bytes.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_undo_each_other() {
        let (there, back) = (Order::Halves { head: 6 }, Order::Pairs { head: 6 });
        let stored: Vec<usize> = (0..12).map(|row| there.stored_row(row)).collect();
        assert_eq!(stored, [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
        assert!((0..12).all(|row| there.stored_row(back.stored_row(row)) == row));
    }
}
