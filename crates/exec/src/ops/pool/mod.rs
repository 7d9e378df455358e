//! Pools: `MaxPool`, `AveragePool`, `LpPool` and their global forms, over any number of spatial
//! dimensions.

mod integer;
mod kinds;
mod lower;
pub(crate) mod slide;

pub(crate) use integer::lower_integer;
pub(crate) use lower::{kernel, lower};

use crate::def::{OpDef, Role};
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, only_dtype, typed};
use crate::memory::Arena;
use crate::ops::window::Window;
use crate::plan::permute::{to_default_in, to_last_in};
use fewbit_core::{DType, Dim, Element, Error, Node, Result, Tensor, ValueType};
use fewbit_kernels::Ctx;
use kinds::{ArgMax, Max, Mean, Norm};
use slide::{Accumulate, Slide};

pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("MaxPool", infer, eval_max).role(Role::SameScale),
    OpDef::new("AveragePool", infer, eval).role(Role::Elementwise),
    OpDef::new("LpPool", infer, eval),
    OpDef::new("GlobalAveragePool", infer_global, eval).role(Role::Elementwise),
    OpDef::new("GlobalMaxPool", infer_global, eval).role(Role::SameScale),
    OpDef::new("GlobalLpPool", infer_global, eval),
];

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dims = match ctx.shape(0) {
        Some([n, c, spatial @ ..]) => {
            let mut dims = vec![n.clone(), c.clone()];
            dims.extend(Window::of_pool(ctx.node)?.output_dims(spatial)?);
            Some(dims)
        }
        _ => None,
    };
    let indices = typed(Some(DType::I64), dims.clone());
    let mut types = vec![typed(ctx.dtype(0), dims), indices];
    types.truncate(ctx.node.outputs.len().max(1));
    Ok(types)
}

fn infer_global(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    Ok(vec![match ctx.shape(0) {
        Some([n, c, spatial @ ..]) => {
            let mut dims = vec![n.clone(), c.clone()];
            dims.resize(2 + spatial.len(), Dim::Known(1));
            typed(ctx.dtype(0), Some(dims))
        }
        _ => only_dtype(ctx.dtype(0)),
    }])
}

/// A pool as its node describes it.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    /// `None` for the global pools.
    window: Option<Window>,
    kind: Kind,
    count_padding: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Max,
    Mean,
    Norm(f32),
}

impl Pool {
    /// Reads a node.
    ///
    /// # Errors
    /// When an attribute is missing or no window can have it.
    pub fn new(node: &Node) -> Result<Pool> {
        let global = node.op.starts_with("Global");
        let kind = match node.op.trim_start_matches("Global") {
            "MaxPool" => Kind::Max,
            "AveragePool" => Kind::Mean,
            _ => Kind::Norm(exponent(node)?),
        };
        let window = if global { None } else { Some(Window::of_pool(node)?) };
        let count_padding = node.int("count_include_pad")?.unwrap_or(0) != 0;
        Ok(Pool { window, kind, count_padding })
    }

    /// The walk over an input of shape `[N,...,C]`.
    ///
    /// # Errors
    /// When the window does not fit.
    pub fn slide(&self, shape: &[usize]) -> Result<Slide> {
        let mut slide = match &self.window {
            Some(window) => Slide::new(window, shape)?,
            None => Slide::global(shape)?,
        };
        slide.count_padding = self.count_padding;
        Ok(slide)
    }

    /// Pools a `[N,...,C]` tensor.
    ///
    /// # Errors
    /// When the window does not fit or the type has no pool.
    pub fn run(&self, ctx: &Ctx, arena: &Arena, x: &Tensor) -> Result<Tensor> {
        let slide = self.slide(x.shape())?;
        match (self.kind, x.dtype()) {
            (Kind::Max, DType::F32) => pooled::<f32, _>(ctx, arena, &slide, &Max, x),
            (Kind::Max, DType::F64) => pooled::<f64, _>(ctx, arena, &slide, &Max, x),
            (Kind::Max, DType::U8) => pooled::<u8, _>(ctx, arena, &slide, &Max, x),
            (Kind::Max, DType::I8) => pooled::<i8, _>(ctx, arena, &slide, &Max, x),
            (Kind::Mean, DType::F32) => pooled::<f32, _>(ctx, arena, &slide, &Mean, x),
            (Kind::Norm(p), DType::F32) => pooled::<f32, _>(ctx, arena, &slide, &Norm { p }, x),
            (_, dtype) if dtype.is_float() => {
                self.run(ctx, arena, &x.cast(DType::F32)?)?.cast(dtype)
            }
            (_, dtype) => Err(Error::unsupported(format!("a pool of {dtype} values"))),
        }
    }
}

fn exponent(node: &Node) -> Result<f32> {
    // A float in operator set 1, an integer since.
    let p = match node.int("p") {
        Ok(p) => p.unwrap_or(2) as f32,
        Err(_) => node.float("p")?.unwrap_or(2.0),
    };
    if p > 0.0 { Ok(p) } else { Err(Error::bad_input(format!("attribute `p` is {p}"))) }
}

fn pooled<T: Element + Send + Sync, A: Accumulate<T, T>>(
    ctx: &Ctx,
    arena: &Arena,
    slide: &Slide,
    kind: &A,
    x: &Tensor,
) -> Result<Tensor> {
    let batch = x.shape().first().copied().unwrap_or(0);
    let mut out = arena.tensor(T::DTYPE, slide.output_shape(batch))?;
    slide.run(ctx, kind, &x.cow::<T>()?, out.as_mut_slice::<T>()?);
    Ok(out)
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let pool = Pool::new(ctx.node)?;
    let x = to_last_in(ctx.input(0)?, *ctx.kernels, ctx.arena)?;
    let y = pool.run(ctx.kernels, ctx.arena, &x)?;
    let ordered = to_default_in(&y, *ctx.kernels, ctx.arena)?;
    [x, y].into_iter().for_each(|t| ctx.arena.recycle(t));
    Ok(vec![ordered])
}

fn eval_max(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let mut outputs = eval(ctx)?;
    if ctx.node.output(1).is_some() {
        outputs.push(indices(ctx)?);
    }
    Ok(outputs)
}

/// Where each maximum stood in the whole input tensor.
fn indices(ctx: &EvalCtx) -> Result<Tensor> {
    let input = ctx.input(0)?;
    let slide = Pool::new(ctx.node)?.slide(to_last_in(input, *ctx.kernels, ctx.arena)?.shape())?;
    let x = Tensor::from_slice(input.shape().to_vec(), &input.to_f64()?)?;
    let x = to_last_in(&x, *ctx.kernels, ctx.arena)?;
    let batch = input.shape()[0];
    let mut out = ctx.alloc(DType::I64, slide.output_shape(batch))?;
    slide.run(ctx.kernels, &ArgMax, &x.cow::<f64>()?, out.as_mut_slice::<i64>()?);
    let mut out = to_default_in(&out, *ctx.kernels, ctx.arena)?;
    let spatial = &input.shape()[2..];
    let plane: usize = spatial.iter().product();
    let column_major = ctx.int("storage_order", 0)? != 0;
    let maps = batch * input.shape()[1];
    let per_map = out.len() / maps.max(1);
    for (map, positions) in out.as_mut_slice::<i64>()?.chunks_mut(per_map.max(1)).enumerate() {
        for position in positions {
            let inside = *position as usize;
            let inside = if column_major { transposed_position(inside, spatial) } else { inside };
            *position = (map * plane + inside) as i64;
        }
    }
    Ok(out)
}

/// A row-major position as a column-major one.
fn transposed_position(mut position: usize, spatial: &[usize]) -> usize {
    let mut coordinates = vec![0; spatial.len()];
    for axis in (0..spatial.len()).rev() {
        coordinates[axis] = position % spatial[axis];
        position /= spatial[axis];
    }
    coordinates.iter().zip(spatial).rev().fold(0, |at, (&c, &size)| at * size + c)
}
