//! The header is a Python dictionary literal; only the few forms that NumPy writes are read.

use fewbit_core::{Error, Result};

/// A value of the header's dictionary.
#[derive(Debug, PartialEq)]
pub(super) enum Literal {
    Text(String),
    Bool(bool),
    Tuple(Vec<u64>),
    /// A list: the fields of a structured dtype, which are not read.
    List,
}

/// Parses `{'key': value, ...}` with nothing but white space around it.
pub(super) fn parse(text: &str) -> Result<Vec<(String, Literal)>> {
    let mut cursor = Cursor { text: text.as_bytes(), at: 0 };
    cursor.expect(b'{')?;
    let mut pairs = Vec::new();
    while !cursor.accept(b'}') {
        let key = cursor.text()?;
        cursor.expect(b':')?;
        let value = cursor.value()?;
        let is_list = value == Literal::List;
        pairs.push((key, value));
        if is_list {
            return Ok(pairs);
        }
        if !cursor.accept(b',') {
            cursor.expect(b'}')?;
            break;
        }
    }
    match cursor.peek() {
        None => Ok(pairs),
        Some(_) => Err(cursor.unexpected("the end of the header")),
    }
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn peek(&mut self) -> Option<u8> {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        self.text.get(self.at).copied()
    }

    fn accept(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<()> {
        if self.accept(byte) {
            return Ok(());
        }
        Err(self.unexpected(&format!("`{}`", byte as char)))
    }

    fn unexpected(&self, wanted: &str) -> Error {
        let found = match self.text.get(self.at) {
            Some(b) => format!("`{}`", b.escape_ascii()),
            None => "the end".to_owned(),
        };
        Error::bad_input(format!("expected {wanted}, found {found}"))
            .code("FB-3310")
            .at(format!("header, byte {}", self.at))
    }

    fn value(&mut self) -> Result<Literal> {
        match self.peek() {
            Some(b'\'' | b'"') => Ok(Literal::Text(self.text()?)),
            Some(b'(') => Ok(Literal::Tuple(self.tuple()?)),
            Some(b'[') => Ok(Literal::List),
            _ if self.word(b"True") => Ok(Literal::Bool(true)),
            _ if self.word(b"False") => Ok(Literal::Bool(false)),
            _ => Err(self.unexpected("a string, a tuple, True or False")),
        }
    }

    fn word(&mut self, word: &[u8]) -> bool {
        let found = self.text[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn text(&mut self) -> Result<String> {
        let quote = match self.peek() {
            Some(q @ (b'\'' | b'"')) => q,
            _ => return Err(self.unexpected("a string")),
        };
        let rest = &self.text[self.at + 1..];
        let Some(len) = rest.iter().position(|b| *b == quote) else {
            self.at = self.text.len();
            return Err(self.unexpected("a closing quote"));
        };
        self.at += len + 2;
        Ok(String::from_utf8_lossy(&rest[..len]).into_owned())
    }

    fn tuple(&mut self) -> Result<Vec<u64>> {
        self.expect(b'(')?;
        let mut numbers = Vec::new();
        while !self.accept(b')') {
            numbers.push(self.number()?);
            if !self.accept(b',') {
                self.expect(b')')?;
                break;
            }
        }
        Ok(numbers)
    }

    fn number(&mut self) -> Result<u64> {
        self.peek();
        let rest = &self.text[self.at..];
        let len = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let digits = std::str::from_utf8(&rest[..len]).unwrap_or_default();
        let number = digits.parse().map_err(|_| self.unexpected("a dimension"))?;
        self.at += len;
        // Python 2 wrote long integers with an L.
        self.at += usize::from(self.text.get(self.at) == Some(&b'L'));
        Ok(number)
    }
}
