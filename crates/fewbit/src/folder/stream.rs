//! Tensors through the threads and into the files of a folder, one after the other.

use super::calibrated::Calibrated;
use super::matrix::Matrix;
use super::{Fate, Plan};
use crate::gguf::{isa, lanes};
use fewbit_core::codec::block::BlockType;
use fewbit_core::{Error, Result, ResultExt};
use fewbit_formats::gguf::TensorInfo;
use fewbit_formats::safetensors::{FolderWriter, TensorSpec};
use fewbit_kernels::Pool;
use fewbit_kernels::encode::Loss;
use fewbit_llm::export::Pieces;
use fewbit_quant::Progress;
use fewbit_quant::algo::blocks::{RowEncoder, decode};
use fewbit_quant::algo::grid::Quantized;

/// Elements that one task reads and quantizes.
const ELEMENTS: usize = 1 << 16;

/// Tasks of each thread before the results are handed on.
const PER_THREAD: usize = 8;

/// Rows of a matrix that predict its loss.
const SAMPLED_ROWS: usize = 32;

/// Some rows of a tensor, and what became of them.
#[derive(Default)]
struct Part {
    first: usize,
    rows: usize,
    bytes: Vec<u8>,
    quantized: Quantized,
    error: Option<Error>,
}

/// Writes all tensors; the relative loss of each, where there is one.
///
/// # Errors
/// When one cannot be read or quantized, or writing fails.
pub(super) fn write(
    plan: &Plan,
    specs: &[Vec<TensorSpec>],
    mut writer: FolderWriter,
    calibrated: &Calibrated,
    pool: &Pool,
    progress: &dyn Progress,
) -> Result<(FolderWriter, Vec<Option<f64>>)> {
    let pieces = &plan.form.pieces;
    let mut losses = Vec::with_capacity(plan.fates.len());
    progress.start("quantize", plan.fates.len());
    for (index, fate) in plan.fates.iter().enumerate() {
        progress.step();
        let info = &pieces.list()[index].info;
        let names = &specs[index];
        let loss = match fate {
            Fate::Plain(to) => {
                let mut sink = |part: &Part| writer.write(&names[0].name, &part.bytes);
                plain(pieces, index, *to, pool, &mut sink)
            }
            Fate::Quantized(_) if calibrated.contains_key(&index) => {
                let (tensors, loss) = &calibrated[&index];
                for (spec, bytes) in names.iter().zip(tensors) {
                    writer.write(&spec.name, bytes)?;
                }
                Ok(Some(*loss))
            }
            Fate::Quantized(matrix) => matrix_of(plan, index, matrix, pool).and_then(|found| {
                for (spec, bytes) in names.iter().zip(matrix.bytes(&found)?) {
                    writer.write(&spec.name, &bytes)?;
                }
                Ok(Some(found.loss))
            }),
        };
        let loss = loss.at(|| format!("tensor {:?}", info.name))?;
        losses.push(loss.map(|loss| loss.relative()));
    }
    progress.finish();
    Ok((writer, losses))
}

/// Calls `work` for all rows of a tensor, in parts and on all threads, and `sink` in order.
fn each_part(
    info: &TensorInfo,
    pool: &Pool,
    work: &(dyn Fn(&mut Part) -> Result<()> + Sync),
    sink: &mut dyn FnMut(&Part) -> Result<()>,
) -> Result<()> {
    if info.row_elements() == 0 {
        return Ok(());
    }
    let step = (ELEMENTS / info.row_elements()).max(1);
    let starts: Vec<usize> = (0..info.rows()).step_by(step).collect();
    let mut parts: Vec<Part> = (0..lanes(pool) * PER_THREAD).map(|_| Part::default()).collect();
    for batch in starts.chunks(parts.len().max(1)) {
        for (part, &first) in parts.iter_mut().zip(batch) {
            (part.first, part.rows) = (first, step.min(info.rows() - first));
        }
        pool.for_each_chunk(&mut parts[..batch.len()], 1, |_, parts| {
            parts.iter_mut().for_each(|part| part.error = work(part).err());
        });
        for part in &mut parts[..batch.len()] {
            if let Some(error) = part.error.take() {
                return Err(error);
            }
            sink(part)?;
        }
    }
    Ok(())
}

fn plain(
    pieces: &Pieces,
    index: usize,
    to: Option<BlockType>,
    pool: &Pool,
    sink: &mut dyn FnMut(&Part) -> Result<()>,
) -> Result<Option<Loss>> {
    let info = &pieces.list()[index].info;
    let Some(to) = to else {
        let width = info.ty.row_bytes(info.row_elements())?;
        let copy = |part: &mut Part| {
            part.bytes.resize(part.rows * width, 0);
            pieces.read(index, part.first, &mut part.bytes)
        };
        each_part(info, pool, &copy, sink)?;
        return Ok(None);
    };
    let encoder = RowEncoder::new(to, info.row_elements(), None)?;
    let encode = |part: &mut Part| {
        let numbers = numbers(pieces, index, part)?;
        part.bytes.resize(part.rows * encoder.row_bytes(), 0);
        part.quantized.loss = encoder.encode(isa(), &numbers, &mut part.bytes)?;
        Ok(())
    };
    let mut total = Loss::default();
    each_part(info, pool, &encode, &mut |part| {
        total = total.merge(part.quantized.loss);
        sink(part)
    })?;
    Ok(Some(total))
}

fn matrix_of(plan: &Plan, index: usize, matrix: &Matrix, pool: &Pool) -> Result<Quantized> {
    let pieces = &plan.form.pieces;
    let info = &pieces.list()[index].info;
    let importance = plan.importance_of(index)?;
    let quantize = |part: &mut Part| {
        let numbers = numbers(pieces, index, part)?;
        part.quantized = matrix.grid.quantize(&numbers, matrix.columns, importance.as_deref())?;
        Ok(())
    };
    let mut all = Quantized::default();
    each_part(info, pool, &quantize, &mut |part| {
        all.codes.extend_from_slice(&part.quantized.codes);
        all.scales.extend_from_slice(&part.quantized.scales);
        all.loss = all.loss.merge(part.quantized.loss);
        Ok(())
    })?;
    Ok(all)
}

/// The loss of a few rows, spread over the matrix.
///
/// # Errors
/// When they cannot be read or quantized.
pub(super) fn sampled(plan: &Plan, index: usize, matrix: &Matrix) -> Result<Loss> {
    let importance = plan.importance_of(index)?;
    let count = SAMPLED_ROWS.min(matrix.rows);
    let mut loss = Loss::default();
    for i in 0..count {
        let part = Part { first: i * matrix.rows / count, rows: 1, ..Part::default() };
        let numbers = numbers(&plan.form.pieces, index, &part)?;
        let found = matrix.grid.quantize(&numbers, matrix.columns, importance.as_deref())?;
        loss = loss.merge(found.loss);
    }
    Ok(loss)
}

/// The rows of a part as numbers.
fn numbers(pieces: &Pieces, index: usize, part: &Part) -> Result<Vec<f32>> {
    rows(pieces, index, part.first, part.rows)
}

/// Rows of a tensor as numbers.
///
/// # Errors
/// When they cannot be read.
pub(super) fn rows(pieces: &Pieces, index: usize, first: usize, count: usize) -> Result<Vec<f32>> {
    let info = &pieces.list()[index].info;
    let mut raw = vec![0; count * info.ty.row_bytes(info.row_elements())?];
    pieces.read(index, first, &mut raw)?;
    let mut numbers = vec![0.0; count * info.row_elements()];
    decode(isa(), info.ty, &raw, &mut numbers)?;
    Ok(numbers)
}
