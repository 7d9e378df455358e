//! `RandomUniform`, `RandomNormal` (and `Like`), `Bernoulli` and `Multinomial`.

mod generator;

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::cast::target;
use crate::ops::params::{fixed, size};
use fewbit_core::{DType, Dim, Error, Node, Result, Tensor, ValueType};
use generator::Generator;

pub(super) const DEFS: &[OpDef] = &[
    OpDef::new("Bernoulli", infer_like, bernoulli).since(15),
    OpDef::new("Multinomial", infer_multinomial, multinomial).since(7),
    OpDef::new("RandomNormal", infer_shape, normal),
    OpDef::new("RandomNormalLike", infer_like, normal),
    OpDef::new("RandomUniform", infer_shape, uniform),
    OpDef::new("RandomUniformLike", infer_like, uniform),
];

fn dtype(node: &Node, default: Option<DType>) -> Result<Option<DType>> {
    node.int("dtype")?.map_or(Ok(default), |code| target(code).map(Some))
}

fn shape(node: &Node) -> Result<Vec<usize>> {
    let shape = node.ints("shape")?;
    let shape = shape.ok_or_else(|| Error::bad_input("attribute `shape` is missing"))?;
    shape.iter().map(|&n| size(n, "a dimension")).collect()
}

/// `value` of every position, as the type and in the shape that the node asks for.
fn draw(ctx: &EvalCtx, value: impl Fn(usize) -> f64) -> Result<Vec<Tensor>> {
    let (dtype, shape) = match ctx.opt(0) {
        Some(like) => (dtype(ctx.node, Some(like.dtype()))?, like.shape().to_vec()),
        None => (dtype(ctx.node, None)?, shape(ctx.node)?),
    };
    let mut wide = ctx.alloc(DType::F64, shape)?;
    wide.as_mut_slice()?.iter_mut().enumerate().for_each(|(i, slot)| *slot = value(i));
    Ok(vec![wide.cast(dtype.unwrap_or(DType::F32))?])
}

fn uniform(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let generator = Generator::of(ctx)?;
    let (low, high) = (f64::from(ctx.float("low", 0.0)?), f64::from(ctx.float("high", 1.0)?));
    draw(ctx, |i| low + (high - low) * generator.uniform(i))
}

fn normal(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let generator = Generator::of(ctx)?;
    let (mean, scale) = (f64::from(ctx.float("mean", 0.0)?), f64::from(ctx.float("scale", 1.0)?));
    draw(ctx, |i| mean + scale * generator.normal(i))
}

fn bernoulli(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let generator = Generator::of(ctx)?;
    let chances = ctx.input(0)?.to_f64()?;
    draw(ctx, |i| f64::from(u8::from(generator.uniform(i) < chances[i])))
}

/// Draws classes by their logarithmic weights.
fn multinomial(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (generator, input) = (Generator::of(ctx)?, ctx.input(0)?);
    let &[batch, classes] = input.shape() else {
        return Err(Error::bad_input(format!("weights of shape {:?}", input.shape())));
    };
    let samples = size(ctx.int("sample_size", 1)?, "sample_size")?;
    if classes == 0 && batch > 0 && samples > 0 {
        return Err(Error::bad_input("a draw from no classes"));
    }
    let mut out = ctx.alloc(DType::I64, vec![batch, samples])?;
    let weights = input.to_f64()?;
    for (i, slot) in out.as_mut_slice::<i64>()?.iter_mut().enumerate() {
        let row = &weights[i / samples * classes..][..classes];
        *slot = pick(row, generator.uniform(i)) as i64;
    }
    Ok(vec![out.cast(dtype(ctx.node, None)?.unwrap_or(DType::I32))?])
}

fn pick(logarithms: &[f64], at: f64) -> usize {
    let max = logarithms.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> =
        logarithms.iter().map(|&w| crate::ops::signal::precise::exp(w - max)).collect();
    let mut rest = at * weights.iter().sum::<f64>();
    for (class, weight) in weights.iter().enumerate() {
        rest -= weight;
        if rest < 0.0 {
            return class;
        }
    }
    logarithms.len() - 1
}

fn infer_shape(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = dtype(ctx.node, Some(DType::F32))?;
    Ok(vec![typed(dtype, Some(fixed(&shape(ctx.node)?)))])
}

fn infer_like(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = dtype(ctx.node, ctx.dtype(0))?;
    Ok(vec![typed(dtype, ctx.shape(0).map(<[Dim]>::to_vec))])
}

fn infer_multinomial(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let batch = ctx.shape(0).and_then(|dims| dims.first()).cloned().unwrap_or(Dim::Unknown);
    let samples = size(ctx.node.int("sample_size")?.unwrap_or(1), "sample_size")?;
    let dtype = dtype(ctx.node, Some(DType::I32))?;
    Ok(vec![typed(dtype, Some(vec![batch, Dim::Known(samples)]))])
}

#[cfg(test)]
mod tests {
    use super::pick;

    #[test]
    fn classes_take_their_share() {
        let weights = [0.0, f64::NEG_INFINITY, 0.0];
        assert_eq!([0.0, 0.49, 0.51, 0.99].map(|at| pick(&weights, at)), [0, 0, 2, 2]);
    }
}
