//! Calibrated rounding of a whole model, layer by layer, with a journal.
//!
//! Each layer sees what the quantized layers before it make of the text; in a layer the matrices
//! come in the order in which they are multiplied with, each set seeing what those before it
//! became. So the second moments are those of the inputs that the quantized model will have.

use super::calibration::{self, TextCalibration, columns, layer_weights, shared};
use super::journal::{Done, Journal, remove_remains};
use super::source::Source;
use super::{GgufJob, GgufReport, Plan, isa, matrices, memory, stream};
use fewbit_core::codec::block::BlockType;
use fewbit_core::{DType, Error, Result, ResultExt, Tensor};
use fewbit_formats::atomic::{OutputOptions, check_destination};
use fewbit_formats::imatrix::{Entry, Form};
use fewbit_kernels::encode::Loss;
use fewbit_kernels::{Ctx, Pool};
use fewbit_llm::walk::{Replaced, States, Walk};
use fewbit_llm::{LanguageModel, Weight};
use fewbit_quant::Progress;
use fewbit_quant::algo::blocks::RowEncoder;
use fewbit_quant::algo::factor::Factor;
use fewbit_quant::algo::hessian::Hessian;
use fewbit_quant::algo::rounding::{CalibratedEncoder, encode_rows};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Instant, UNIX_EPOCH};

/// Grows when the same job would give other bytes.
const ALGORITHM: u32 = 1;
/// Share of the mean diagonal that is added to the moments.
const DAMPING: f64 = 0.01;
/// Elements that are rounded at once.
const ELEMENTS: usize = 1 << 24;

/// A job on its way.
struct Rounding<'a> {
    plan: &'a Plan,
    walk: Walk<'a>,
    windows: Vec<Vec<u32>>,
    journal: Journal,
}

/// Writes the file; what a killed run of the same job did is taken over.
///
/// # Errors
/// See [`GgufJob::run`].
pub(super) fn run(
    job: &GgufJob,
    text: &TextCalibration,
    (out, force): (&Path, bool),
    progress: &dyn Progress,
) -> Result<GgufReport> {
    let start = Instant::now();
    let model = LanguageModel::open_as_gguf(&job.model)?;
    let mut plan = job.plan(None)?;
    let mut options = OutputOptions { inputs: plan.source.paths(), ..Default::default() };
    let paths = plan.paths(out, job.parts)?;
    paths.iter().try_for_each(|path| check_destination(path, &options))?;
    let windows = text.windows(&model)?;
    let walk = calibration::walk(&model, job.threads)?;
    let fingerprint = fingerprint(job, text, &plan.source, &windows)?;
    check_importance(text, &options, (out, force))?;
    memory::check(job, memory::needed(&plan.source, model.decoder()?, &windows))?;
    let journal = open(out, &paths, &plan, force, &fingerprint)?;
    // The journal holds about as much as the output.
    let journal = journal.with_space(plan.file_bytes().saturating_mul(2))?;
    let rounding = Rounding { plan: &plan, walk, windows, journal };
    let (layers, resumed_layers) = rounding.layers(progress)?;
    let Rounding { windows, journal, .. } = rounding;
    if let Some(path) = &text.save_importance {
        let importance = text.importance(importance(&layers), &windows);
        importance.write(path, Form::Gguf, &options)?;
    }
    plan.take(&layers, &journal)?;
    let mut losses = Vec::new();
    if !journal.is_written(&paths) {
        // Parts that are there were made by a run that was killed while the last of them came.
        options.keep_existing = !force && !paths.iter().any(|path| path.exists());
        losses = write(job, &plan, (&paths, &options), &journal, progress)?;
    }
    journal.remove()?;
    Ok(GgufReport { resumed_layers, ..plan.report(&losses, start) })
}

/// Checks where the importance matrix goes. One that a killed run of this job has written may be
/// there.
fn check_importance(
    text: &TextCalibration,
    options: &OutputOptions,
    (out, force): (&Path, bool),
) -> Result<()> {
    let Some(path) = &text.save_importance else { return Ok(()) };
    if path == out {
        let error = Error::usage("the importance matrix would replace the output");
        return Err(error.code("FB-2101").hint("choose another name for one of them"));
    }
    // The output is no input yet, but must not be both.
    let inputs = options.inputs.iter().cloned().chain([out.to_path_buf()]).collect();
    let keep_existing = !force && !super::journal::folder(out).exists();
    check_destination(path, &OutputOptions { inputs, keep_existing, ..options.clone() })
}

/// Opens the journal. An output that exists must be that of this very job, or be replaced.
fn open(
    out: &Path,
    paths: &[PathBuf],
    plan: &Plan,
    force: bool,
    fingerprint: &str,
) -> Result<Journal> {
    let keep = OutputOptions { keep_existing: !force, ..Default::default() };
    if !super::journal::folder(out).exists() {
        paths.iter().try_for_each(|path| check_destination(path, &keep))?;
    }
    let journal = Journal::open(out, fingerprint)?;
    for (path, part) in paths.iter().zip(&plan.parts) {
        if !journal.has_written(path, part.bytes) {
            check_destination(path, &keep)?;
        }
    }
    paths.iter().for_each(|path| remove_remains(path));
    Ok(journal)
}

fn write(
    job: &GgufJob,
    plan: &Plan,
    (paths, options): (&[PathBuf], &OutputOptions),
    journal: &Journal,
    progress: &dyn Progress,
) -> Result<Vec<stream::Losses>> {
    let writer = plan.writer(paths, options)?;
    let pool = Pool::new(job.threads);
    let (writer, losses) = stream::write(&plan.source, &plan.targets, writer, &pool, progress)?;
    plan.source.check_unchanged()?;
    journal.set_written(plan.file_bytes())?;
    writer.finish().map(|_| losses)
}

/// What must be equal for a journal to be taken over.
fn fingerprint(
    job: &GgufJob,
    text: &TextCalibration,
    source: &Source,
    windows: &[Vec<u32>],
) -> Result<String> {
    let mut hash = Sha256::new();
    for window in windows {
        hash.update((window.len() as u64).to_le_bytes());
        window.iter().for_each(|token| hash.update(token.to_le_bytes()));
    }
    let mut lines = format!(
        "fewbit {} algorithm {ALGORITHM}\ntype {}\ntext {:?}\n",
        env!("CARGO_PKG_VERSION"),
        job.file_type.name(),
        text.name(),
    );
    for path in source.paths() {
        let meta = std::fs::metadata(&path).map_err(|e| Error::resource(e.to_string()))?;
        let time = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let time = time.map_or(0, |t| t.as_nanos());
        // Writing to a string cannot fail.
        let _ = writeln!(lines, "model {} bytes {} time {time}", path.display(), meta.len());
    }
    hash.finalize().iter().for_each(|byte| _ = write!(lines, "{byte:02x}"));
    lines.push('\n');
    Ok(lines)
}

/// The importance matrix that follows from the tensors.
fn importance(layers: &[Vec<Done>]) -> BTreeMap<String, Entry> {
    let entry = |done: &Done| {
        let (sums, counts) = (done.squares.clone(), vec![done.tokens as f32]);
        (done.name.clone(), Entry { sums, counts })
    };
    layers.iter().flatten().map(entry).collect()
}

impl Rounding<'_> {
    /// All layers, from the journal or anew, and how many were there. Their bytes are in the
    /// journal.
    fn layers(&self, progress: &dyn Progress) -> Result<(Vec<Vec<Done>>, usize)> {
        let mut resumed = 0;
        progress.start("calibrate", self.walk.layers());
        let mut states = self.walk.start(&self.windows)?;
        let mut layers = Vec::new();
        for index in 0..self.walk.layers() {
            let mut weights = layer_weights(&self.walk, &self.plan.source, index)?;
            let mut done = match self.journal.read(index)? {
                Some(done) => {
                    resumed += 1;
                    done
                }
                None => {
                    let done = self.layer(index, &mut weights, &states)?;
                    self.journal.write(index, &done)?;
                    done
                }
            };
            if index + 1 < self.walk.layers() {
                for tensor in &done {
                    weights.with.insert(tensor.name.clone(), self.weight(tensor)?);
                }
                states = self.advance(index, &weights, states)?;
            }
            done.iter_mut().for_each(|tensor| tensor.bytes = Vec::new());
            layers.push(done);
            progress.step();
        }
        progress.finish();
        Ok((layers, resumed))
    }

    fn advance(&self, index: usize, weights: &Replaced<'_>, states: States) -> Result<States> {
        let run = self.walk.layer(index, weights, &[])?;
        states.into_iter().map(|state| run.run(&state, &mut |_, _, _| Ok(()))).collect()
    }

    /// Rounds the matrices of a layer; `weights` then holds what they became.
    fn layer(
        &self,
        index: usize,
        weights: &mut Replaced<'_>,
        states: &[Tensor],
    ) -> Result<Vec<Done>> {
        let mut found = Vec::new();
        let all = self.walk.matrices(index)?;
        for group in all {
            let Some(first) = group.first() else { continue };
            let hessian = self.moments(index, weights, states, first)?;
            let done = self.group(&group, hessian).at(|| format!("layer {index}"))?;
            for tensor in &done {
                weights.with.insert(tensor.name.clone(), self.weight(tensor)?);
            }
            found.extend(done);
        }
        Ok(found)
    }

    /// Second moments of the inputs of a matrix.
    fn moments(
        &self,
        index: usize,
        weights: &Replaced<'_>,
        states: &[Tensor],
        matrix: &str,
    ) -> Result<Hessian> {
        let mut hessian = Hessian::new(columns(&self.plan.source, matrix)?)?;
        let run = self.walk.inputs(index, weights, matrix)?;
        let ctx = Ctx { isa: isa(), pool: self.walk.pool() };
        for state in states {
            hessian.add(ctx, &run.run(state, &mut |_, _, _| Ok(()))?.cow::<f32>()?);
        }
        hessian.finish();
        Ok(hessian)
    }

    /// Rounds matrices that share their inputs.
    fn group(&self, names: &[String], hessian: Hessian) -> Result<Vec<Done>> {
        let factor = Factor::new(&hessian, DAMPING, self.walk.pool())?;
        let squares = hessian.diagonal();
        let tokens = hessian.tokens();
        drop(hessian);
        let mut found = Vec::new();
        for name in names {
            let tensor = self.plan.source.index(name)?;
            if self.plan.targets[tensor].encoders.is_empty() {
                continue;
            }
            let ty = self.plan.targets[tensor].ty;
            let (bytes, loss) =
                self.round(tensor, ty, &squares, &factor).at(|| format!("tensor {name:?}"))?;
            found.push(Done { name: name.clone(), loss, squares: squares.clone(), tokens, bytes });
        }
        Ok(found)
    }

    fn round(
        &self,
        tensor: usize,
        ty: BlockType,
        squares: &[f32],
        factor: &Factor,
    ) -> Result<(Vec<u8>, Loss)> {
        let source = &self.plan.source;
        let info = &source.infos()[tensor];
        let (rows, columns) = (info.rows(), info.row_elements());
        if matrices(info) != 1 {
            return Err(Error::unsupported("experts cannot be calibrated yet").code("FB-4704"));
        }
        let encoder = RowEncoder::new(ty, columns, Some(squares))?;
        let calibrated = CalibratedEncoder::new(encoder.clone());
        let ctx = Ctx { isa: isa(), pool: self.walk.pool() };
        let step = (ELEMENTS / columns.max(1)).max(1);
        let mut bytes = vec![0; rows * encoder.row_bytes()];
        let mut loss = Loss::default();
        for (part, out) in bytes.chunks_mut(step * encoder.row_bytes()).enumerate() {
            let count = out.len() / encoder.row_bytes();
            let x = source.numbers(tensor, part * step, count)?;
            loss = loss.merge(match &calibrated {
                Some(calibrated) => calibrated.encode(ctx, &x, factor, out)?,
                None => encode_rows(ctx, &encoder, columns, &x, out)?,
            });
        }
        Ok((bytes, loss))
    }

    /// A tensor as the quantized model has it.
    fn weight(&self, done: &Done) -> Result<Weight> {
        let index = self.plan.source.index(&done.name)?;
        let info = &self.plan.source.infos()[index];
        let ty = self.plan.targets[index].ty;
        let (rows, row) = (info.rows(), ty.row_bytes(info.row_elements())?);
        let tensor = Tensor::from_bytes(DType::U8, vec![rows, row], shared(done.bytes.clone()))?;
        Ok(Weight { block: Some(ty), shape: info.shape.clone(), ..Weight::plain(tensor) })
    }
}
