//! The weights of a layer, checked and packed.

use super::spec::Spec;
use crate::plan::integer::finish::int8;
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_kernels::Isa;
use fewbit_kernels::gemm::{PackedF32, PackedI8, WeightZero};
use fewbit_kernels::recurrent::{Cell, CellKind, Recurrence};

/// Numbers of the inputs of a node that hold weights: W, R, B, P, then scale and zero point of W and
/// of R.
pub(super) const WEIGHTS: [usize; 8] = [1, 2, 3, 7, 8, 9, 10, 11];

/// The tensors of [`WEIGHTS`].
pub(super) struct Operands {
    pub w: Tensor,
    pub r: Tensor,
    pub b: Option<Tensor>,
    pub p: Option<Tensor>,
    /// Scale and zero point of codes: those of W, then those of R.
    pub codes: [Option<Tensor>; 4],
}

/// What the inputs are multiplied with.
pub(super) enum InputWeights {
    Floats(PackedF32),
    /// Codes, and the scales of their columns.
    Codes(PackedI8, Vec<f32>),
}

/// The weights of one direction.
pub(super) struct Packed {
    pub weights: InputWeights,
    pub bias: Option<Vec<f32>>,
    pub cell: Cell,
}

/// The weights of all directions.
pub(super) struct Weights {
    pub input: usize,
    pub hidden: usize,
    pub directions: Vec<Packed>,
}

impl Weights {
    /// Packs the operands of a layer that runs on so many threads.
    ///
    /// # Errors
    /// When they do not fit together.
    pub fn new(spec: &Spec, operands: &Operands, isa: Isa, threads: usize) -> Result<Weights> {
        let (input, hidden) = sizes(spec, operands)?;
        let (columns, count) = (spec.kind.gates() * hidden, spec.directions());
        let bias = values(operands.b.as_ref(), "B", &[count, 2 * columns])?;
        let is_lstm = matches!(spec.kind, CellKind::Lstm { .. });
        let peepholes = operands.p.as_ref().filter(|_| is_lstm);
        let peepholes = values(peepholes, "P", &[count, 3 * hidden])?;
        let [w, r] = match spec.quantized {
            true => [Matrices::of_codes(operands, 0)?, Matrices::of_codes(operands, 1)?],
            false => [&operands.w, &operands.r].map(Matrices::Floats),
        };
        let mut directions = Vec::with_capacity(count);
        for d in 0..count {
            let bias = part(&bias, d, count);
            let (of_inputs, of_states) = bias.split_at(bias.len() / 2);
            let threads = threads.div_ceil(count);
            let floats = r.floats()?;
            let recurrence = match &r {
                Matrices::Floats(_) => Recurrence::Floats(part(&floats, d, count)),
                Matrices::Codes { values, zeros, scales } => Recurrence::Codes {
                    values: int8(values, values.dtype())?
                        .range(d * columns * hidden, columns * hidden),
                    zeros: part(zeros, d, count),
                    scales: part(scales, d, count),
                },
            };
            let (kind, functions) = ((spec.kind, hidden), spec.functions_of(d));
            let rest = (of_states, part(&peepholes, d, count));
            directions.push(Packed {
                weights: w.pack(isa, d, count, (input, columns))?,
                bias: (!of_inputs.is_empty()).then(|| of_inputs.to_vec()),
                cell: Cell::new(isa, threads, kind, recurrence, rest, functions),
            });
        }
        operands.w.release();
        operands.r.release();
        Ok(Weights { input, hidden, directions })
    }
}

/// Weights of all directions, as they lie in the model.
enum Matrices<'a> {
    /// `[directions, columns, k]`.
    Floats(&'a Tensor),
    /// `[directions, k, columns]`, with a zero point and a scale for each column.
    Codes { values: &'a Tensor, zeros: Vec<i32>, scales: Vec<f32> },
}

impl<'a> Matrices<'a> {
    /// Those of W (0) or R (1).
    fn of_codes(operands: &'a Operands, index: usize) -> Result<Self> {
        let (values, name) = match index {
            0 => (&operands.w, "W"),
            _ => (&operands.r, "R"),
        };
        if !matches!(values.dtype(), DType::U8 | DType::I8) {
            let found = values.dtype();
            return Err(Error::bad_input(format!("{name} of type {found}; u8 or i8 is needed")));
        }
        let missing = || Error::bad_input(format!("{name} has no scale")).code("FB-3201");
        let scales = operands.codes[2 * index].as_ref().ok_or_else(missing)?;
        let scales = each_column(values, scales.shape(), scales.to_f32()?)?;
        let zeros = match &operands.codes[2 * index + 1] {
            None => vec![0; scales.len()],
            Some(zeros) if zeros.dtype() == values.dtype() => {
                each_column(values, zeros.shape(), zeros.to_i64()?)?
            }
            Some(zeros) => {
                let (found, needed) = (zeros.dtype(), values.dtype());
                let what = format!("zero points of type {found} for codes of type {needed}");
                return Err(Error::bad_input(what));
            }
        };
        let zeros = zeros.into_iter().map(|zero| zero as i32).collect();
        Ok(Matrices::Codes { values, zeros, scales })
    }

    fn floats(&self) -> Result<std::borrow::Cow<'_, [f32]>> {
        match self {
            Matrices::Floats(tensor) => tensor.cow::<f32>(),
            Matrices::Codes { .. } => Ok(Default::default()),
        }
    }

    /// Packs the matrix of direction `d` of `count`, with `k` rows and `n` columns.
    fn pack(
        &self,
        isa: Isa,
        d: usize,
        count: usize,
        (k, n): (usize, usize),
    ) -> Result<InputWeights> {
        Ok(match self {
            Matrices::Floats(_) => {
                let values = self.floats()?;
                InputWeights::Floats(PackedF32::new_transposed(k, n, part(&values, d, count)))
            }
            Matrices::Codes { values, zeros, scales } => {
                let codes = int8(values, values.dtype())?.range(d * k * n, k * n);
                let zero = WeightZero::Column(part(zeros, d, count));
                let packed = PackedI8::new(isa, k, n, codes, zero);
                InputWeights::Codes(packed, part(scales, d, count).to_vec())
            }
        })
    }
}

/// Scales or zero points, one for each direction or for each column of each, as one for each column.
fn each_column<T: Copy>(codes: &Tensor, shape: &[usize], values: Vec<T>) -> Result<Vec<T>> {
    let &[directions, _, columns] = codes.shape() else {
        return Err(Error::bad_input(format!("weights of shape {:?}", codes.shape())));
    };
    if shape == [directions, columns] {
        return Ok(values);
    }
    if shape != [directions] {
        return Err(Error::bad_input(format!(
            "scales or zero points of shape {shape:?}; [{directions}] or [{directions}, {columns}] is \
             needed"
        )));
    }
    Ok(values.into_iter().flat_map(|value| std::iter::repeat_n(value, columns)).collect())
}

/// Sizes of inputs and states.
fn sizes(spec: &Spec, operands: &Operands) -> Result<(usize, usize)> {
    let (w, r) = (operands.w.shape(), operands.r.shape());
    let (&[_, w_first, w_last], &[_, r_first, r_last]) = (w, r) else {
        return Err(Error::bad_input(format!("W and R need rank 3, found {w:?}, {r:?}")));
    };
    // Codes lie transposed.
    let (input, hidden, turned) = match spec.quantized {
        true => (w_first, r_first, [[w_last, w_first], [r_last, r_first]]),
        false => (w_last, r_last, [[w_first, w_last], [r_first, r_last]]),
    };
    let (count, rows) = (spec.directions(), hidden.saturating_mul(spec.kind.gates()));
    let fits = w[0] == count && r[0] == count && turned == [[rows, input], [rows, hidden]];
    if hidden == 0 || !fits || spec.hidden.is_some_and(|declared| declared != hidden) {
        let needed = if spec.quantized { [input, rows] } else { [rows, input] };
        return Err(Error::bad_input(format!(
            "W {w:?} and R {r:?} do not fit together; for {count} directions and {hidden} hidden \
             values W must be [{count}, {}, {}]",
            needed[0], needed[1]
        )));
    }
    Ok((input, hidden))
}

/// Values of an optional input of a known shape.
pub(super) fn values(tensor: Option<&Tensor>, what: &str, shape: &[usize]) -> Result<Vec<f32>> {
    match tensor {
        None => Ok(Vec::new()),
        Some(tensor) if tensor.shape() == shape => tensor.to_f32(),
        Some(tensor) => Err(Error::bad_input(format!(
            "{what} has shape {:?}; {shape:?} is needed",
            tensor.shape()
        ))),
    }
}

fn part<T>(values: &[T], index: usize, parts: usize) -> &[T] {
    let len = values.len() / parts;
    &values[index * len..][..len]
}
