//! Calibrated rounding of the matrices of a folder, layer by layer: each layer sees what the
//! quantized layers before it make of the text.

use super::matrix::Matrix;
use super::{Fate, Plan, stream};
use crate::gguf::{Rounding, TextCalibration, isa};
use fewbit_core::{Error, Result, ResultExt, Tensor};
use fewbit_exec::{Mode, SessionOptions};
use fewbit_kernels::encode::Loss;
use fewbit_kernels::{Ctx, Pool};
use fewbit_llm::walk::{Replaced, Walk};
use fewbit_llm::{LanguageModel, Weight};
use fewbit_quant::Progress;
use fewbit_quant::algo::factor::Factor;
use fewbit_quant::algo::gptq::{Steps, round};
use fewbit_quant::algo::grid::Quantized;
use fewbit_quant::algo::hessian::Hessian;
use std::collections::{BTreeMap, HashMap};

/// Share of the mean diagonal that is added to the moments.
const DAMPING: f64 = 0.01;

/// Elements that are rounded at once.
const ELEMENTS: usize = 1 << 24;

/// The tensors that matrices became, by the place of the matrix in the list, with the loss.
pub(super) type Calibrated = HashMap<usize, (Vec<Vec<u8>>, Loss)>;

/// All matrices of the layers.
///
/// # Errors
/// When the text is none or too short, the model is no decoder, or a run fails.
pub(super) fn run(
    plan: &Plan,
    model: &LanguageModel,
    text: &TextCalibration,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Calibrated> {
    let windows = text.windows(model)?;
    let walk = Walk::new(model, &SessionOptions::new(Mode::Float).threads(threads))?;
    let job = Job { plan, walk, rounding: text.rounding };
    let mut states = job.walk.start(&windows)?;
    let mut found = Calibrated::new();
    progress.start("calibrate", job.walk.layers());
    for layer in 0..job.walk.layers() {
        let mut weights = Replaced { weights: job.walk.weights(), with: BTreeMap::new() };
        for group in job.walk.matrices(layer)? {
            job.group(layer, &group, &mut weights, &states, &mut found)
                .at(|| format!("layer {layer}"))?;
        }
        if layer + 1 < job.walk.layers() {
            let run = job.walk.layer(layer, &weights, &[])?;
            let next = states.into_iter().map(|state| run.run(&state, &mut |_, _, _| Ok(())));
            states = next.collect::<Result<_>>()?;
        }
        progress.step();
    }
    progress.finish();
    Ok(found)
}

struct Job<'a> {
    plan: &'a Plan,
    walk: Walk<'a>,
    rounding: Rounding,
}

impl Job<'_> {
    /// Rounds matrices that share their inputs; `weights` then holds what they became.
    fn group(
        &self,
        layer: usize,
        names: &[String],
        weights: &mut Replaced<'_>,
        states: &[Tensor],
        found: &mut Calibrated,
    ) -> Result<()> {
        let matrices: Vec<(&String, usize, &Matrix)> = names
            .iter()
            .filter_map(|name| self.find(name).map(|(index, matrix)| (name, index, matrix)))
            .collect();
        let Some(&(first, _, matrix)) = matrices.first() else { return Ok(()) };
        let mut hessian = Hessian::new(matrix.columns)?;
        let run = self.walk.layer(layer, weights, std::slice::from_ref(first))?;
        for state in states {
            run.run(state, &mut |_, ctx, x| {
                hessian.add(ctx, x);
                Ok(())
            })?;
        }
        hessian.finish();
        let squares = hessian.diagonal();
        let factor = Factor::new(&hessian, DAMPING, self.walk.pool())?;
        drop(hessian);
        for (name, index, matrix) in matrices {
            let rounded = self.round(index, matrix, &squares, &factor);
            let rounded = rounded.at(|| format!("tensor {name:?}"))?;
            weights.with.insert(name.clone(), decoded(matrix, &rounded)?);
            found.insert(index, (matrix.bytes(&rounded)?, rounded.loss));
        }
        Ok(())
    }

    /// The matrix that GGUF calls `name`, with its place in the list.
    fn find(&self, name: &str) -> Option<(usize, &Matrix)> {
        let linear = &self.plan.form.linear;
        let list = self.plan.form.pieces.list().iter().zip(&self.plan.fates).enumerate();
        list.into_iter().find_map(|(index, (piece, fate))| match fate {
            Fate::Quantized(matrix) if linear.get(&piece.info.name).is_some_and(|n| n == name) => {
                Some((index, matrix))
            }
            _ => None,
        })
    }

    fn round(
        &self,
        index: usize,
        matrix: &Matrix,
        squares: &[f32],
        factor: &Factor,
    ) -> Result<Quantized> {
        let importance = super::positive(squares.to_vec());
        let step = (ELEMENTS / matrix.columns.max(1)).max(1);
        let mut all = Quantized::default();
        for first in (0..matrix.rows).step_by(step) {
            let rows = step.min(matrix.rows - first);
            let numbers = stream::rows(&self.plan.form.pieces, index, first, rows)?;
            let pool = self.walk.pool();
            let mut part = nearest(matrix, &numbers, &importance, pool)?;
            if let (Rounding::Calibrated, Some(levels)) = (self.rounding, matrix.grid.levels()) {
                let group = matrix.grid.group;
                let steps = Steps { group, scales: part.scales.clone(), minima: Vec::new() };
                let rounded = round(Ctx { isa: isa(), pool }, &numbers, factor, levels, &steps);
                let codes = rounded.codes.iter().map(|&code| levels.value(code) as i8 as u8);
                (part.codes, part.loss) = (codes.collect(), rounded.loss);
            }
            all.codes.extend(part.codes);
            all.scales.extend(part.scales);
            all.loss = all.loss.merge(part.loss);
        }
        Ok(all)
    }
}

/// Rows on the grid, on all threads.
fn nearest(matrix: &Matrix, numbers: &[f32], importance: &[f32], pool: &Pool) -> Result<Quantized> {
    let columns = matrix.columns.max(1);
    let mut rows: Vec<(&[f32], Result<Quantized>)> =
        numbers.chunks(columns).map(|row| (row, Ok(Quantized::default()))).collect();
    pool.for_each_chunk(&mut rows, 8, |_, rows| {
        for (row, out) in rows {
            *out = matrix.grid.quantize(row, columns, Some(importance));
        }
    });
    let mut all = Quantized::default();
    for (_, row) in rows {
        let row = row?;
        all.codes.extend(row.codes);
        all.scales.extend(row.scales);
        all.loss = all.loss.merge(row.loss);
    }
    Ok(all)
}

/// The numbers that the codes stand for.
fn decoded(matrix: &Matrix, quantized: &Quantized) -> Result<Weight> {
    let group = matrix.grid.group.max(1);
    let mut values = Vec::new();
    values
        .try_reserve_exact(quantized.codes.len())
        .map_err(|_| Error::resource("too little memory for a matrix").code("FB-5201"))?;
    let number = |(i, &code): (usize, &u8)| matrix.grid.number(code) * quantized.scales[i / group];
    values.extend(quantized.codes.iter().enumerate().map(number));
    Ok(Weight::plain(Tensor::from_slice(vec![matrix.rows, matrix.columns], &values)?))
}
