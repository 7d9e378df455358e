//! `GridSample` (opsets 16 to 22): an input read at the positions of a grid, in one to three
//! spatial dimensions.

use crate::def::OpDef;
use crate::eval::EvalCtx;
use crate::infer::{InferCtx, typed};
use fewbit_core::{Dim, Error, Node, Result, Tensor, ValueType};

pub(super) const DEF: OpDef = OpDef::new("GridSample", infer, eval).since(16);
/// As exporters wrote it before operator set 16.
pub(super) const MICROSOFT: OpDef = DEF.domain("com.microsoft").since(1);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

#[derive(Clone, Copy, Debug)]
struct Sampler {
    mode: Mode,
    padding: Padding,
    align: bool,
}

/// Input elements and their weights.
type Taps = Vec<(usize, f32)>;

impl Sampler {
    fn of(node: &Node) -> Result<Sampler> {
        let unknown = |name: &str, value: &str| {
            Error::bad_input(format!("unknown value `{value}`")).at(format!("attribute `{name}`"))
        };
        let mode = match node.string("mode")?.unwrap_or("linear") {
            "nearest" => Mode::Nearest,
            "linear" | "bilinear" => Mode::Linear,
            "cubic" | "bicubic" => Mode::Cubic,
            other => return Err(unknown("mode", other)),
        };
        let padding = match node.string("padding_mode")?.unwrap_or("zeros") {
            "zeros" => Padding::Zeros,
            "border" => Padding::Border,
            "reflection" => Padding::Reflection,
            other => return Err(unknown("padding_mode", other)),
        };
        Ok(Sampler { mode, padding, align: node.int("align_corners")?.unwrap_or(0) != 0 })
    }

    /// The first and the last coordinate that lie on the input.
    fn border(&self, dim: usize) -> (f32, f32) {
        match self.align {
            true => (0.0, dim as f32 - 1.0),
            false => (-0.5, dim as f32 - 0.5),
        }
    }

    /// The input coordinate of a grid value, which spans -1 to 1.
    fn coordinate(&self, value: f32, dim: usize) -> f32 {
        let x = match self.align {
            true => (value + 1.0) / 2.0 * (dim as f32 - 1.0),
            false => ((value + 1.0) * dim as f32 - 1.0) / 2.0,
        };
        let x = if self.mode == Mode::Nearest { x.round_ties_even() } else { x };
        let (low, high) = self.border(dim);
        match self.padding {
            _ if (low..=high).contains(&x) => x,
            Padding::Zeros => x,
            // Each tap is clamped instead, as PyTorch and ONNX Runtime do.
            Padding::Border if self.mode == Mode::Cubic => x,
            Padding::Border => x.clamp(0.0, dim as f32 - 1.0),
            Padding::Reflection => reflect(x, low, high),
        }
    }

    /// The element at an index that may lie outside; `None` reads 0.
    fn element(&self, index: i64, dim: usize) -> Option<usize> {
        let last = dim as i64 - 1;
        let inside = (0..=last).contains(&index);
        match self.padding {
            _ if inside => Some(index as usize),
            Padding::Zeros => None,
            Padding::Border => Some(index.clamp(0, last) as usize),
            Padding::Reflection => {
                let (low, high) = self.border(dim);
                Some((reflect(index as f32, low, high) as i64).clamp(0, last) as usize)
            }
        }
    }

    /// Elements along one axis, with their weights.
    fn axis(&self, value: f32, dim: usize) -> Taps {
        let x = self.coordinate(value, dim);
        // Far beyond any input, and far from overflow.
        let base = x.floor().clamp(-1e9, 1e9);
        let t = x - base;
        let base = base as i64;
        let (first, weights) = match self.mode {
            Mode::Nearest => (base, vec![1.0]),
            Mode::Linear => (base, vec![1.0 - t, t]),
            Mode::Cubic => (base - 1, [t + 1.0, t, 1.0 - t, 2.0 - t].map(keys).to_vec()),
        };
        let tap = |(i, w): (usize, f32)| Some((self.element(first + i as i64, dim)?, w));
        weights.into_iter().enumerate().filter_map(tap).collect()
    }

    /// Elements of a plane, with their weights, for one point of the grid.
    fn point(&self, point: &[f32], dims: &[usize]) -> Taps {
        let mut taps = vec![(0, 1.0)];
        // The grid names the innermost axis first.
        for (&dim, &value) in dims.iter().zip(point.iter().rev()) {
            let along = self.axis(value, dim);
            let joined = taps.iter().flat_map(|&(at, weight)| {
                along.iter().map(move |&(i, w)| (at * dim + i, weight * w))
            });
            taps = joined.collect();
        }
        taps
    }
}

/// Reflects at the borders until the coordinate lies between them.
fn reflect(x: f32, low: f32, high: f32) -> f32 {
    let range = high - low;
    if range <= 0.0 || !x.is_finite() {
        return low;
    }
    let distance = if x < low {
        low - x
    } else if x > high {
        x - high
    } else {
        return x;
    };
    let turns = (distance / range).floor();
    let rest = distance - turns * range;
    let from_low = (x < low) == (turns % 2.0 == 0.0);
    if from_low { low + rest } else { high - rest }
}

/// The cubic convolution kernel at distance `t`, a = -0.75 (Keys 1981).
fn keys(t: f32) -> f32 {
    const A: f32 = -0.75;
    match t {
        t if t <= 1.0 => ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0,
        t => ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A,
    }
}

/// The output's shape, once input and grid are known to fit.
fn output<T: Clone>(input: &[T], grid: &[T]) -> Result<Vec<T>> {
    if input.len() < 3 || input.len() > 5 || grid.len() != input.len() {
        return Err(Error::bad_input(format!(
            "an input of rank {} with a grid of rank {}",
            input.len(),
            grid.len()
        )));
    }
    Ok([&input[..2], &grid[1..grid.len() - 1]].concat())
}

fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let (input, grid) = (ctx.input(0)?, ctx.input(1)?);
    let sampler = Sampler::of(ctx.node)?;
    let shape = output(input.shape(), grid.shape())?;
    let dims = &input.shape()[2..];
    if grid.shape()[0] != shape[0] || grid.shape().last() != Some(&dims.len()) {
        return Err(Error::bad_input(format!(
            "a grid of shape {:?} does not fit an input of shape {:?}",
            grid.shape(),
            input.shape()
        )));
    }
    let (values, points) = (input.to_f32()?, grid.to_f32()?);
    let sampled = ctx.output::<f32>(shape.clone(), |out| {
        if out.is_empty() {
            return Ok(());
        }
        if values.is_empty() {
            return Err(Error::bad_input("an empty input cannot be sampled"));
        }
        let (plane, places) =
            (dims.iter().product::<usize>(), shape[2..].iter().product::<usize>());
        let channels = shape[1];
        let rank = dims.len();
        let images = values.chunks_exact(channels * plane);
        let images = images.zip(points.chunks_exact(places * rank));
        for ((image, points), out) in images.zip(out.chunks_exact_mut(channels * places)) {
            for (place, point) in points.chunks_exact(rank).enumerate() {
                let taps = sampler.point(point, dims);
                for (channel, values) in image.chunks_exact(plane).enumerate() {
                    out[channel * places + place] = taps.iter().map(|&(i, w)| values[i] * w).sum();
                }
            }
        }
        Ok(())
    })?;
    Ok(vec![sampled.cast(input.dtype())?])
}

fn infer(ctx: &InferCtx) -> Result<Vec<ValueType>> {
    let shape = match (ctx.shape(0), ctx.shape(1)) {
        (Some(input), Some(grid)) => Some(output::<Dim>(input, grid)?),
        _ => None,
    };
    Ok(vec![typed(ctx.dtype(0), shape)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_stays_between_the_borders() {
        let all = [-1.5f32, -0.25, 0.5, 2.25, 5.0].map(|x| reflect(x, 0.0, 2.0));
        assert_eq!(all, [1.5, 0.25, 0.5, 1.75, 1.0]);
        assert_eq!(reflect(7.0, 0.0, 0.0), 0.0);
        assert!((0.0..=2.0).contains(&reflect(1e30, 0.0, 2.0)));
    }

    #[test]
    fn any_coordinate_reads_inside_or_nothing() {
        for mode in [Mode::Nearest, Mode::Linear, Mode::Cubic] {
            for padding in [Padding::Zeros, Padding::Border, Padding::Reflection] {
                for align in [false, true] {
                    let sampler = Sampler { mode, padding, align };
                    for value in [f32::NAN, f32::INFINITY, -1e38, -1.0, 0.0, 1.0, 1e9] {
                        let taps = sampler.axis(value, 3);
                        assert!(taps.iter().all(|t| t.0 < 3), "{sampler:?} at {value}");
                    }
                }
            }
        }
    }
}
