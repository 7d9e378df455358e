//! `GRU`, with the reset before or after the product (ONNX; gates in the order update, reset,
//! hidden).

use super::activation::Activation;
use super::layer::{self, Cell, Direction, Kind, Product, State};
use crate::eval::EvalCtx;
use fewbit_core::{Result, Tensor};
use fewbit_kernels::gemm::PackedF32;

const KIND: Kind = Kind { gates: 3, activations: &["sigmoid", "tanh"], has_cell: false, cell };

pub(super) fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    layer::eval(ctx, &KIND)
}

struct Gru<'a> {
    hidden: usize,
    /// Of the update and the reset gate.
    gate_recurrence: Product,
    hidden_recurrence: Product,
    gate_bias: &'a [f32],
    hidden_bias: &'a [f32],
    functions: [Activation; 2],
    linear_before_reset: bool,
    gates: Vec<f32>,
    reset: Vec<f32>,
    candidate: Vec<f32>,
}

fn cell<'a>(ctx: &EvalCtx, direction: Direction<'a>) -> Result<Box<dyn Cell + 'a>> {
    let (hidden, batch) = (direction.sizes.hidden, direction.sizes.batch);
    let (gates, last) = direction.recurrence.split_at(2 * hidden * hidden);
    let bias = direction.recurrence_bias;
    let (gate_bias, hidden_bias) = bias.split_at(bias.len() / 3 * 2);
    let product =
        |n: usize, r: &[f32]| Product { weights: PackedF32::new_transposed(hidden, n, r) };
    Ok(Box::new(Gru {
        hidden,
        gate_recurrence: product(2 * hidden, gates),
        hidden_recurrence: product(hidden, last),
        gate_bias,
        hidden_bias,
        functions: [0, 1].map(|index| direction.activations[index]),
        linear_before_reset: ctx.int("linear_before_reset", 0)? != 0,
        gates: vec![0.0; batch * 2 * hidden],
        reset: vec![0.0; batch * hidden],
        candidate: vec![0.0; batch * hidden],
    }))
}

impl Cell for Gru<'_> {
    fn step(&mut self, ctx: &EvalCtx, x: &[f32], now: &State, next: &mut State) {
        let (hidden, [f, g]) = (self.hidden, self.functions);
        let place = |at: usize| (at / hidden, at % hidden);
        self.gate_recurrence.run(ctx, &now.h, self.gate_bias, &mut self.gates);
        for (at, gate) in self.gates.iter_mut().enumerate() {
            let (batch, unit) = (at / (2 * hidden), at % (2 * hidden));
            *gate = f.apply(*gate + x[batch * 3 * hidden + unit]);
        }
        for (at, reset) in self.reset.iter_mut().enumerate() {
            let (batch, unit) = place(at);
            let gate = self.gates[(batch * 2 + 1) * hidden + unit];
            *reset = if self.linear_before_reset { gate } else { gate * now.h[at] };
        }
        let operand = if self.linear_before_reset { &now.h } else { &self.reset };
        self.hidden_recurrence.run(ctx, operand, self.hidden_bias, &mut self.candidate);
        for (at, &candidate) in self.candidate.iter().enumerate() {
            let (batch, unit) = place(at);
            let reset = if self.linear_before_reset { self.reset[at] } else { 1.0 };
            let candidate = g.apply(x[(batch * 3 + 2) * hidden + unit] + reset * candidate);
            let update = self.gates[batch * 2 * hidden + unit];
            next.h[at] = (1.0 - update) * candidate + update * now.h[at];
        }
    }
}
