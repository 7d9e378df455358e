//! Rows of one array: in memory when they were compressed, left in the file when they were not.

use crate::data::file::{InputFile, io_error};
use crate::data::npy::{self, Header};
use fewbit_core::{AlignedBytes, DType, Error, Result, Tensor, UniqueBytes};
use std::borrow::Cow;
use std::io::{self, Read};
use std::ops::Range;

/// A range of rows along the first dimension of an array.
pub(in crate::data) struct Rows {
    dtype: DType,
    shape: Vec<usize>,
    row_bytes: usize,
    count: usize,
    data: Data,
}

enum Data {
    /// Little-endian, row-major.
    Memory(AlignedBytes),
    /// As stored, from `start` on.
    File { file: InputFile, start: u64, big_endian: bool },
}

/// Number of rows and shape of one row.
pub(super) fn split(header: &Header) -> Result<(usize, &[usize])> {
    match header.shape.split_first() {
        Some((0, _)) => Err(super::empty()),
        Some((n, row)) if !row.contains(&0) => Ok((*n, row)),
        Some(_) => Err(Error::bad_input(format!("samples of shape {:?} are empty", header.shape))
            .code("FB-3342")),
        None => Err(Error::bad_input("a single number is no data set")
            .code("FB-3342")
            .hint("samples lie along the first dimension: save an array of shape (n, ...)")),
    }
}

impl Rows {
    fn new(header: &Header, count: usize, data: Data) -> Result<Rows> {
        let (_, row) = split(header)?;
        let shape = row.to_vec();
        let row_bytes = row_bytes(header)?;
        Ok(Rows { dtype: header.dtype, shape, row_bytes, count, data })
    }

    /// Rows that stay in the file, whose array data starts at `start`.
    pub(super) fn in_file(
        header: &Header,
        file: InputFile,
        start: u64,
        range: Range<usize>,
    ) -> Result<Rows> {
        if header.fortran_order && header.shape.len() > 1 {
            let mut bytes = AlignedBytes::try_zeroed(header.data_bytes())?;
            file.read_at(start, bytes.as_mut())?;
            return Rows::of_tensor(header, npy::to_native(header, bytes)?, range);
        }
        let start = start + range.start as u64 * row_bytes(header)? as u64;
        let data = Data::File { file, start, big_endian: header.big_endian };
        Rows::new(header, range.len(), data)
    }

    /// Rows from a stream of the array's data; what lies before and after is not kept.
    pub(super) fn from_stream(
        header: &Header,
        stream: &mut impl Read,
        range: Range<usize>,
    ) -> Result<Rows> {
        let damaged = |e: io::Error| io_error(&e).at("data");
        if header.fortran_order && header.shape.len() > 1 {
            let mut bytes = AlignedBytes::try_zeroed(header.data_bytes())?;
            stream.read_exact(bytes.as_mut()).map_err(damaged)?;
            return Rows::of_tensor(header, npy::to_native(header, bytes)?, range);
        }
        let row = row_bytes(header)?;
        let skip = range.start as u64 * row as u64;
        if io::copy(&mut stream.take(skip), &mut io::sink()).map_err(damaged)? < skip {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut bytes = AlignedBytes::try_zeroed(range.len() * row)?;
        stream.read_exact(bytes.as_mut()).map_err(damaged)?;
        // Reaching the end makes the archive check its CRC.
        if range.end == header.shape[0] && stream.read(&mut [0]).map_err(damaged)? > 0 {
            return Err(Error::bad_input("more data than the header says").code("FB-3324"));
        }
        let native = header.with_rows(range.len(), bytes.as_ref().len());
        let tensor = npy::to_native(&native, bytes)?;
        Rows::of_tensor(&native, tensor, 0..range.len())
    }

    /// Rows of a tensor that is in memory already.
    fn of_tensor(header: &Header, tensor: Tensor, range: Range<usize>) -> Result<Rows> {
        let row = row_bytes(header)?;
        let bytes = match range.len() * row == tensor.bytes().len() {
            true => tensor.into_unique_bytes().map(UniqueBytes::into_aligned),
            false => {
                Some(AlignedBytes::copy_of(&tensor.bytes()[range.start * row..range.end * row]))
            }
        };
        let bytes = bytes.ok_or_else(|| Error::internal("rows are shared"))?;
        Rows::new(header, range.len(), Data::Memory(bytes))
    }

    /// Rows of `f32` values.
    pub(super) fn of_f32(columns: usize, values: &[f32]) -> Rows {
        Rows {
            dtype: DType::F32,
            shape: vec![columns],
            row_bytes: columns * 4,
            count: values.len() / columns,
            data: Data::Memory(AlignedBytes::copy_of(bytemuck::cast_slice(values))),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn dtype(&self) -> DType {
        self.dtype
    }

    /// Shape of one row.
    pub(super) fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The bytes of row `i`, which must exist.
    pub(super) fn get(&self, i: usize) -> Result<Cow<'_, [u8]>> {
        let n = self.row_bytes;
        match &self.data {
            Data::Memory(bytes) => Ok(Cow::Borrowed(&bytes.as_ref()[i * n..(i + 1) * n])),
            Data::File { file, start, big_endian } => {
                let mut bytes = vec![0; n];
                file.read_at(start + i as u64 * n as u64, &mut bytes)?;
                if *big_endian {
                    npy::swap_bytes(self.dtype, &mut bytes);
                }
                if self.dtype == DType::Bool {
                    bytes.iter_mut().for_each(|b| *b = u8::from(*b != 0));
                }
                Ok(Cow::Owned(bytes))
            }
        }
    }
}

fn row_bytes(header: &Header) -> Result<usize> {
    let (count, _) = split(header)?;
    Ok(header.data_bytes() / count)
}
