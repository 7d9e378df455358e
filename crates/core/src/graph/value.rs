//! Values: the edges of the graph, with what is known of their type.

use crate::dtype::DType;
use crate::tensor::Tensor;
use std::fmt;

/// Handle of a value in its [`Graph`](crate::Graph).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

impl ValueId {
    pub(super) fn new(index: usize) -> Self {
        ValueId(index as u32)
    }

    /// Position in the arena, for side tables indexed by value.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One dimension of a shape, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A fixed size.
    Known(usize),
    /// A size given by name, equal wherever the name stands (`batch`, `sequence`).
    Named(String),
    /// Nothing is known.
    Unknown,
}

impl Dim {
    /// The size, if it is fixed.
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(n) => Some(*n),
            _ => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Named(name) => f.write_str(name),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

/// What is known of a value's type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueType {
    /// Element type.
    pub dtype: Option<DType>,
    /// Shape; `None` when not even the rank is known.
    pub shape: Option<Vec<Dim>>,
    /// An encoded `TypeProto` of a sequence, optional, map or sparse tensor, carried through.
    pub opaque: Option<Vec<u8>>,
}

impl ValueType {
    /// A tensor type.
    pub fn tensor(dtype: DType, shape: Vec<Dim>) -> Self {
        ValueType { dtype: Some(dtype), shape: Some(shape), opaque: None }
    }

    /// A tensor type of fixed shape.
    pub fn fixed(dtype: DType, shape: &[usize]) -> Self {
        Self::tensor(dtype, shape.iter().map(|&d| Dim::Known(d)).collect())
    }

    /// The type of an existing tensor.
    pub fn of(tensor: &Tensor) -> Self {
        Self::fixed(tensor.dtype(), tensor.shape())
    }

    /// The number of dimensions, if known.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }

    /// The shape, if every dimension is fixed.
    pub fn fixed_shape(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(Dim::known).collect()
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dtype {
            Some(dtype) => write!(f, "{dtype}")?,
            None => f.write_str("?")?,
        }
        let Some(shape) = &self.shape else {
            return f.write_str("[..]");
        };
        let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
        write!(f, "[{}]", dims.join(","))
    }
}

/// A value: graph input, constant, node output, or (in subgraphs) a capture.
#[derive(Clone, Debug)]
pub struct Value {
    /// Unique name in its graph.
    pub name: String,
    /// What is known of the type.
    pub ty: ValueType,
    /// The tensor of a constant (or the default of an input).
    pub constant: Option<Tensor>,
    /// What the file says beyond these fields, still encoded and written back as it came.
    pub carried: Vec<u8>,
}
