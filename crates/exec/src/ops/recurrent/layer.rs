//! What all recurrent layers share: their inputs, the walk along the sequences, their outputs.

use super::activation::{Activation, activations};
use crate::eval::EvalCtx;
use crate::ops::params::size;
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::gemm::{Epilogue, Matrix, PackedF32, gemm_f32};

/// The sizes of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub steps: usize,
    pub batch: usize,
    pub input: usize,
    pub hidden: usize,
    pub directions: usize,
    /// Gates of a cell.
    pub gates: usize,
    /// Whether the batch is the first axis of what goes in and out (attribute `layout`).
    batch_first: bool,
}

impl Sizes {
    /// Index of a row of `[directions, batch]` or, batch first, of `[batch, directions]`.
    fn state_row(&self, direction: usize, batch: usize) -> usize {
        match self.batch_first {
            true => batch * self.directions + direction,
            false => direction * self.batch + batch,
        }
    }

    fn input_row(&self, step: usize, batch: usize) -> usize {
        match self.batch_first {
            true => batch * self.steps + step,
            false => step * self.batch + batch,
        }
    }

    fn output_row(&self, step: usize, direction: usize, batch: usize) -> usize {
        match self.batch_first {
            true => (batch * self.steps + step) * self.directions + direction,
            false => (step * self.directions + direction) * self.batch + batch,
        }
    }

    fn state_shape(&self) -> Vec<usize> {
        match self.batch_first {
            true => vec![self.batch, self.directions, self.hidden],
            false => vec![self.directions, self.batch, self.hidden],
        }
    }

    fn output_shape(&self) -> Vec<usize> {
        match self.batch_first {
            true => vec![self.batch, self.steps, self.directions, self.hidden],
            false => vec![self.steps, self.directions, self.batch, self.hidden],
        }
    }
}

/// The states of all sequences of a batch: `[batch, hidden]` each.
#[derive(Clone, Default)]
pub(super) struct State {
    pub h: Vec<f32>,
    /// The cell state of an LSTM; empty for other layers.
    pub c: Vec<f32>,
}

/// What a direction of a layer computes in one step.
pub(super) trait Cell {
    /// `next` from `now` and `x`, the products of the inputs with W plus its bias:
    /// `[batch, gates * hidden]`.
    fn step(&mut self, ctx: &EvalCtx, x: &[f32], now: &State, next: &mut State);
}

/// The parameters of one direction.
pub(super) struct Direction<'a> {
    pub sizes: Sizes,
    /// `[gates * hidden, hidden]`.
    pub recurrence: &'a [f32],
    /// `[gates * hidden]`, or empty.
    pub recurrence_bias: &'a [f32],
    /// `[3 * hidden]`, or empty.
    pub peepholes: &'a [f32],
    pub activations: &'a [Activation],
}

/// A kind of layer.
pub(super) struct Kind {
    pub gates: usize,
    pub activations: &'static [&'static str],
    /// Whether there is a cell state: inputs 6 and 7, output 2.
    pub has_cell: bool,
    pub cell: for<'a> fn(&EvalCtx, Direction<'a>) -> Result<Box<dyn Cell + 'a>>,
}

/// Evaluates a layer, in f32 whatever the float type of its inputs.
pub(super) fn eval(ctx: &mut EvalCtx, kind: &Kind) -> Result<Vec<Tensor>> {
    let dtype = ctx.input(0)?.dtype();
    for input in ctx.inputs.iter_mut().flatten().filter(|input| input.dtype().is_float()) {
        *input = input.cast(DType::F32)?;
    }
    let outputs = layer(ctx, kind)?;
    outputs.into_iter().map(|output| output.cast(dtype)).collect()
}

fn sizes(ctx: &EvalCtx, kind: &Kind) -> Result<Sizes> {
    let (x, w, r) = (ctx.input(0)?.shape(), ctx.input(1)?.shape(), ctx.input(2)?.shape());
    let (&[first, second, input], &[directions, _, _], &[_, _, hidden]) = (x, w, r) else {
        return Err(Error::bad_input(format!("X, W and R need rank 3, found {x:?}, {w:?}, {r:?}")));
    };
    let batch_first = ctx.int("layout", 0)? != 0;
    let (steps, batch) = if batch_first { (second, first) } else { (first, second) };
    let rows = hidden.saturating_mul(kind.gates);
    let expected = if ctx.string("direction", "forward")? == "bidirectional" { 2 } else { 1 };
    let declared = ctx.node.int("hidden_size")?.map(|n| size(n, "hidden_size")).transpose()?;
    if hidden == 0
        || w != [expected, rows, input]
        || r != [expected, rows, hidden]
        || declared.is_some_and(|declared| declared != hidden)
    {
        return Err(Error::bad_input(format!(
            "X {x:?}, W {w:?} and R {r:?} do not fit together; for {expected} directions and \
             {hidden} hidden values W must be [{expected}, {rows}, {input}]"
        )));
    }
    Ok(Sizes { steps, batch, input, hidden, directions, gates: kind.gates, batch_first })
}

/// Values of an optional input of a known shape.
fn optional(ctx: &EvalCtx, index: usize, what: &str, shape: &[usize]) -> Result<Vec<f32>> {
    match ctx.opt(index) {
        None => Ok(Vec::new()),
        Some(tensor) if tensor.shape() == shape => tensor.to_f32(),
        Some(tensor) => Err(Error::bad_input(format!(
            "{what} has shape {:?}; {shape:?} is needed",
            tensor.shape()
        ))),
    }
}

fn lengths(ctx: &EvalCtx, sizes: Sizes) -> Result<Vec<usize>> {
    let Some(given) = ctx.opt(4) else { return Ok(vec![sizes.steps; sizes.batch]) };
    let given = given.to_i64()?;
    let lengths: Vec<usize> =
        given.iter().map(|&n| size(n, "a sequence length")).collect::<Result<_>>()?;
    match lengths.len() == sizes.batch && lengths.iter().all(|&n| n <= sizes.steps) {
        true => Ok(lengths),
        false => Err(Error::bad_input(format!(
            "sequence_lens {given:?} for {} sequences of {} steps",
            sizes.batch, sizes.steps
        ))),
    }
}

fn layer(ctx: &EvalCtx, kind: &Kind) -> Result<Vec<Tensor>> {
    let sizes = sizes(ctx, kind)?;
    let Sizes { hidden, directions, gates, .. } = sizes;
    // Allocated first: every buffer below is no larger than these or an input.
    let mut y = zeroed(ctx, sizes.output_shape())?;
    let mut last = [zeroed(ctx, sizes.state_shape())?, zeroed(ctx, sizes.state_shape())?];
    let bias = optional(ctx, 3, "B", &[directions, 2 * gates * hidden])?;
    let initial_h = optional(ctx, 5, "initial_h", &sizes.state_shape())?;
    let (initial_c, peepholes) = match kind.has_cell {
        true => (
            optional(ctx, 6, "initial_c", &sizes.state_shape())?,
            optional(ctx, 7, "P", &[directions, 3 * hidden])?,
        ),
        false => Default::default(),
    };
    let functions = activations(ctx.node, kind.activations, directions)?;
    let (lengths, r) = (lengths(ctx, sizes)?, ctx.input(2)?.cow::<f32>()?);
    let reverse = ctx.string("direction", "forward")? == "reverse";
    for d in 0..directions {
        let bias = part(&bias, d, directions);
        let (input_bias, recurrence_bias) = bias.split_at(bias.len() / 2);
        let x = input_products(ctx, sizes, d, input_bias)?;
        let cell = (kind.cell)(
            ctx,
            Direction {
                sizes,
                recurrence: part(&r, d, directions),
                recurrence_bias,
                peepholes: part(&peepholes, d, directions),
                activations: &functions[d * kind.activations.len()..][..kind.activations.len()],
            },
        )?;
        let start = State {
            h: initial(sizes, d, &initial_h),
            c: if kind.has_cell { initial(sizes, d, &initial_c) } else { Vec::new() },
        };
        let walk = Walk { sizes, lengths: &lengths, direction: d, reverse: reverse || d == 1 };
        let end = walk.run(ctx, cell, x.as_slice()?, start, y.as_mut_slice()?);
        for (out, state) in last.iter_mut().zip([&end.h, &end.c]) {
            keep(sizes, d, state, out.as_mut_slice()?);
        }
    }
    let [h, c] = last;
    Ok(if kind.has_cell { vec![y, h, c] } else { vec![y, h] })
}

fn zeroed(ctx: &EvalCtx, shape: Vec<usize>) -> Result<Tensor> {
    ctx.output(shape, |values: &mut [f32]| {
        values.fill(0.0);
        Ok(())
    })
}

fn part(values: &[f32], index: usize, parts: usize) -> &[f32] {
    let len = values.len() / parts;
    &values[index * len..][..len]
}

fn initial(sizes: Sizes, direction: usize, given: &[f32]) -> Vec<f32> {
    let mut state = vec![0.0; sizes.batch * sizes.hidden];
    if !given.is_empty() {
        for (batch, row) in state.chunks_exact_mut(sizes.hidden).enumerate() {
            let from = sizes.state_row(direction, batch) * sizes.hidden;
            row.copy_from_slice(&given[from..][..sizes.hidden]);
        }
    }
    state
}

fn keep(sizes: Sizes, direction: usize, state: &[f32], out: &mut [f32]) {
    if sizes.hidden == 0 {
        return;
    }
    for (batch, row) in state.chunks_exact(sizes.hidden).enumerate() {
        let to = sizes.state_row(direction, batch) * sizes.hidden;
        out[to..][..sizes.hidden].copy_from_slice(row);
    }
}

/// `X @ W^T + bias` for all steps at once.
fn input_products(ctx: &EvalCtx, sizes: Sizes, direction: usize, bias: &[f32]) -> Result<Tensor> {
    let (x, w) = (ctx.input(0)?.cow::<f32>()?, ctx.input(1)?.cow::<f32>()?);
    let n = sizes.gates * sizes.hidden;
    let mut out = zeroed(ctx, vec![sizes.steps, sizes.batch, n])?;
    let w = part(&w, direction, sizes.directions);
    let weights = PackedF32::new_transposed(sizes.input, n, w);
    Product { weights }.run(ctx, &x, bias, out.as_mut_slice()?);
    Ok(out)
}

/// A right operand, packed once.
pub(super) struct Product {
    pub weights: PackedF32,
}

impl Product {
    /// `a @ weights + bias`.
    pub fn run(&self, ctx: &EvalCtx, a: &[f32], bias: &[f32], out: &mut [f32]) {
        let (k, n) = (self.weights.k(), self.weights.n());
        if k == 0 || out.is_empty() {
            let rows = out.chunks_exact_mut(n.max(1)).filter(|_| !bias.is_empty());
            return rows.for_each(|row| row.copy_from_slice(bias));
        }
        let epilogue = Epilogue { bias: (!bias.is_empty()).then_some(bias), ..Epilogue::default() };
        let (a, out) = (Matrix { data: a, stride: k }, Matrix { data: out, stride: n });
        gemm_f32(*ctx.kernels, a.data.len() / k, a, &self.weights, epilogue, out);
    }
}

/// One direction along all sequences of the batch.
struct Walk<'a> {
    sizes: Sizes,
    lengths: &'a [usize],
    direction: usize,
    reverse: bool,
}

impl Walk<'_> {
    fn run<'c>(
        &self,
        ctx: &EvalCtx,
        mut cell: Box<dyn Cell + 'c>,
        products: &[f32],
        mut now: State,
        y: &mut [f32],
    ) -> State {
        let Sizes { hidden, batch, gates, .. } = self.sizes;
        let width = gates * hidden;
        let mut next = now.clone();
        let mut x = vec![0.0; batch * width];
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        for step in 0..if hidden == 0 { 0 } else { longest } {
            for (b, time) in self.active(step) {
                let row = self.sizes.input_row(time, b);
                x[b * width..][..width].copy_from_slice(&products[row * width..][..width]);
            }
            cell.step(ctx, &x, &now, &mut next);
            for (b, time) in self.active(step) {
                let at = b * hidden..(b + 1) * hidden;
                now.h[at.clone()].copy_from_slice(&next.h[at.clone()]);
                if !now.c.is_empty() {
                    now.c[at.clone()].copy_from_slice(&next.c[at.clone()]);
                }
                let row = self.sizes.output_row(time, self.direction, b);
                y[row * hidden..][..hidden].copy_from_slice(&now.h[at]);
            }
        }
        now
    }

    /// The sequences that have not ended, and their time at a step.
    fn active(&self, step: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let running = move |(b, &length): (usize, &usize)| {
            (step < length).then(|| (b, if self.reverse { length - 1 - step } else { step }))
        };
        self.lengths.iter().enumerate().filter_map(running)
    }
}
