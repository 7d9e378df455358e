//! The header: eight bytes of length, then a JSON object with an entry for each tensor.

use super::json::{self, Capped, Json};
use crate::limits::{MAX_HEADER_BYTES, MAX_METADATA_ENTRIES, MAX_RANK, MAX_TENSORS};
use bytes::Bytes;
use fewbit_core::{DType, Error, Result, ResultExt};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::ops::Range;

/// The key under which the header keeps text about the file.
pub(super) const METADATA: &str = "__metadata__";

/// Members of an entry or of a list in it; sound ones have three fields and a few dimensions.
const MAX_MEMBERS: usize = 1024;

/// Names of element types in the header.
const DTYPES: [(&str, DType); 21] = [
    ("BOOL", DType::Bool),
    ("F4", DType::F4E2M1),
    ("U8", DType::U8),
    ("I8", DType::I8),
    ("F8_E5M2", DType::F8E5M2),
    ("F8_E4M3", DType::F8E4M3FN),
    ("F8_E8M0", DType::F8E8M0),
    ("F8_E4M3FNUZ", DType::F8E4M3FNUZ),
    ("F8_E5M2FNUZ", DType::F8E5M2FNUZ),
    ("I16", DType::I16),
    ("U16", DType::U16),
    ("F16", DType::F16),
    ("BF16", DType::BF16),
    ("I32", DType::I32),
    ("U32", DType::U32),
    ("F32", DType::F32),
    ("C64", DType::C64),
    ("F64", DType::F64),
    ("I64", DType::I64),
    ("U64", DType::U64),
    // Not of the format itself: the name some writers chose before it had one.
    ("F8_E4M3FN", DType::F8E4M3FN),
];

/// What the header says of one tensor; the range counts from the end of the header.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) range: Range<usize>,
}

/// A decoded header; nothing in it is held against the rest of the file yet.
#[derive(Debug, Default)]
pub(super) struct Header {
    pub(super) tensors: Vec<Entry>,
    pub(super) metadata: Vec<(String, String)>,
}

/// The name of an element type in the header; `None` when the format has none for it.
pub(super) fn dtype_name(dtype: DType) -> Option<&'static str> {
    DTYPES.iter().find(|(_, known)| *known == dtype).map(|(name, _)| *name)
}

/// Splits a file into its decoded header and the bytes behind it.
pub(super) fn read(bytes: &Bytes) -> Result<(Header, Bytes)> {
    let end = 8 + length(bytes)?;
    let text = std::str::from_utf8(&bytes[8..end]).map_err(|e| {
        Error::bad_input("the header is not UTF-8")
            .code("FB-3502")
            .at(format!("byte {}", 8 + e.valid_up_to()))
    })?;
    let mut refusal = None;
    let header = json::decode(text, 8, "FB-3502", Seed { refusal: &mut refusal });
    match refusal {
        Some(error) => Err(error),
        None => Ok((header?, bytes.slice(end..))),
    }
}

fn length(bytes: &[u8]) -> Result<usize> {
    let wrong = |what: String| Error::bad_input(what).code("FB-3501").at("header length");
    let Some((length, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(wrong(format!("the file has {} bytes, its length alone takes 8", bytes.len()))
            .hint("the file is cut off, or no safetensors file"));
    };
    let length = u64::from_le_bytes(*length);
    if !(2..=MAX_HEADER_BYTES as u64).contains(&length) {
        return Err(wrong(format!("{length} bytes; 2 to {MAX_HEADER_BYTES} are allowed"))
            .hint("is this a safetensors file?"));
    }
    if length > rest.len() as u64 {
        let what = format!("{length} bytes, but only {} follow", rest.len());
        return Err(wrong(what).hint("the file is cut off, or no safetensors file"));
    }
    Ok(length as usize)
}

/// Decodes entry by entry, so that no more than one of them is held as JSON.
struct Seed<'a> {
    /// Where our own errors leave by, since those of the decoder are only text.
    refusal: &'a mut Option<Error>,
}

impl Seed<'_> {
    fn refuse<T, E: de::Error>(&mut self, result: Result<T>) -> Result<T, E> {
        result.map_err(|error| {
            let text = error.to_string();
            *self.refusal = Some(error);
            E::custom(text)
        })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Header;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Header, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with an entry for each tensor")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut from: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        let mut described = false;
        while let Some(name) = from.next_key::<String>()? {
            if name == METADATA {
                let caps = [MAX_METADATA_ENTRIES, MAX_MEMBERS];
                let value = from.next_value_seed(Capped(&caps))?;
                let again = std::mem::replace(&mut described, true);
                header.metadata = self.refuse(metadata(value, again))?;
                continue;
            }
            self.refuse(check_count(header.tensors.len()))?;
            let value = from.next_value_seed(Capped(&[MAX_MEMBERS]))?;
            let entry = entry(&value).at(|| format!("tensor {name:?}"));
            let (dtype, shape, range) = self.refuse(entry)?;
            header.tensors.push(Entry { name, dtype, shape, range });
        }
        Ok(header)
    }
}

fn check_count(before: usize) -> Result<()> {
    if before < MAX_TENSORS {
        return Ok(());
    }
    Err(Error::unsupported(format!("more than {MAX_TENSORS} tensors")).code("FB-4503"))
}

fn metadata(value: Json, again: bool) -> Result<Vec<(String, String)>> {
    let wrong = |what: String| Error::bad_input(what).code("FB-3509").at(METADATA);
    if again {
        return Err(Error::bad_input(format!("key {METADATA:?} stands twice")).code("FB-3503"));
    }
    let Json::Map(map) = value else {
        return Err(wrong(format!("expected an object, found {}", value.kind())));
    };
    let text = |(key, value)| match value {
        Json::Text(text) => Ok((key, text)),
        other => Err(wrong(format!("{key:?} is {}; only texts are allowed", other.kind()))),
    };
    let pairs: Vec<(String, String)> = map.into_iter().map(text).collect::<Result<_>>()?;
    let mut keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::bad_input(format!("key {:?} stands twice", pair[0]))
            .code("FB-3503")
            .at(METADATA)),
        None => Ok(pairs),
    }
}

fn entry(value: &Json) -> Result<(DType, Vec<usize>, Range<usize>)> {
    let Json::Map(map) = value else {
        return Err(ill(format!("expected an object, found {}", value.kind())));
    };
    let dtype = dtype(json::field(map, "dtype")?).at(|| "dtype")?;
    let shape = numbers(json::field(map, "shape")?).at(|| "shape")?;
    if shape.len() > MAX_RANK {
        let found = format!("{} dimensions; at most {MAX_RANK} are allowed", shape.len());
        return Err(Error::unsupported(found).code("FB-4502").at("shape"));
    }
    let offsets = numbers(json::field(map, "data_offsets")?).at(|| "data_offsets")?;
    match offsets[..] {
        [begin, end] if begin <= end => Ok((dtype, shape, begin..end)),
        [begin, end] => {
            Err(ill(format!("begins at {begin}, but ends at {end}")).at("data_offsets"))
        }
        _ => Err(ill(format!("expected two numbers, found {}", offsets.len())).at("data_offsets")),
    }
}

fn ill(what: String) -> Error {
    Error::bad_input(what).code("FB-3504")
}

fn dtype(value: &Json) -> Result<DType> {
    let Json::Text(name) = value else {
        return Err(ill(format!("expected a text, found {}", value.kind())));
    };
    let found = DTYPES.iter().find(|(known, _)| known == name);
    found.map(|(_, dtype)| *dtype).ok_or_else(|| {
        let known: Vec<&str> = DTYPES[..20].iter().map(|(name, _)| *name).collect();
        Error::unsupported(format!("unknown element type {name:?}"))
            .code("FB-4501")
            .hint(format!("known types: {}", known.join(", ")))
    })
}

fn numbers(value: &Json) -> Result<Vec<usize>> {
    let Json::List(list) = value else {
        return Err(ill(format!("expected a list of numbers, found {}", value.kind())));
    };
    let number = |(index, value): (usize, &Json)| match value {
        Json::Count(number) => usize::try_from(*number)
            .map_err(|_| ill(format!("[{index}] is {number}, more than memory can hold"))),
        other => Err(ill(format!("[{index}] is {}, no whole number from 0 up", other.kind()))),
    };
    list.iter().enumerate().map(number).collect()
}
