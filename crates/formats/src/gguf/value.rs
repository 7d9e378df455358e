//! Typed values of the metadata.

use super::cursor::Cursor;
use fewbit_core::{Error, Result};

/// Declares the scalar types once: variant, Rust type, number in the file, how to read it.
macro_rules! values {
    ($($(#[$doc:meta])* $variant:ident $ty:ty, $id:literal, $name:literal, $smallest:literal, $read:expr;)*) => {
        /// One value of the metadata.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Value {
            $($(#[$doc])* $variant($ty),)*
            /// Several values of one type.
            Array(Array),
        }

        /// Several values of one type.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Array { $($(#[$doc])* $variant(Vec<$ty>),)* }

        $(
            impl From<$ty> for Value {
                fn from(value: $ty) -> Value { Value::$variant(value) }
            }
            impl From<Vec<$ty>> for Value {
                fn from(values: Vec<$ty>) -> Value { Value::Array(Array::$variant(values)) }
            }
        )*

        impl Value {
            /// The number of the type in the file.
            pub fn type_id(&self) -> u32 {
                match self { $(Value::$variant(_) => $id,)* Value::Array(_) => ARRAY }
            }

            /// The type for messages, such as `u32` or `array of string`.
            pub fn type_name(&self) -> String {
                match self {
                    $(Value::$variant(_) => $name.to_string(),)*
                    Value::Array(array) => format!("array of {}", array.type_name()),
                }
            }

            fn read_scalar(id: u32, from: &mut Cursor) -> Result<Value> {
                match id {
                    $($id => { let read: fn(&mut Cursor) -> Result<$ty> = $read; read(from).map(Value::$variant) })*
                    other => Err(unknown(other)),
                }
            }
        }

        impl Array {
            /// The number of the element type in the file.
            pub fn type_id(&self) -> u32 {
                match self { $(Array::$variant(_) => $id,)* }
            }

            /// The element type for messages.
            pub fn type_name(&self) -> &'static str {
                match self { $(Array::$variant(_) => $name,)* }
            }

            /// Number of elements.
            pub fn len(&self) -> usize {
                match self { $(Array::$variant(values) => values.len(),)* }
            }

            /// Whether there are no elements.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// The element at `index`.
            pub fn get(&self, index: usize) -> Option<Value> {
                match self { $(Array::$variant(values) => values.get(index).cloned().map(Value::from),)* }
            }

            fn read(from: &mut Cursor) -> Result<Array> {
                let at = from.position();
                let id = from.u32()?;
                let count = from.u64()?;
                let result = match id {
                    $($id => read_many(from, count, $smallest, $read).map(Array::$variant),)*
                    ARRAY => Err(Error::unsupported("an array of arrays; only plain arrays are read").code("FB-4603")),
                    other => Err(unknown(other)),
                };
                result.map_err(|e| if e.place().is_empty() { e.at(format!("byte {at}")) } else { e })
            }
        }
    };
}

const ARRAY: u32 = 9;

values! {
    /// Unsigned 8-bit integer.
    U8 u8, 0, "u8", 1, |from| from.u8();
    /// Signed 8-bit integer.
    I8 i8, 1, "i8", 1, |from| Ok(from.u8()? as i8);
    /// Unsigned 16-bit integer.
    U16 u16, 2, "u16", 2, |from| from.u16();
    /// Signed 16-bit integer.
    I16 i16, 3, "i16", 2, |from| Ok(from.u16()? as i16);
    /// Unsigned 32-bit integer.
    U32 u32, 4, "u32", 4, |from| from.u32();
    /// Signed 32-bit integer.
    I32 i32, 5, "i32", 4, |from| Ok(from.u32()? as i32);
    /// IEEE 754 binary32.
    F32 f32, 6, "f32", 4, |from| Ok(f32::from_bits(from.u32()?));
    /// True or false.
    Bool bool, 7, "bool", 1, |from| from.bool();
    /// UTF-8 text, from an untrusted file: escape it before it reaches a terminal.
    String String, 8, "string", 8, |from| from.text().map(str::to_string);
    /// Unsigned 64-bit integer.
    U64 u64, 10, "u64", 8, |from| from.u64();
    /// Signed 64-bit integer.
    I64 i64, 11, "i64", 8, |from| Ok(from.u64()? as i64);
    /// IEEE 754 binary64.
    F64 f64, 12, "f64", 8, |from| Ok(f64::from_bits(from.u64()?));
}

fn unknown(id: u32) -> Error {
    Error::bad_input(format!("value type {id} is unknown; 0 to 12 are allowed")).code("FB-3608")
}

/// Reads `count` elements that take at least `smallest` bytes each.
fn read_many<T>(
    from: &mut Cursor,
    count: u64,
    smallest: usize,
    read: fn(&mut Cursor) -> Result<T>,
) -> Result<Vec<T>> {
    let most = from.left() / smallest;
    let count = usize::try_from(count).ok().filter(|&count| count <= most).ok_or_else(|| {
        let left = from.left();
        Error::bad_input(format!(
            "an array of {count} elements cannot lie in the {left} bytes left"
        ))
        .code("FB-3603")
        .hint("the file is cut off or damaged: download or copy it again")
    })?;
    let mut values = Vec::with_capacity(count);
    for _ in 0..count {
        values.push(read(from)?);
    }
    Ok(values)
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_string())
    }
}

impl Value {
    /// Reads one value behind the number of its type.
    pub(super) fn read(from: &mut Cursor) -> Result<Value> {
        let at = from.position();
        match from.u32()? {
            ARRAY => Array::read(from).map(Value::Array),
            id => Value::read_scalar(id, from)
                .map_err(|e| if e.place().is_empty() { e.at(format!("byte {at}")) } else { e }),
        }
    }
}
