//! `RNN`: `h' = f(x W^T + h R^T + b)`.

use super::activation::Activation;
use super::layer::{self, Cell, Direction, Kind, Product, State};
use crate::eval::EvalCtx;
use fewbit_core::{Result, Tensor};
use fewbit_kernels::gemm::PackedF32;

const KIND: Kind = Kind { gates: 1, activations: &["tanh"], has_cell: false, cell };

pub(super) fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    layer::eval(ctx, &KIND)
}

struct Rnn<'a> {
    recurrence: Product,
    bias: &'a [f32],
    f: Activation,
}

fn cell<'a>(_: &EvalCtx, direction: Direction<'a>) -> Result<Box<dyn Cell + 'a>> {
    let hidden = direction.sizes.hidden;
    Ok(Box::new(Rnn {
        recurrence: Product {
            weights: PackedF32::new_transposed(hidden, hidden, direction.recurrence),
        },
        bias: direction.recurrence_bias,
        f: direction.activations[0],
    }))
}

impl Cell for Rnn<'_> {
    fn step(&mut self, ctx: &EvalCtx, x: &[f32], now: &State, next: &mut State) {
        self.recurrence.run(ctx, &now.h, self.bias, &mut next.h);
        next.h.iter_mut().zip(x).for_each(|(h, x)| *h = self.f.apply(*h + x));
    }
}
