//! The header: magic, version, a length, and a dictionary with dtype, order and shape.

use super::dtype;
use super::literal::{self, Literal};
use crate::data::file::{InputFile, io_error};
use fewbit_core::{DType, Error, Result, element_count};
use std::io::Read;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// NumPy itself refuses to parse more than 10,000 bytes; checked before the header is read.
const MAX_HEADER_BYTES: u64 = 64 << 10;
/// NumPy's own limit (NPY_MAXDIMS).
const MAX_RANK: usize = 64;

/// What a `.npy` file says about its array; checked against the size of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Header {
    /// Element type.
    pub dtype: DType,
    /// Whether elements are stored with the most significant byte first.
    pub big_endian: bool,
    /// Whether the first dimension varies fastest.
    pub fortran_order: bool,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    data_start: u64,
    data_bytes: usize,
}

impl Header {
    /// Offset of the first element from the start of the file.
    pub fn data_start(&self) -> u64 {
        self.data_start
    }

    /// Bytes of all elements.
    pub fn data_bytes(&self) -> usize {
        self.data_bytes
    }

    /// The same for a part of the array that has `rows` rows in `bytes` bytes.
    pub(crate) fn with_rows(&self, rows: usize, bytes: usize) -> Header {
        let mut part = self.clone();
        part.data_bytes = bytes;
        if let Some(first) = part.shape.first_mut() {
            *first = rows;
        }
        part
    }

    /// Reads a header from the front of a stream of `available` bytes.
    ///
    /// # Errors
    /// See [`npy::read`](super::read).
    pub fn read(reader: &mut impl Read, available: u64) -> Result<Header> {
        let mut fixed = [0u8; 8];
        read_part(reader, &mut fixed, "magic")?;
        if &fixed[..6] != MAGIC {
            return Err(damaged("this is not a .npy array").at("magic, byte 0"));
        }
        let length_bytes = match fixed[6] {
            1 => 2,
            2 | 3 => 4,
            v => return Err(damaged(format!("version {v}; known are 1 to 3")).at("byte 6")),
        };
        let mut length = [0u8; 4];
        read_part(reader, &mut length[..length_bytes], "header length")?;
        let length = u32::from_le_bytes(length) as u64;
        let data_start = 8 + length_bytes as u64 + length;
        check_length(length, data_start, available)?;
        let mut text = vec![0u8; length as usize];
        read_part(reader, &mut text, "header")?;
        Header::parse(&text, data_start, available)
    }

    /// Reads a header from the front of a file.
    pub(crate) fn read_at(file: &InputFile) -> Result<Header> {
        Header::read(&mut Sequential { file, at: 0 }, file.len())
    }

    fn parse(text: &[u8], data_start: u64, available: u64) -> Result<Header> {
        let text = String::from_utf8_lossy(text);
        let pairs = literal::parse(&text)?;
        let stored = match find(&pairs, "descr")? {
            Literal::Text(descr) => dtype::parse(descr)?,
            Literal::List => return Err(dtype::structured()),
            _ => return Err(damaged("expected a string").at("`descr`")),
        };
        let Literal::Bool(fortran_order) = find(&pairs, "fortran_order")? else {
            return Err(damaged("expected True or False").at("`fortran_order`"));
        };
        let Literal::Tuple(shape) = find(&pairs, "shape")? else {
            return Err(damaged("expected a tuple").at("`shape`"));
        };
        let (shape, data_bytes) =
            check_shape(shape, stored.dtype, available.saturating_sub(data_start))?;
        Ok(Header {
            dtype: stored.dtype,
            big_endian: stored.big_endian,
            fortran_order: *fortran_order,
            shape,
            data_start,
            data_bytes,
        })
    }
}

/// A file as a stream, for the few bytes of a header.
struct Sequential<'a> {
    file: &'a InputFile,
    at: u64,
}

impl Read for Sequential<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = self.file.len().saturating_sub(self.at);
        let n = buf.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.file.read_at(self.at, &mut buf[..n]).map_err(std::io::Error::other)?;
        self.at += n as u64;
        Ok(n)
    }
}

fn damaged(what: impl Into<String>) -> Error {
    Error::bad_input(what).code("FB-3310")
}

fn read_part(reader: &mut impl Read, buf: &mut [u8], part: &str) -> Result<()> {
    reader.read_exact(buf).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => damaged("the file ends too early").at(part),
        _ => io_error(&e).at(part),
    })
}

fn check_length(length: u64, data_start: u64, available: u64) -> Result<()> {
    let limit = MAX_HEADER_BYTES.min(available.saturating_sub(data_start - length));
    if length <= limit {
        return Ok(());
    }
    let what = format!("the header claims {length} bytes; at most {limit} are possible here");
    Err(Error::bad_input(what).code("FB-3311").at("header length, byte 8"))
}

fn find<'a>(pairs: &'a [(String, Literal)], key: &str) -> Result<&'a Literal> {
    let mut found = pairs.iter().filter(|(k, _)| k == key);
    match (found.next(), found.next()) {
        (Some((_, value)), None) => Ok(value),
        (None, _) => Err(damaged(format!("the key `{key}` is missing")).at("header")),
        (Some(_), Some(_)) => Err(damaged(format!("the key `{key}` is there twice")).at("header")),
    }
}

/// The shape and its size in bytes, which must be exactly what the file has.
fn check_shape(shape: &[u64], dtype: DType, have: u64) -> Result<(Vec<usize>, usize)> {
    let refuse = |what: String| Err(Error::bad_input(what).code("FB-3312").at("`shape`"));
    if shape.len() > MAX_RANK {
        return refuse(format!("{} dimensions; at most {MAX_RANK}", shape.len()));
    }
    let dims: Option<Vec<usize>> = shape.iter().map(|d| usize::try_from(*d).ok()).collect();
    let need = dims.as_deref().and_then(element_count).and_then(|n| dtype.bytes_for(n));
    match (dims, need) {
        (Some(dims), Some(need)) if need as u64 == have => Ok((dims, need)),
        (_, Some(need)) => {
            refuse(format!("{dtype} {shape:?} needs {need} bytes, the file has {have}"))
        }
        _ => refuse(format!("{dtype} {shape:?} has no representable size")),
    }
}
