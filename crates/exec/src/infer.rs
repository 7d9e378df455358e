//! What an operator sees while its output types are derived.

use fewbit_core::{DType, Dim, Error, Node, Result, Tensor, ValueType};

/// Input types and known values of one node.
pub struct InferCtx<'a> {
    /// The node, with its attributes.
    pub node: &'a Node,
    /// Operator-set version the model imports for the node's domain.
    pub opset: i64,
    /// Input types; `None` where an optional input is left out.
    pub inputs: Vec<Option<ValueType>>,
    /// Values of inputs that are constant.
    pub constants: Vec<Option<&'a Tensor>>,
}

impl InferCtx<'_> {
    /// Type of input `index`; unknown when the input is left out.
    pub fn ty(&self, index: usize) -> ValueType {
        self.inputs.get(index).cloned().flatten().unwrap_or_default()
    }

    /// Element type of input `index`, if known.
    pub fn dtype(&self, index: usize) -> Option<DType> {
        self.inputs.get(index)?.as_ref()?.dtype
    }

    /// Shape of input `index`, if its rank is known.
    pub fn shape(&self, index: usize) -> Option<&[Dim]> {
        self.inputs.get(index)?.as_ref()?.shape.as_deref()
    }

    /// Value of input `index`, if it is constant.
    pub fn constant(&self, index: usize) -> Option<&Tensor> {
        self.constants.get(index).copied().flatten()
    }

    /// Whether input `index` is given.
    pub fn has(&self, index: usize) -> bool {
        self.inputs.get(index).is_some_and(Option::is_some)
    }
}

/// A type of which only the element type is known.
pub fn only_dtype(dtype: Option<DType>) -> ValueType {
    ValueType { dtype, ..Default::default() }
}

/// A type from an element type and a shape, each as far as it is known.
pub fn typed(dtype: Option<DType>, shape: Option<Vec<Dim>>) -> ValueType {
    ValueType { dtype, shape, opaque: None }
}

/// One output of the same type as input 0.
///
/// # Errors
/// Never; the signature is that of an inference function.
pub fn same_as_input(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![ctx.ty(0)])
}

/// One output with the shape of all inputs broadcast together and the element type of input 0
/// (ONNX "Multidirectional Broadcasting").
///
/// # Errors
/// When fixed dimensions cannot be broadcast.
pub fn broadcast(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut shape = ctx.shape(0).map(<[Dim]>::to_vec);
    for index in 1..ctx.inputs.len() {
        shape = match (shape, ctx.shape(index)) {
            (Some(a), Some(b)) => Some(broadcast_dims(&a, b)?),
            _ => None,
        };
    }
    Ok(vec![typed(ctx.dtype(0), shape)])
}

/// As [`broadcast`], with a boolean result (comparisons).
///
/// # Errors
/// As [`broadcast`].
pub fn broadcast_to_bool(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let mut types = broadcast(ctx)?;
    types[0].dtype = Some(DType::Bool);
    Ok(types)
}

/// Broadcasts two shapes.
///
/// # Errors
/// When fixed dimensions differ and neither is 1.
pub fn broadcast_dims(a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |s: &[Dim], i: usize| match (i + s.len()).checked_sub(rank) {
        Some(j) => s[j].clone(),
        None => Dim::Known(1),
    };
    (0..rank).map(|i| broadcast_dim(at(a, i), at(b, i))).collect()
}

fn broadcast_dim(a: Dim, b: Dim) -> Result<Dim> {
    match (a, b) {
        (Dim::Known(1), d) | (d, Dim::Known(1)) => Ok(d),
        (Dim::Known(x), Dim::Known(y)) if x != y => {
            Err(Error::bad_input(format!("dimensions {x} and {y} cannot be broadcast"))
                .code("FB-3203"))
        }
        (Dim::Known(x), _) | (_, Dim::Known(x)) => Ok(Dim::Known(x)),
        (a, b) if a == b => Ok(a),
        _ => Ok(Dim::Unknown),
    }
}

/// Outputs of which nothing is known: one for each output slot of the node.
///
/// # Errors
/// Never; the signature is that of an inference function.
pub fn unknown(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![ValueType::default(); ctx.node.outputs.len()])
}
