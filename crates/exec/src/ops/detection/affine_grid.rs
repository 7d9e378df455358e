//! `AffineGrid`: the sampling positions of an affine transformation.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use crate::ops::params::{Known, fixed, known_ints, size};
use fewbit_core::{DType, Error, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("AffineGrid", infer, eval).since(20);

/// Batch and spatial sizes `[N, d1, ..]` of a size `[N, C, d1, ..]`.
fn sizes(given: &[i64]) -> Result<Vec<usize>> {
    match given {
        [n, _, spatial @ ..] if matches!(spatial.len(), 2 | 3) => {
            [&[*n], spatial].concat().into_iter().map(|d| size(d, "a size")).collect()
        }
        _ => {
            Err(Error::bad_input(format!("a grid of size {given:?}; 4 or 5 numbers are expected")))
        }
    }
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let theta = ctx.input(0)?;
    let sizes = sizes(&ctx.input(1)?.to_i64()?)?;
    let (n, spatial) = (sizes[0], &sizes[1..]);
    let rank = spatial.len();
    if theta.shape() != [n, rank, rank + 1] {
        return Err(Error::bad_input(format!(
            "matrices of shape {:?}; {:?} is expected",
            theta.shape(),
            [n, rank, rank + 1]
        )));
    }
    let align = ctx.int("align_corners", 0)? != 0;
    let matrices = theta.to_f32()?;
    let shape = [&sizes[..], &[rank]].concat();
    let grid = ctx.output::<f32>(shape, |out| {
        let places: usize = spatial.iter().product();
        for (i, point) in out.chunks_exact_mut(rank).enumerate() {
            let matrix = &matrices[i / places * rank * (rank + 1)..];
            let at = base(i % places, spatial, align);
            for (row, slot) in matrix.chunks_exact(rank + 1).zip(point) {
                *slot = row[rank] + row.iter().zip(&at).map(|(m, x)| m * x).sum::<f32>();
            }
        }
        Ok(())
    })?;
    Ok(vec![grid.cast(theta.dtype())?])
}

/// The untransformed position of an output element, innermost axis first.
fn base(mut place: usize, spatial: &[usize], align: bool) -> Vec<f32> {
    let mut at = Vec::with_capacity(spatial.len());
    for &dim in spatial.iter().rev() {
        let i = (place % dim) as f32;
        place /= dim;
        at.push(match align {
            true => 2.0 * i / (dim.max(2) - 1) as f32 - 1.0,
            false => (2.0 * i + 1.0) / dim as f32 - 1.0,
        });
    }
    at
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let dtype = ctx.dtype(0).or(Some(DType::F32));
    let shape = match known_ints(ctx, "", 1)? {
        Known::Value(given) => {
            let sizes = sizes(&given)?;
            Some(fixed(&[&sizes[..], &[sizes.len() - 1]].concat()))
        }
        _ => None,
    };
    Ok(vec![typed(dtype, shape)])
}
