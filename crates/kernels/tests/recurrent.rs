//! Recurrent layers against their definition, for every instruction set that this CPU has and for
//! 1, 2 and 3 threads, to the bit.

use fewbit_kernels::elementwise::Unary;
use fewbit_kernels::quantize::{Quantizer, dynamic_range};
use fewbit_kernels::recurrent::{Cell, CellKind, Direction, Function, Layer, Recurrence};
use fewbit_kernels::{Ctx, Int8, Isa, Pool};

const KINDS: [CellKind; 5] = [
    CellKind::Rnn,
    CellKind::Gru { linear_before_reset: false },
    CellKind::Gru { linear_before_reset: true },
    CellKind::Lstm { coupled: false },
    CellKind::Lstm { coupled: true },
];

/// Numbers between -1 and 1, by a fixed rule.
fn numbers(len: usize, seed: usize) -> Vec<f32> {
    let mut state = seed as u64 + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Everything that a run is given.
struct Case {
    kind: CellKind,
    hidden: usize,
    lengths: Vec<usize>,
    /// Whether directions go backwards.
    reverse: Vec<bool>,
    has_bias: bool,
    has_peepholes: bool,
    quantized: bool,
    functions: Vec<Function>,
}

impl Case {
    fn columns(&self) -> usize {
        self.kind.gates() * self.hidden
    }

    fn steps(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or(0)
    }

    fn is_lstm(&self) -> bool {
        matches!(self.kind, CellKind::Lstm { .. })
    }

    fn data(&self, direction: usize) -> Data {
        let (hidden, columns, rows) = (self.hidden, self.columns(), self.lengths.len());
        let seed = 10 * direction;
        let small = |len, seed| numbers(len, seed).into_iter().map(|v| v / 4.0).collect();
        let codes: Vec<i8> =
            numbers(columns * hidden, seed).iter().map(|v| (v * 127.0) as i8).collect();
        Data {
            weights: small(columns * hidden, seed),
            codes,
            scales: numbers(columns, seed + 1).iter().map(|v| 0.003 + v.abs() / 500.0).collect(),
            zeros: (0..columns)
                .map(|c| if self.hidden.is_multiple_of(2) { 0 } else { c as i32 % 5 })
                .collect(),
            bias: if self.has_bias { numbers(columns, seed + 2) } else { Vec::new() },
            peepholes: if self.has_peepholes { numbers(3 * hidden, seed + 3) } else { Vec::new() },
            x: numbers(self.steps() * rows * columns, seed + 4),
            h: numbers(rows * hidden, seed + 5),
            c: if self.is_lstm() { numbers(rows * hidden, seed + 6) } else { Vec::new() },
        }
    }
}

/// The numbers of a direction.
struct Data {
    /// `[columns, hidden]`.
    weights: Vec<f32>,
    /// `[hidden, columns]`.
    codes: Vec<i8>,
    scales: Vec<f32>,
    zeros: Vec<i32>,
    bias: Vec<f32>,
    peepholes: Vec<f32>,
    x: Vec<f32>,
    h: Vec<f32>,
    c: Vec<f32>,
}

/// Outputs, then the last states of each direction; as bits.
fn run(case: &Case, ctx: Ctx<'_>, threads: usize) -> Vec<u32> {
    let (rows, count) = (case.lengths.len(), case.reverse.len());
    let data: Vec<Data> = (0..count).map(|d| case.data(d)).collect();
    let cell = |data: &Data| {
        let weights = match case.quantized {
            false => Recurrence::Floats(&data.weights),
            true => Recurrence::Codes {
                values: Int8::I8(&data.codes),
                zeros: &data.zeros,
                scales: &data.scales,
            },
        };
        let rest = (data.bias.as_slice(), data.peepholes.as_slice());
        Cell::new(ctx.isa, threads, (case.kind, case.hidden), weights, rest, &case.functions)
    };
    let cells: Vec<Cell> = data.iter().map(cell).collect();
    let directions = data.iter().zip(&cells).zip(&case.reverse).map(|((data, cell), &reverse)| {
        Direction { cell, reverse, x: &data.x, h: data.h.clone(), c: data.c.clone() }
    });
    let layer = Layer { lengths: &case.lengths, steps: case.steps(), batch_first: false };
    let mut y = vec![0.0; case.steps() * count * rows * case.hidden];
    let ends = layer.run(ctx, directions.collect(), &mut y);
    let states = ends.iter().flat_map(|end| end.h.iter().chain(&end.c));
    y.iter().chain(states).map(|v| v.to_bits()).collect()
}

/// Sums of states times weights, with the bias.
fn product(case: &Case, data: &Data, states: &[f32], all: &[f32], column: usize) -> f32 {
    let bias = data.bias.get(column).copied().unwrap_or(0.0);
    if !case.quantized {
        let row = &data.weights[column * case.hidden..][..case.hidden];
        let sum = states.iter().zip(row).fold(0.0f32, |sum, (h, w)| h.mul_add(*w, sum));
        return sum + bias;
    }
    let affine = dynamic_range(Isa::scalar(), all);
    let quantizer = Quantizer::of::<u8>(affine);
    let code = |h: f32| quantizer.code(h) - affine.zero_point;
    let weight = |k: usize| i32::from(data.codes[k * case.columns() + column]) - data.zeros[column];
    let sum: i32 = states.iter().enumerate().map(|(k, &h)| code(h) * weight(k)).sum();
    sum as f32 * (affine.scale * data.scales[column]) + bias
}

/// The definition of [`run`].
fn define(case: &Case) -> Vec<u32> {
    let (rows, count, hidden) = (case.lengths.len(), case.reverse.len(), case.hidden);
    let apply = |index: usize, v: f32| {
        let Function { of, clip } = case.functions[index];
        of.apply(if clip < f32::INFINITY { v.clamp(-clip, clip) } else { v })
    };
    let mut y = vec![0.0; case.steps() * count * rows * hidden];
    let mut ends = Vec::new();
    for (d, &reverse) in case.reverse.iter().enumerate() {
        let data = case.data(d);
        let (mut h, mut c) = (data.h.clone(), data.c.clone());
        for step in 0..case.steps() {
            // A sequence that has ended does not count where states are quantized.
            let mut before = h.clone();
            for (before, &length) in before.chunks_exact_mut(hidden).zip(&case.lengths) {
                if step > length {
                    before.fill(0.0);
                }
            }
            let row = |states: &[f32], b: usize| states[b * hidden..][..hidden].to_vec();
            let time = |length: usize| if reverse { length - 1 - step } else { step };
            let sum = |states: &[f32], b: usize, gate: usize, unit: usize| {
                product(case, &data, &row(states, b), states, gate * hidden + unit)
            };
            let input = |b: usize, gate: usize, unit: usize| {
                let at = time(case.lengths[b]) * rows + b;
                data.x[at * case.columns() + gate * hidden + unit]
            };
            let gate =
                |states: &[f32], b, gate, unit| sum(states, b, gate, unit) + input(b, gate, unit);
            // What the second product of a GRU reads.
            let mut gated = before.clone();
            for (gated, &length) in gated.chunks_exact_mut(hidden).zip(&case.lengths) {
                if step >= length {
                    gated.fill(0.0);
                }
            }
            for (b, &length) in case.lengths.iter().enumerate() {
                for unit in (0..hidden).filter(|_| step < length) {
                    if matches!(case.kind, CellKind::Gru { linear_before_reset: false }) {
                        gated[b * hidden + unit] *= apply(0, gate(&before, b, 1, unit));
                    }
                }
            }
            for (b, &length) in case.lengths.iter().enumerate() {
                for unit in (0..hidden).filter(|_| step < length) {
                    let at = b * hidden + unit;
                    let gate = |index| gate(&before, b, index, unit);
                    let peek = |index: usize, c: f32| {
                        data.peepholes.get(index * hidden + unit).map(|p| p * c)
                    };
                    let seen = |v: f32, peek: Option<f32>| peek.map_or(v, |peek| v + peek);
                    h[at] = match case.kind {
                        CellKind::Rnn => apply(0, gate(0)),
                        CellKind::Gru { linear_before_reset } => {
                            let update = apply(0, gate(0));
                            let inner = match linear_before_reset {
                                true => sum(&before, b, 2, unit) * apply(0, gate(1)),
                                false => sum(&gated, b, 2, unit),
                            };
                            let candidate = apply(1, inner + input(b, 2, unit));
                            (1.0 - update) * candidate + update * before[at]
                        }
                        CellKind::Lstm { coupled } => {
                            let input = apply(0, seen(gate(0), peek(0, c[at])));
                            let forget = match coupled {
                                true => 1.0 - input,
                                false => apply(0, seen(gate(2), peek(2, c[at]))),
                            };
                            c[at] = forget * c[at] + input * apply(1, gate(3));
                            apply(2, c[at]) * apply(0, seen(gate(1), peek(1, c[at])))
                        }
                    };
                    y[((time(length) * count + d) * rows + b) * hidden + unit] = h[at];
                }
            }
        }
        ends.extend(h.into_iter().chain(c));
    }
    y.into_iter().chain(ends).map(f32::to_bits).collect()
}

#[test]
fn layers_follow_the_definition() {
    let plain = |of| Function { of, clip: f32::INFINITY };
    let usual = [Unary::Sigmoid, Unary::Tanh, Unary::Tanh].map(plain);
    let others = [
        Function { of: Unary::HardSigmoid { alpha: 0.2, beta: 0.5 }, clip: 0.75 },
        plain(Unary::Affine { alpha: 0.5, beta: 0.25 }),
        Function { of: Unary::ScaledTanh { alpha: 1.5, beta: 0.5 }, clip: 1.5 },
    ];
    let pools = [1, 2, 3].map(Pool::new);
    let lengths = [vec![3], vec![2, 4], vec![3, 0, 2, 3, 1], vec![5; 8]];
    for (number, (kind, lengths)) in KINDS
        .iter()
        .flat_map(|kind| lengths.iter().map(move |lengths| (*kind, lengths)))
        .enumerate()
    {
        for (hidden, quantized) in [(5, false), (72, false), (160, false), (9, true), (128, true)] {
            let functions = if number % 2 == 0 { usual } else { others };
            let case = Case {
                kind,
                hidden,
                lengths: lengths.clone(),
                reverse: [vec![false], vec![true], vec![false, true]][number % 3].clone(),
                has_bias: hidden != 72,
                has_peepholes: number % 2 == 1 && matches!(kind, CellKind::Lstm { .. }),
                quantized,
                functions: functions[..kind.functions()].to_vec(),
            };
            let expected = define(&case);
            for (pool, isa) in
                pools.iter().flat_map(|p| Isa::available().into_iter().map(move |i| (p, i)))
            {
                let threads = pool.threads();
                let what = format!("{kind:?} {hidden} {lengths:?} {isa} {threads} {quantized}");
                // Parts for more threads than there are.
                for parts in [threads, 3] {
                    assert!(
                        run(&case, Ctx { isa, pool }, parts) == expected,
                        "{what}, {parts} parts"
                    );
                }
            }
        }
    }
}

#[test]
fn long_layers_are_the_same_on_all_threads() {
    let functions = [Unary::Sigmoid, Unary::Tanh, Unary::Tanh];
    let functions = functions.map(|of| Function { of, clip: f32::INFINITY });
    for kind in KINDS {
        let case = Case {
            kind,
            hidden: 200,
            lengths: vec![40],
            reverse: vec![true, false],
            has_bias: true,
            has_peepholes: false,
            quantized: false,
            functions: functions[..kind.functions()].to_vec(),
        };
        let isa = Isa::best();
        let expected = run(&case, Ctx { isa, pool: &Pool::single() }, 1);
        for threads in [2, 3, 4] {
            let pool = Pool::new(threads);
            for parts in [1, 2, 3] {
                let found = run(&case, Ctx { isa, pool: &pool }, parts);
                assert!(found == expected, "{kind:?}, {threads} threads, {parts} parts");
            }
        }
    }
}
