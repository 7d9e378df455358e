//! One run of a layer: its inputs, the walk along the sequences, its outputs.

use super::operands::{InputWeights, Operands, Packed, WEIGHTS, Weights, values};
use super::spec::Spec;
use crate::eval::EvalCtx;
use crate::memory::Arena;
use crate::ops::params::size;
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::gemm::{Dequantize, Epilogue, Matrix, Output, gemm_f32, gemm_i8};
use fewbit_kernels::quantize::{Quantizer, dynamic_range, quantize};
use fewbit_kernels::recurrent::{CellKind, Direction, Layer};
use fewbit_kernels::{Ctx, Int8};

/// Evaluates a layer, in f32 whatever the float type of its inputs.
pub(super) fn eval(ctx: &mut EvalCtx) -> Result<Vec<Tensor>> {
    let spec = Spec::of(ctx.node)?;
    let [w, r, b, p, codes @ ..] = WEIGHTS.map(|index| ctx.inputs.get_mut(index)?.take());
    let needed = |tensor: Option<Tensor>, index| match tensor {
        Some(tensor) => float(tensor),
        None => ctx.input(index).cloned(),
    };
    let (w, r) = (needed(w, 1)?, needed(r, 2)?);
    let [b, p] = [b.map(float).transpose()?, p.map(float).transpose()?];
    let operands = Operands { w, r, b, p, codes };
    let given = Given {
        x: ctx.input(0)?,
        lengths: ctx.opt(4),
        h: ctx.opt(5),
        c: ctx.opt(6),
        kernels: ctx.kernels,
        arena: ctx.arena,
    };
    let threads = ctx.kernels.pool.threads();
    let weights = Weights::new(&spec, &operands, ctx.kernels.isa, threads)?;
    run(&spec, &weights, &given)
}

/// A float tensor in f32; others as they are.
pub(super) fn float(tensor: Tensor) -> Result<Tensor> {
    match tensor.dtype() {
        DType::F32 => Ok(tensor),
        dtype if dtype.is_float() => tensor.cast(DType::F32),
        _ => Ok(tensor),
    }
}

/// What a run is given besides the weights.
pub(super) struct Given<'a> {
    pub x: &'a Tensor,
    pub lengths: Option<&'a Tensor>,
    pub h: Option<&'a Tensor>,
    pub c: Option<&'a Tensor>,
    pub kernels: &'a Ctx<'a>,
    pub arena: &'a Arena,
}

/// The sizes of the inputs of a run.
#[derive(Clone, Copy)]
struct Sizes {
    steps: usize,
    batch: usize,
    input: usize,
}

impl Sizes {
    fn of(spec: &Spec, x: &Tensor) -> Result<Sizes> {
        let &[first, second, input] = x.shape() else {
            return Err(Error::bad_input(format!("X needs rank 3, found {:?}", x.shape())));
        };
        let (steps, batch) = if spec.batch_first { (second, first) } else { (first, second) };
        Ok(Sizes { steps, batch, input })
    }

    fn state_shape(&self, spec: &Spec, hidden: usize) -> Vec<usize> {
        match spec.batch_first {
            true => vec![self.batch, spec.directions(), hidden],
            false => vec![spec.directions(), self.batch, hidden],
        }
    }

    fn output_shape(&self, spec: &Spec, hidden: usize) -> Vec<usize> {
        match spec.batch_first {
            true => vec![self.batch, self.steps, spec.directions(), hidden],
            false => vec![self.steps, spec.directions(), self.batch, hidden],
        }
    }
}

/// Runs a layer with its weights.
pub(super) fn run(spec: &Spec, weights: &Weights, given: &Given) -> Result<Vec<Tensor>> {
    let (dtype, hidden) = (given.x.dtype(), weights.hidden);
    let sizes = Sizes::of(spec, given.x)?;
    if sizes.input != weights.input {
        return Err(Error::bad_input(format!(
            "X {:?} for weights of {} inputs",
            given.x.shape(),
            weights.input
        )));
    }
    // Allocated first: every buffer below is no larger than these, an input or a product.
    let shape = sizes.state_shape(spec, hidden);
    let mut y = given.arena.tensor(DType::F32, sizes.output_shape(spec, hidden))?;
    let is_lstm = matches!(spec.kind, CellKind::Lstm { .. });
    let mut last = Vec::new();
    for _ in 0..if is_lstm { 2 } else { 1 } {
        last.push(given.arena.tensor(DType::F32, shape.clone())?);
    }
    let (x, lengths) = (float(given.x.clone())?, lengths(given, sizes)?);
    let h = values(given.h, "initial_h", &shape)?;
    let c = values(given.c.filter(|_| is_lstm), "initial_c", &shape)?;
    let out = y.as_mut_slice::<f32>()?;
    if lengths.iter().any(|&length| length < sizes.steps) {
        out.fill(0.0);
    }
    let products = products(weights, given, &x.cow::<f32>()?)?;
    let states = States { spec, sizes, hidden };
    let mut directions = Vec::with_capacity(spec.directions());
    for (d, (packed, x)) in weights.directions.iter().zip(&products).enumerate() {
        directions.push(Direction {
            cell: &packed.cell,
            reverse: spec.reverse[d],
            x: x.as_slice()?,
            h: states.of(d, &h),
            c: if is_lstm { states.of(d, &c) } else { Vec::new() },
        });
    }
    let layer = Layer { lengths: &lengths, steps: sizes.steps, batch_first: spec.batch_first };
    let ends = layer.run(*given.kernels, directions, out);
    for (d, end) in ends.iter().enumerate() {
        for (last, end) in last.iter_mut().zip([&end.h, &end.c]) {
            states.put(d, end, last.as_mut_slice()?);
        }
    }
    drop(ends);
    products.into_iter().for_each(|products| given.arena.recycle(products));
    let outputs = std::iter::once(y).chain(last);
    match dtype {
        DType::F32 => Ok(outputs.collect()),
        dtype => outputs.map(|output| output.cast(dtype)).collect(),
    }
}

fn lengths(given: &Given, sizes: Sizes) -> Result<Vec<usize>> {
    let Some(lengths) = given.lengths else { return Ok(vec![sizes.steps; sizes.batch]) };
    let lengths = lengths.to_i64()?;
    let found: Vec<usize> =
        lengths.iter().map(|&n| size(n, "a sequence length")).collect::<Result<_>>()?;
    match found.len() == sizes.batch && found.iter().all(|&n| n <= sizes.steps) {
        true => Ok(found),
        false => Err(Error::bad_input(format!(
            "sequence_lens {lengths:?} for {} sequences of {} steps",
            sizes.batch, sizes.steps
        ))),
    }
}

/// How states lie in tensors.
struct States<'a> {
    spec: &'a Spec,
    sizes: Sizes,
    hidden: usize,
}

impl States<'_> {
    /// Where the state of a sequence begins.
    fn place(&self, direction: usize, sequence: usize) -> usize {
        let row = match self.spec.batch_first {
            true => sequence * self.spec.directions() + direction,
            false => direction * self.sizes.batch + sequence,
        };
        row * self.hidden
    }

    /// Those of a direction, `[batch, hidden]`; zeros where none are given.
    fn of(&self, direction: usize, given: &[f32]) -> Vec<f32> {
        let mut states = vec![0.0; self.sizes.batch * self.hidden];
        if !given.is_empty() {
            for (sequence, row) in states.chunks_exact_mut(self.hidden).enumerate() {
                let from = self.place(direction, sequence);
                row.copy_from_slice(&given[from..][..self.hidden]);
            }
        }
        states
    }

    /// Writes those of a direction to their places.
    fn put(&self, direction: usize, states: &[f32], out: &mut [f32]) {
        for (sequence, row) in states.chunks_exact(self.hidden).enumerate() {
            out[self.place(direction, sequence)..][..self.hidden].copy_from_slice(row);
        }
    }
}

/// The products of all inputs with W, bias included, for each direction: rows as those of X.
fn products(weights: &Weights, given: &Given, x: &[f32]) -> Result<Vec<Tensor>> {
    let rows: usize = given.x.shape().iter().take(2).product();
    let mut codes = None;
    let mut all = Vec::with_capacity(weights.directions.len());
    for packed in &weights.directions {
        let n = packed.cell.columns();
        let mut products = given.arena.tensor(DType::F32, vec![rows, n])?;
        let out = products.as_mut_slice::<f32>()?;
        match &packed.weights {
            _ if weights.input == 0 => {
                let bias = packed.bias.as_deref();
                out.chunks_exact_mut(n).for_each(|row| match bias {
                    Some(bias) => row.copy_from_slice(bias),
                    None => row.fill(0.0),
                });
            }
            InputWeights::Floats(weights) => {
                let epilogue = Epilogue { bias: packed.bias.as_deref(), ..Epilogue::default() };
                let a = Matrix { data: x, stride: weights.k() };
                gemm_f32(
                    *given.kernels,
                    rows,
                    a,
                    weights,
                    epilogue,
                    Matrix { data: out, stride: n },
                );
            }
            InputWeights::Codes(..) => {
                let codes = codes.get_or_insert_with(|| Codes::of(given.kernels, x));
                codes.multiply(given.kernels, packed, rows, out);
            }
        }
        all.push(products);
    }
    Ok(all)
}

/// Inputs, quantized with the range that they have.
struct Codes {
    values: Vec<u8>,
    scale: f32,
    zero_point: i32,
}

impl Codes {
    fn of(kernels: &Ctx, x: &[f32]) -> Codes {
        let affine = dynamic_range(kernels.isa, x);
        let mut values = vec![0u8; x.len()];
        quantize(*kernels, Quantizer::of::<u8>(affine), x, &mut values);
        Codes { values, scale: affine.scale, zero_point: affine.zero_point }
    }

    fn multiply(&self, kernels: &Ctx, packed: &Packed, rows: usize, out: &mut [f32]) {
        let InputWeights::Codes(weights, scales) = &packed.weights else { return };
        let scale: Vec<f32> = scales.iter().map(|scale| self.scale * scale).collect();
        let to = Dequantize { scale: &scale, bias: packed.bias.as_deref(), clamp: None };
        let a = Matrix { data: Int8::U8(&self.values), stride: weights.k() };
        let c = Matrix { data: Output::F32(out, to), stride: weights.n() };
        gemm_i8(*kernels, rows, a, self.zero_point, weights, c);
    }
}
