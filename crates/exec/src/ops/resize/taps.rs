//! Weights of the input elements that an output element is interpolated from.

use super::Mode;
use super::coordinates::Transform;
use super::plan::Axis;
use fewbit_core::{Node, Result};

/// The attributes that shape a filter.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filter {
    mode: Mode,
    cubic_a: f64,
    antialias: bool,
    exclude_outside: bool,
}

/// The taps of every output element of an axis, one after the other.
pub(super) struct Taps {
    /// Taps of one output element.
    pub count: usize,
    /// Input index of each tap.
    pub index: Vec<usize>,
    /// Weight of each tap.
    pub weight: Vec<f64>,
    /// Output elements outside a cropped region.
    pub outside: Vec<bool>,
}

impl Filter {
    pub fn of(node: &Node, mode: Mode) -> Result<Filter> {
        Ok(Filter {
            mode,
            cubic_a: node.float("cubic_coeff_a")?.unwrap_or(-0.75) as f64,
            antialias: node.int("antialias")?.unwrap_or(0) != 0,
            exclude_outside: node.int("exclude_outside")?.unwrap_or(0) != 0,
        })
    }

    /// Weight at distance `t` (Keys 1981 for the cubic one).
    fn weight(&self, t: f64) -> f64 {
        let (t, a) = (t.abs(), self.cubic_a);
        match self.mode {
            Mode::Cubic if t <= 1.0 => ((a + 2.0) * t - (a + 3.0)) * t * t + 1.0,
            Mode::Cubic if t < 2.0 => ((a * t - 5.0 * a) * t + 8.0 * a) * t - 4.0 * a,
            Mode::Cubic => 0.0,
            _ => (1.0 - t).max(0.0),
        }
    }

    /// The taps of all output elements of an axis.
    pub fn taps(&self, axis: &Axis, transform: Transform) -> Taps {
        // Shrinking with antialiasing widens the filter to cover all elements.
        let stretch = if self.antialias { axis.scale.min(1.0) } else { 1.0 };
        let support = if self.mode == Mode::Cubic { 2.0 } else { 1.0 };
        let first = (-support / stretch).floor() as i64 + 1;
        let count = (2 - 2 * first) as usize;
        let mut taps = Taps { count, index: vec![], weight: vec![], outside: vec![] };
        for x in 0..axis.output {
            let at = transform.coordinate(axis, x);
            taps.outside.push(transform.is_outside(axis, at));
            // The left neighbour; an integer coordinate is its right neighbour.
            let base = (at.ceil() - 1.0).clamp(-1e15, 1e15);
            let weights = (0..count as i64)
                .map(|i| self.weight(stretch * ((first + i) as f64 - (at - base))));
            taps.push(axis.input, base as i64 + first, weights.collect(), self.exclude_outside);
        }
        taps
    }
}

impl Taps {
    fn push(&mut self, input: usize, first: i64, mut weights: Vec<f64>, exclude: bool) {
        let last = input as i64 - 1;
        for (i, weight) in weights.iter_mut().enumerate() {
            let at = first + i as i64;
            if exclude && !(0..=last).contains(&at) {
                *weight = 0.0;
            }
            self.index.push(at.clamp(0, last.max(0)) as usize);
        }
        let sum: f64 = weights.iter().sum();
        let sum = if sum == 0.0 { 1.0 } else { sum };
        self.weight.extend(weights.iter().map(|w| w / sum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taps(mode: Mode, antialias: bool, axis: Axis) -> Taps {
        let filter = Filter { mode, cubic_a: -0.75, antialias, exclude_outside: false };
        filter.taps(&axis, Transform::HalfPixel)
    }

    #[test]
    fn linear_weights_lie_between_neighbours() {
        let axis = Axis { input: 2, output: 4, scale: 2.0, roi: (0.0, 1.0) };
        let taps = taps(Mode::Linear, false, axis);
        assert_eq!(taps.index, [0, 0, 0, 1, 0, 1, 1, 1]);
        assert_eq!(taps.weight, [0.25, 0.75, 0.75, 0.25, 0.25, 0.75, 0.75, 0.25]);
    }

    #[test]
    fn antialiasing_covers_what_is_left_out() {
        let axis = Axis { input: 8, output: 2, scale: 0.25, roi: (0.0, 1.0) };
        assert_eq!(taps(Mode::Linear, false, axis).count, 2);
        assert_eq!(taps(Mode::Linear, true, axis).count, 8);
        let weights = taps(Mode::Cubic, true, axis).weight;
        assert!((weights[..weights.len() / 2].iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}
