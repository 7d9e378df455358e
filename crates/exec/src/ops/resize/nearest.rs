//! Nearest neighbours: elements are picked, whatever their type.

use super::coordinates::Transform;
use super::is_old;
use super::plan::{Axis, Plan};
use crate::eval::EvalCtx;
use crate::ops::movement::{by_size, move_elements};
use crate::ops::strided::strides;
use fewbit_core::{Error, Node, Result, Tensor};

/// How a coordinate between two elements is rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rounding {
    PreferFloor,
    PreferCeil,
    Floor,
    Ceil,
    /// `Resize` of opset 10: down where the axis grows, up where it shrinks.
    BySize,
}

impl Rounding {
    fn of(node: &Node, opset: i64) -> Result<Rounding> {
        if is_old(node, opset) {
            return Ok(if node.op == "Upsample" { Rounding::Floor } else { Rounding::BySize });
        }
        Ok(match node.string("nearest_mode")?.unwrap_or("round_prefer_floor") {
            "round_prefer_floor" | "" => Rounding::PreferFloor,
            "round_prefer_ceil" => Rounding::PreferCeil,
            "floor" => Rounding::Floor,
            "ceil" => Rounding::Ceil,
            other => {
                return Err(Error::bad_input(format!("unknown rounding `{other}`"))
                    .at("attribute `nearest_mode`"));
            }
        })
    }

    fn round(self, x: f64, scale: f64) -> f64 {
        match self {
            Rounding::PreferFloor => (x - 0.5).ceil(),
            Rounding::PreferCeil => (x + 0.5).floor(),
            Rounding::Ceil => x.ceil(),
            Rounding::BySize if scale < 1.0 => x.ceil(),
            Rounding::Floor | Rounding::BySize => x.floor(),
        }
    }
}

pub(super) fn resize(
    ctx: &EvalCtx,
    input: &Tensor,
    plan: &Plan,
    transform: Transform,
) -> Result<Tensor> {
    let rounding = Rounding::of(ctx.node, ctx.opset)?;
    let fill = extrapolation(ctx, input)?;
    let steps = strides(input.shape());
    move_elements(ctx, &[input, &fill], plan.shape(), |inputs, out, size| {
        if out.is_empty() {
            return Ok(());
        }
        let axes = plan.axes.iter().zip(&steps);
        let sources: Vec<Vec<Option<usize>>> =
            axes.map(|(axis, &step)| sources(axis, transform, rounding, step as usize)).collect();
        by_size!(size, pick(out, inputs[0], inputs[1], &sources));
        Ok(())
    })
}

/// The value outside a cropped region, as one element of the input's type.
fn extrapolation(ctx: &EvalCtx, input: &Tensor) -> Result<Tensor> {
    let value = ctx.float("extrapolation_value", 0.0)?;
    match input.dtype().is_float() || input.dtype().is_int() {
        true => Tensor::from_f64(input.dtype(), vec![1], &[value as f64]),
        false => Tensor::zeros(input.dtype(), vec![1]),
    }
}

/// The input offset of every output element along an axis; `None` outside the region.
fn sources(
    axis: &Axis,
    transform: Transform,
    rounding: Rounding,
    step: usize,
) -> Vec<Option<usize>> {
    let last = axis.input.saturating_sub(1) as f64;
    let source = |x: usize| {
        if axis.is_identity(transform) {
            return Some(x * step);
        }
        let at = transform.coordinate(axis, x);
        let inside = !transform.is_outside(axis, at);
        inside.then(|| rounding.round(at, axis.scale).clamp(0.0, last) as usize * step)
    };
    (0..axis.output).map(source).collect()
}

fn pick<const N: usize>(out: &mut [u8], input: &[u8], fill: &[u8], sources: &[Vec<Option<usize>>]) {
    let ((out, _), (input, _)) = (out.as_chunks_mut::<N>(), input.as_chunks::<N>());
    let (&[fill, ..], Some((inner, outer))) = (fill.as_chunks::<N>().0, sources.split_last())
    else {
        return;
    };
    let mut at = vec![0usize; outer.len()];
    for row in out.chunks_exact_mut(inner.len()) {
        let base = at.iter().zip(outer).map(|(&i, axis)| axis[i]).sum::<Option<usize>>();
        for (slot, &offset) in row.iter_mut().zip(inner) {
            *slot = match (base, offset) {
                (Some(base), Some(offset)) => input[base + offset],
                _ => fill,
            };
        }
        for axis in (0..at.len()).rev() {
            at[axis] += 1;
            if at[axis] < outer[axis].len() {
                break;
            }
            at[axis] = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_where_the_mode_says() {
        let all = |x| {
            [Rounding::PreferFloor, Rounding::PreferCeil, Rounding::Floor, Rounding::Ceil]
                .map(|r| r.round(x, 1.0))
        };
        assert_eq!(all(1.5), [1.0, 2.0, 1.0, 2.0]);
        assert_eq!(all(1.2), [1.0, 1.0, 1.0, 2.0]);
        assert_eq!(all(1.7), [2.0, 2.0, 1.0, 2.0]);
        assert_eq!(all(2.0), [2.0; 4]);
    }
}
