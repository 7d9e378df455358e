//! Keys and values in the order of the file.

use super::value::{Array, Value};
use fewbit_core::{Error, Result};
use std::collections::HashMap;

/// The metadata of a file: keys with typed values, in order.
///
/// ```
/// use fewbit_formats::gguf::Metadata;
/// let mut metadata = Metadata::default();
/// metadata.set("general.architecture", "llama");
/// metadata.set("llama.block_count", 30u32);
/// assert_eq!(metadata.require::<usize>("llama.block_count")?, 30);
/// assert_eq!(metadata.find::<&str>("general.name")?, None);
/// # Ok::<(), fewbit_core::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Metadata {
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl PartialEq for Metadata {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries
    }
}

impl Metadata {
    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entries, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The value of a key, whatever its type.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&i| &self.entries[i].1)
    }

    /// The value of a key that may be absent, as `T` (see [`FromValue`]).
    ///
    /// # Errors
    /// When it is there and of another type, or out of the range of `T`.
    pub fn find<'m, T: FromValue<'m>>(&'m self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match T::from_value(value) {
            Some(value) => Ok(Some(value)),
            None => {
                Err(Error::bad_input(format!("expected {}, found {}", T::WANTED, shown(value)))
                    .code("FB-3606")
                    .at(format!("metadata {key:?}")))
            }
        }
    }

    /// The value of a key that must be there, as `T` (see [`FromValue`]).
    ///
    /// # Errors
    /// When it is missing, of another type, or out of the range of `T`.
    pub fn require<'m, T: FromValue<'m>>(&'m self, key: &str) -> Result<T> {
        self.find(key)?.ok_or_else(|| {
            Error::bad_input(format!("metadata {key:?} is missing; {} is needed", T::WANTED))
                .code("FB-3607")
        })
    }

    /// Sets a value: in its old place when the key is there already, else at the end.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.index.get(&key) {
            Some(&at) => self.entries[at].1 = value,
            None => {
                self.index.insert(key.clone(), self.entries.len());
                self.entries.push((key, value));
            }
        }
    }

    /// Removes a key; the value it had.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let at = self.index.remove(key)?;
        self.index.values_mut().filter(|place| **place > at).for_each(|place| *place -= 1);
        Some(self.entries.remove(at).1)
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Metadata {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut metadata = Metadata::default();
        entries.into_iter().for_each(|(key, value)| metadata.set(key, value));
        metadata
    }
}

/// A value for messages: its type, and itself where it is a number.
fn shown(value: &Value) -> String {
    let name = value.type_name();
    match int(value).map(|i| i.to_string()).or_else(|| float(value).map(|f| f.to_string())) {
        Some(number) => format!("{number} ({name})"),
        None => name,
    }
}

/// Rust types that a value can be read as.
///
/// Integers take every integer type of the file that fits, since writers disagree on widths;
/// floats take `f32`, `f64` and integers. `Vec<i64>` and `Vec<f64>` take arrays likewise.
pub trait FromValue<'m>: Sized {
    /// What is wanted, for messages, with its article.
    const WANTED: &'static str;

    /// The value, if it is one of these.
    fn from_value(value: &'m Value) -> Option<Self>;
}

macro_rules! from_int {
    ($($ty:ty)*) => { $(
        impl FromValue<'_> for $ty {
            const WANTED: &'static str = concat!("an integer (", stringify!($ty), ")");

            fn from_value(value: &Value) -> Option<Self> {
                int(value).and_then(|value| value.try_into().ok())
            }
        }
    )* };
}

from_int! { u16 u32 u64 usize i32 i64 }

impl FromValue<'_> for f64 {
    const WANTED: &'static str = "a number";

    fn from_value(value: &Value) -> Option<Self> {
        float(value).or_else(|| int(value).map(|value| value as f64))
    }
}

impl FromValue<'_> for f32 {
    const WANTED: &'static str = "a number";

    fn from_value(value: &Value) -> Option<Self> {
        f64::from_value(value).map(|value| value as f32)
    }
}

impl FromValue<'_> for bool {
    const WANTED: &'static str = "a boolean";

    fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

impl<'m> FromValue<'m> for &'m str {
    const WANTED: &'static str = "a text";

    fn from_value(value: &'m Value) -> Option<Self> {
        match value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl<'m> FromValue<'m> for &'m [String] {
    const WANTED: &'static str = "an array of texts";

    fn from_value(value: &'m Value) -> Option<Self> {
        match value {
            Value::Array(Array::String(texts)) => Some(texts),
            _ => None,
        }
    }
}

impl<'m> FromValue<'m> for &'m [f32] {
    const WANTED: &'static str = "an array of f32";

    fn from_value(value: &'m Value) -> Option<Self> {
        match value {
            Value::Array(Array::F32(values)) => Some(values),
            _ => None,
        }
    }
}

impl FromValue<'_> for Vec<i64> {
    const WANTED: &'static str = "an array of integers";

    fn from_value(value: &Value) -> Option<Self> {
        let Value::Array(array) = value else { return None };
        let each = |index| array.get(index).and_then(|value| int(&value)?.try_into().ok());
        // Only looked at element by element where all of them are numbers.
        if matches!(array, Array::String(_) | Array::Bool(_)) {
            return None;
        }
        (0..array.len()).map(each).collect()
    }
}

impl FromValue<'_> for Vec<f64> {
    const WANTED: &'static str = "an array of numbers";

    fn from_value(value: &Value) -> Option<Self> {
        let Value::Array(array) = value else { return None };
        if matches!(array, Array::String(_) | Array::Bool(_)) {
            return None;
        }
        (0..array.len()).map(|index| f64::from_value(&array.get(index)?)).collect()
    }
}

fn int(value: &Value) -> Option<i128> {
    Some(match *value {
        Value::U8(v) => v.into(),
        Value::I8(v) => v.into(),
        Value::U16(v) => v.into(),
        Value::I16(v) => v.into(),
        Value::U32(v) => v.into(),
        Value::I32(v) => v.into(),
        Value::U64(v) => v.into(),
        Value::I64(v) => v.into(),
        _ => return None,
    })
}

fn float(value: &Value) -> Option<f64> {
    match *value {
        Value::F32(v) => Some(v.into()),
        Value::F64(v) => Some(v),
        _ => None,
    }
}
