//! The filter `tojson`, which prints as `json.dumps` of Python does.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Deeper values are no data of a conversation.
const MAX_DEPTH: usize = 128;

/// The arguments of `tojson` in transformers: `ensure_ascii`, `indent`, `separators`, `sort_keys`.
pub(super) fn to_json(
    value: &Value,
    ascii: Option<bool>,
    indent: Option<Value>,
    named: Kwargs,
) -> Result<String, Error> {
    let ascii = named.get::<Option<bool>>("ensure_ascii")?.or(ascii).unwrap_or(false);
    let indent = indent_of(named.get::<Option<Value>>("indent")?.or(indent).unwrap_or_default())?;
    let separators = named.get::<Option<Vec<String>>>("separators")?;
    let sorted = named.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    named.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(wrong("`separators` are two texts")),
        None if indent.is_some() => (",".to_string(), ": ".to_string()),
        None => (", ".to_string(), ": ".to_string()),
    };
    let mut printer = Printer { ascii, indent, item, key, sorted, out: String::new() };
    printer.value(value, 0)?;
    Ok(printer.out)
}

/// Spaces, or the text itself.
fn indent_of(indent: Value) -> Result<Option<String>, Error> {
    if let Some(text) = indent.as_str() {
        return Ok(Some(text.to_string()));
    }
    match indent.is_none() || indent.is_undefined() {
        true => Ok(None),
        false => Ok(Some(" ".repeat(usize::from(u8::try_from(indent)?)))),
    }
}

struct Printer {
    ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sorted: bool,
    out: String,
}

impl Printer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(wrong("a value of too many levels for JSON"));
        }
        match value.kind() {
            ValueKind::None => self.out += "null",
            ValueKind::Bool => self.out += if value.is_true() { "true" } else { "false" },
            ValueKind::Number => self.out += &value.to_string(),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.items(['[', ']'], items.len(), depth, |printer, at| {
                    printer.value(&items[at], depth + 1)
                })?;
            }
            ValueKind::Map => self.map(value, depth)?,
            other => return Err(wrong(&format!("a value of type {other} has no JSON"))),
        }
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.sorted {
            keys.sort();
        }
        self.items(['{', '}'], keys.len(), depth, |printer, at| {
            let key = &keys[at];
            match key.kind() {
                ValueKind::None => printer.text("null"),
                ValueKind::Bool => printer.text(if key.is_true() { "true" } else { "false" }),
                _ => printer.text(&key.to_string()),
            }
            printer.out += &printer.key.clone();
            printer.value(&value.get_item(key)?, depth + 1)
        })
    }

    /// So many items between brackets, each on a line of its own where lines are indented.
    fn items(
        &mut self,
        [open, close]: [char; 2],
        count: usize,
        depth: usize,
        mut print: impl FnMut(&mut Printer, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        for at in 0..count {
            if at > 0 {
                self.out += &self.item.clone();
            }
            self.line(depth + 1);
            print(self, at)?;
        }
        if count > 0 {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out += &format!("\n{}", indent.repeat(depth));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out += "\\\"",
                '\\' => self.out += "\\\\",
                '\n' => self.out += "\\n",
                '\r' => self.out += "\\r",
                '\t' => self.out += "\\t",
                '\u{8}' => self.out += "\\b",
                '\u{c}' => self.out += "\\f",
                c if c < ' ' || (self.ascii && !c.is_ascii()) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        self.out += &format!("\\u{unit:04x}");
                    }
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.to_string())
}
