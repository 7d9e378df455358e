//! JSON that keeps what others lose: keys that stand twice, and where it is damaged.
//!
//! Values are bounded in breadth here and in depth by `serde_json` (128), so that a header
//! cannot ask for much more memory than it takes itself.

use fewbit_core::{Error, Result};
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// One value. Keys of a map keep their order and may stand twice.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// A whole number that is not negative.
    Count(u64),
    /// Any other number.
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Map(Vec<(String, Json)>),
}

impl Json {
    /// What it is, for messages.
    pub(super) fn kind(&self) -> String {
        match self {
            Json::Null => "null".into(),
            Json::Bool(value) => value.to_string(),
            Json::Count(value) => value.to_string(),
            Json::Number(value) => value.to_string(),
            Json::Text(_) => "a text".into(),
            Json::List(_) => "a list".into(),
            Json::Map(_) => "an object".into(),
        }
    }
}

/// Reads one value whose lists and maps have at most `caps[depth]` members; the last one holds
/// for every deeper level.
#[derive(Clone, Copy)]
pub(super) struct Capped<'c>(pub(super) &'c [usize]);

impl Capped<'_> {
    fn cap(&self) -> usize {
        self.0.first().copied().unwrap_or(0)
    }

    fn inner(&self) -> Self {
        if self.0.len() > 1 { Capped(&self.0[1..]) } else { *self }
    }

    fn check<E: de::Error>(&self, len: usize) -> Result<(), E> {
        if len < self.cap() {
            return Ok(());
        }
        Err(E::custom(format!("more than {} members", self.cap())))
    }
}

impl<'de> DeserializeSeed<'de> for Capped<'_> {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Json, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Capped<'_> {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Count(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(u64::try_from(value).map_or(Json::Number(value as f64), Json::Count))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = from.next_element_seed(self.inner())? {
            self.check(list.len())?;
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Json, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = from.next_key()? {
            self.check(map.len())?;
            map.push((key, from.next_value_seed(self.inner())?));
        }
        Ok(Json::Map(map))
    }
}

/// Decodes a text with `seed`, and allows nothing but white space behind the value.
///
/// `start` is the place of the text in its file; damage is reported by the byte, under `code`.
pub(super) fn decode<'de, S: DeserializeSeed<'de>>(
    text: &'de str,
    start: usize,
    code: &'static str,
    seed: S,
) -> Result<S::Value> {
    let mut from = serde_json::Deserializer::from_str(text);
    let value = seed.deserialize(&mut from).and_then(|value| from.end().map(|()| value));
    value.map_err(|e| {
        let byte = start + offset(text, e.line(), e.column());
        // The line and column are of the header alone; the byte says more.
        let what = e.to_string();
        let what = what.split(" at line ").next().unwrap_or_default();
        Error::bad_input(format!("damaged JSON: {what}")).code(code).at(format!("byte {byte}"))
    })
}

/// Byte of a line and column that count from 1.
fn offset(text: &str, line: usize, column: usize) -> usize {
    let before = text.split_inclusive('\n').take(line.saturating_sub(1));
    before.map(str::len).sum::<usize>() + column.saturating_sub(1)
}

/// The value of a key that must stand exactly once.
pub(super) fn field<'m>(map: &'m [(String, Json)], key: &str) -> Result<&'m Json> {
    let mut found = map.iter().filter(|(k, _)| k == key).map(|(_, value)| value);
    match (found.next(), found.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(Error::bad_input(format!("`{key}` is missing")).code("FB-3504")),
        _ => Err(Error::bad_input(format!("key {key:?} stands twice")).code("FB-3503")),
    }
}
