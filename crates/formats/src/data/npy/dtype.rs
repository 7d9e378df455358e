//! The dtype text of a header, such as `<f4`.

use fewbit_core::{DType, Error, Result};

/// An element type and its byte order in the file.
pub(super) struct Stored {
    pub(super) dtype: DType,
    pub(super) big_endian: bool,
}

const TABLE: &[(&str, DType)] = &[
    ("b1", DType::Bool),
    ("i1", DType::I8),
    ("u1", DType::U8),
    ("i2", DType::I16),
    ("u2", DType::U16),
    ("i4", DType::I32),
    ("u4", DType::U32),
    ("i8", DType::I64),
    ("u8", DType::U64),
    ("f2", DType::F16),
    ("f4", DType::F32),
    ("f8", DType::F64),
    ("c8", DType::C64),
    ("c16", DType::C128),
];

/// Parses a dtype text: byte order, kind, size.
pub(super) fn parse(text: &str) -> Result<Stored> {
    let (order, kind) = match text.strip_prefix(['<', '>', '|', '=']) {
        Some(rest) => (text.as_bytes()[0], rest),
        None => (b'=', text),
    };
    let kind = if kind == "?" { "b1" } else { kind };
    match TABLE.iter().find(|(name, _)| *name == kind) {
        Some((_, dtype)) => Ok(Stored { dtype: *dtype, big_endian: order == b'>' }),
        None => Err(refuse(text, kind)),
    }
}

/// The dtype text for an element type that NumPy has.
pub(super) fn text(dtype: DType) -> Option<String> {
    let (name, _) = TABLE.iter().find(|(_, d)| *d == dtype)?;
    let order = if dtype.bits() == 8 { '|' } else { '<' };
    Some(format!("{order}{name}"))
}

fn refuse(text: &str, kind: &str) -> Error {
    let text = crate::data::file::show_text(text);
    let unsupported = |what: &str, hint: &str| {
        let error = Error::unsupported(format!("the dtype `{text}` {what}"));
        error.code("FB-4311").at("`descr`").hint(hint)
    };
    match kind.bytes().next() {
        Some(b'O') => Error::unsupported("an object array is a pickle, which is never loaded")
            .code("FB-4310")
            .at("`descr`")
            .hint("save numbers instead, for example np.save(f, a.astype(np.float32))"),
        Some(b'V') => unsupported(
            "holds raw bytes without a meaning",
            "bfloat16 and 8-bit floats have no NumPy dtype: save them with .astype(np.float32)",
        ),
        Some(b'S' | b'U' | b'T') => unsupported("is text", "save numbers"),
        Some(b'M' | b'm') => unsupported("is a date or duration", "save it as int64"),
        Some(b'f' | b'c') => unsupported("has no equal here", "save it as float64"),
        _ => Error::bad_input(format!("`{text}` is not a dtype")).code("FB-3310").at("`descr`"),
    }
}

/// Structured dtypes are lists of fields.
pub(super) fn structured() -> Error {
    Error::unsupported("a structured dtype holds several fields per element")
        .code("FB-4311")
        .at("`descr`")
        .hint("save each field as its own array: np.savez(f, **{n: a[n] for n in a.dtype.names})")
}
