//! Settings of a model under the names of `config.json`, with checks.

use fewbit_core::{Error, Result};
use serde_json::{Map, Value};

/// Sizes above this are damage: products of two of them fit into 64 bits.
const MAX_SIZE: u64 = 1 << 28;

/// A JSON object with typed, checked access.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    fields: Map<String, Value>,
}

impl Settings {
    /// The fields of an object.
    pub fn new(fields: Map<String, Value>) -> Settings {
        Settings { fields }
    }

    /// All fields.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// Sets a field.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.fields.insert(name.to_string(), value.into());
    }

    /// A field that is there and not null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.fields.get(name).filter(|v| !v.is_null())
    }

    /// A size that may be missing.
    ///
    /// # Errors
    /// When it is no whole number, or beyond what any model has.
    pub fn opt_size(&self, name: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_u64().filter(|&n| n <= MAX_SIZE);
        number.map(|n| Some(n as usize)).ok_or_else(|| wrong(name, "a size", value))
    }

    /// A size that must be there and positive.
    ///
    /// # Errors
    /// As [`opt_size`](Settings::opt_size), and when it is missing or 0.
    pub fn size(&self, name: &str) -> Result<usize> {
        match self.opt_size(name)? {
            Some(0) => Err(Error::bad_input("0").code("FB-3705").at(format!("setting `{name}`"))),
            Some(n) => Ok(n),
            None => Err(Error::bad_input(format!("the setting `{name}` is missing"))
                .code("FB-3705")
                .hint("take config.json or the metadata from the original model")),
        }
    }

    /// A size with a default.
    ///
    /// # Errors
    /// As [`opt_size`](Settings::opt_size).
    pub fn size_or(&self, name: &str, default: usize) -> Result<usize> {
        Ok(self.opt_size(name)?.unwrap_or(default))
    }

    /// A finite number that may be missing.
    ///
    /// # Errors
    /// When it is no finite number.
    pub fn opt_number(&self, name: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let number = value.as_f64().filter(|n| n.is_finite());
        number.map(Some).ok_or_else(|| wrong(name, "a number", value))
    }

    /// A number with a default.
    ///
    /// # Errors
    /// As [`opt_number`](Settings::opt_number).
    pub fn number_or(&self, name: &str, default: f64) -> Result<f64> {
        Ok(self.opt_number(name)?.unwrap_or(default))
    }

    /// A positive number that must be there.
    ///
    /// # Errors
    /// As [`opt_number`](Settings::opt_number), and when it is missing or not positive.
    pub fn positive(&self, name: &str) -> Result<f64> {
        let found = self.opt_number(name)?;
        found.filter(|&n| n > 0.0).ok_or_else(|| {
            let what = format!("a positive number is expected, found {found:?}");
            Error::bad_input(what).code("FB-3705").at(format!("setting `{name}`"))
        })
    }

    /// A flag; false unless it is there.
    pub fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// A list of numbers.
    ///
    /// # Errors
    /// When an element is no number.
    pub fn numbers(&self, name: &str) -> Result<Option<Vec<f64>>> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let list = value.as_array().and_then(|list| list.iter().map(Value::as_f64).collect());
        list.map(Some).ok_or_else(|| wrong(name, "a list of numbers", value))
    }

    /// An object within.
    pub fn object(&self, name: &str) -> Option<Settings> {
        self.get(name)?.as_object().cloned().map(Settings::new)
    }

    /// Token ids: one, or a list.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        match self.get(name) {
            Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
            Some(value) => id(value).into_iter().collect(),
            None => Vec::new(),
        }
    }
}

fn wrong(name: &str, expected: &str, found: &Value) -> Error {
    let mut shown = found.to_string();
    if shown.len() > 60 {
        shown = format!("{}...", shown.chars().take(60).collect::<String>());
    }
    Error::bad_input(format!("expected {expected}, found {shown}"))
        .code("FB-3705")
        .at(format!("setting `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::new(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn sizes_are_checked() {
        let s = settings(r#"{"a": 3, "b": -1, "c": 1e30, "d": null, "e": 0, "f": "3"}"#);
        assert_eq!(s.size("a").unwrap(), 3);
        assert_eq!(s.size_or("d", 7).unwrap(), 7);
        for bad in ["b", "c", "d", "e", "f", "missing"] {
            let error = s.size(bad).unwrap_err();
            assert_eq!(error.stable_code(), "FB-3705", "{bad}");
        }
    }

    #[test]
    fn ids_are_one_or_many() {
        let s = settings(r#"{"one": 2, "many": [1, 5], "odd": [1, -5, "x"]}"#);
        assert_eq!((s.ids("one"), s.ids("many"), s.ids("odd")), (vec![2], vec![1, 5], vec![1]));
    }
}
