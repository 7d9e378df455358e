//! `LSTM`, with peepholes and coupled gates (ONNX; gates in the order input, output, forget, cell).

use super::activation::Activation;
use super::layer::{self, Cell, Direction, Kind, Product, State};
use crate::eval::EvalCtx;
use fewbit_core::{Result, Tensor};
use fewbit_kernels::gemm::PackedF32;

const KIND: Kind =
    Kind { gates: 4, activations: &["sigmoid", "tanh", "tanh"], has_cell: true, cell };

pub(super) fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    layer::eval(ctx, &KIND)
}

struct Lstm<'a> {
    hidden: usize,
    recurrence: Product,
    bias: &'a [f32],
    /// For the input, output and forget gate.
    peepholes: [&'a [f32]; 3],
    functions: [Activation; 3],
    /// Whether the forget gate is one minus the input gate.
    coupled: bool,
    gates: Vec<f32>,
}

fn cell<'a>(ctx: &EvalCtx, direction: Direction<'a>) -> Result<Box<dyn Cell + 'a>> {
    let hidden = direction.sizes.hidden;
    let peephole = |gate: usize| direction.peepholes.get(gate * hidden..(gate + 1) * hidden);
    Ok(Box::new(Lstm {
        hidden,
        recurrence: Product {
            weights: PackedF32::new_transposed(hidden, 4 * hidden, direction.recurrence),
        },
        bias: direction.recurrence_bias,
        peepholes: [0, 1, 2].map(|gate| peephole(gate).unwrap_or_default()),
        functions: [0, 1, 2].map(|index| direction.activations[index]),
        coupled: ctx.int("input_forget", 0)? != 0,
        gates: vec![0.0; direction.sizes.batch * 4 * hidden],
    }))
}

impl Cell for Lstm<'_> {
    fn step(&mut self, ctx: &EvalCtx, x: &[f32], now: &State, next: &mut State) {
        self.recurrence.run(ctx, &now.h, self.bias, &mut self.gates);
        self.gates.iter_mut().zip(x).for_each(|(gate, x)| *gate += x);
        for at in 0..now.h.len() {
            let (batch, unit) = (at / self.hidden, at % self.hidden);
            let gate = |index: usize| self.gates[(batch * 4 + index) * self.hidden + unit];
            let peek = |index: usize| self.peepholes[index].get(unit).copied().unwrap_or(0.0);
            let ([f, g, h], c) = (self.functions, now.c[at]);
            let input = f.apply(gate(0) + peek(0) * c);
            let forget = match self.coupled {
                true => 1.0 - input,
                false => f.apply(gate(2) + peek(2) * c),
            };
            let c = forget * c + input * g.apply(gate(3));
            let output = f.apply(gate(1) + peek(1) * c);
            next.c[at] = c;
            next.h[at] = output * h.apply(c);
        }
    }
}
