//! Quantizes and converts GGUF files, tensor by tensor, in bounded memory.
//!
//! ```no_run
//! use fewbit::{GgufJob, Silent, quant::algo::mix::FileType};
//! let job = GgufJob::new("model-f16.gguf".as_ref(), FileType::Q4KM);
//! let written = job.run("model-q4.gguf".as_ref(), false, &Silent)?;
//! println!("{} bytes", written.file_bytes);
//! # Ok::<(), fewbit::Error>(())
//! ```

mod calibration;
mod chunk;
mod journal;
mod memory;
mod onnx;
mod rounding;
mod source;
mod stream;

pub use calibration::{Rounding, TextCalibration};

use crate::machine::cores;
use chunk::Chunk;
use fewbit_core::codec::block::BlockType;
use fewbit_core::{Error, Result, ResultExt};
use fewbit_formats::atomic::{OutputOptions, check_destination};
use fewbit_formats::gguf::{Part, PartLimits, TensorInfo, Writer, divide, part_paths};
use fewbit_formats::imatrix::{self, Form, ImportanceMatrix};
use fewbit_kernels::encode::Loss;
use fewbit_kernels::{Isa, Pool};
use fewbit_llm::LanguageModel;
use fewbit_quant::Progress;
use fewbit_quant::algo::blocks::RowEncoder;
use fewbit_quant::algo::mix::{Choice, FileType, choose};
use journal::{Done, Journal};
use serde::Serialize;
use source::Source;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Rows of a tensor that predict its loss.
const SAMPLED_ROWS: usize = 32;

/// A GGUF file to quantize or convert.
#[derive(Clone, Debug)]
pub struct GgufJob {
    /// The file; of a split model, any part. Or a folder of Hugging Face.
    pub model: PathBuf,
    /// What it becomes.
    pub file_type: FileType,
    /// An importance matrix of llama.cpp's format.
    pub importance: Option<PathBuf>,
    /// A text that gives the importance, and better codes. Not together with an importance
    /// matrix.
    pub calibration: Option<TextCalibration>,
    /// Whether another type may stand in where rows are no whole number of blocks.
    pub fallback: bool,
    /// Threads; 0 takes all cores.
    pub threads: usize,
    /// Most bytes of memory that calibration may need; `None` takes what the machine has left.
    pub max_memory: Option<u64>,
    /// How much one file may hold. With limits, the output `NAME.gguf` is written as
    /// `NAME-00001-of-0000N.gguf` and so on.
    pub parts: PartLimits,
}

/// What becomes of one tensor.
#[derive(Clone, Debug, Serialize)]
pub struct TensorLine {
    /// Its name, from the file.
    pub name: String,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The type before.
    pub from: &'static str,
    /// The type after.
    pub to: &'static str,
    /// Why it gets this type.
    pub reason: String,
    /// The type it should have got, were its rows whole blocks of it.
    pub instead_of: Option<&'static str>,
    /// Whether the importance matrix knows its columns.
    pub important: bool,
    /// Bytes after.
    pub bytes: u64,
    /// Squared error relative to the squared weights, each column counted by its importance;
    /// `None` where the tensor is copied.
    pub loss: Option<f64>,
}

/// One file of a split model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PartLine {
    /// Tensors in it.
    pub tensors: usize,
    /// Bytes of the file.
    pub bytes: u64,
}

/// What was written, or would be.
#[derive(Clone, Debug, Serialize)]
pub struct GgufReport {
    /// A line for each tensor, in the order of the file.
    pub tensors: Vec<TensorLine>,
    /// A line for each file, where the model is split.
    pub parts: Vec<PartLine>,
    /// Bytes of tensors before.
    pub source_bytes: u64,
    /// Bytes of the whole file after, or of all files.
    pub file_bytes: u64,
    /// Layers that an interrupted run of the same job had finished.
    pub resumed_layers: usize,
    /// Wall time in seconds.
    pub seconds: f64,
}

impl GgufReport {
    /// Tensors that got another type than the mix wanted.
    pub fn substituted(&self) -> usize {
        self.tensors.iter().filter(|t| t.instead_of.is_some()).count()
    }
}

impl GgufJob {
    /// A job without importance matrix, on all cores, that may substitute types and says so.
    pub fn new(model: &Path, file_type: FileType) -> GgufJob {
        let model = model.to_path_buf();
        let (importance, calibration) = (None, None);
        let (fallback, threads, max_memory) = (true, 0, None);
        let parts = PartLimits::default();
        GgufJob { model, file_type, importance, calibration, fallback, threads, max_memory, parts }
    }

    /// Whether [`run`](GgufJob::run) goes on where it was interrupted.
    pub fn keeps_journal(&self) -> bool {
        let calibrated = |text: &TextCalibration| text.rounding == Rounding::Calibrated;
        self.importance.is_none() && self.calibration.as_ref().is_some_and(calibrated)
    }

    /// What [`run`](GgufJob::run) would write, with the loss of every tensor predicted from a
    /// sample of its rows.
    ///
    /// # Errors
    /// As `run`, but for writing.
    pub fn predict(&self, progress: &dyn Progress) -> Result<GgufReport> {
        let start = Instant::now();
        let plan = self.plan(self.read_importance(None, progress)?.as_ref())?;
        let pool = Pool::new(self.threads);
        progress.start("predict", plan.targets.len());
        let losses = plan.targets.iter().enumerate().map(|(index, target)| {
            progress.step();
            let rows = plan.source.infos()[index].rows();
            let chunks = target.sample(index, rows, SAMPLED_ROWS);
            stream::losses(&plan.source, &plan.targets, &chunks, &pool)
        });
        let losses = losses.collect::<Result<Vec<_>>>()?;
        progress.finish();
        Ok(plan.report(&losses, start))
    }

    /// Writes the quantized file, or all files of a split model, whole or not at all.
    ///
    /// With calibrated rounding a journal stands beside the output until it is finished: when
    /// this process is killed, the same job goes on from there and gives the same bytes.
    ///
    /// # Errors
    /// When the model or the importance matrix is damaged or does not fit, a type has no encoder
    /// or may not be substituted, or writing fails.
    pub fn run(&self, out: &Path, force: bool, progress: &dyn Progress) -> Result<GgufReport> {
        let start = Instant::now();
        if let (Some(text), true) = (&self.calibration, self.keeps_journal()) {
            return rounding::run(self, text, (out, force), progress);
        }
        let mut inputs = Source::open(&self.model)?.paths();
        inputs.extend(self.importance.clone());
        let options = OutputOptions { inputs, keep_existing: !force, expected_bytes: 0 };
        self.check_outputs(out, &options)?;
        let plan = self.plan(self.read_importance(Some(&options), progress)?.as_ref())?;
        let writer = plan.writer(&plan.paths(out, self.parts)?, &options)?;
        let pool = Pool::new(self.threads);
        let (writer, losses) = stream::write(&plan.source, &plan.targets, writer, &pool, progress)?;
        plan.source.check_unchanged()?;
        writer.finish()?;
        Ok(plan.report(&losses, start))
    }

    /// Checks where files will go, before any work is done.
    fn check_outputs(&self, out: &Path, options: &OutputOptions) -> Result<()> {
        if !self.parts.any() {
            return check_destination(out, options);
        }
        part_paths(out, 0, self.parts)?;
        let paths = self.plan(None)?.paths(out, self.parts)?;
        paths.iter().try_for_each(|path| check_destination(path, options))
    }

    /// The importance matrix that was given, or the one of the calibration text; that is also
    /// saved where it shall be and `options` are given.
    fn read_importance(
        &self,
        options: Option<&OutputOptions>,
        progress: &dyn Progress,
    ) -> Result<Option<ImportanceMatrix>> {
        let text = match (&self.importance, &self.calibration) {
            (Some(path), None) => return imatrix::read(path).map(Some),
            (None, Some(text)) => text,
            (None, None) => return Ok(None),
            (Some(_), Some(_)) => {
                return Err(Error::usage("an importance matrix and a calibration text")
                    .code("FB-2703")
                    .hint("give one of them"));
            }
        };
        let model = LanguageModel::open_as_gguf(&self.model)?;
        let source = Source::open(&self.model)?;
        let found = text.measure(&model, &source, self.threads, progress)?;
        if let (Some(path), Some(options)) = (&text.save_importance, options) {
            found.write(path, Form::Gguf, options)?;
        }
        Ok(Some(found))
    }

    fn plan(&self, importance: Option<&ImportanceMatrix>) -> Result<Plan> {
        let source = Source::open(&self.model)?;
        let important = self.importance.is_some() || self.calibration.is_some();
        let shape = source.shape(important || importance.is_some())?;
        if let (Some(path), Some(matrix)) = (&self.importance, importance) {
            let names = source.infos().iter().map(|info| info.name.as_str());
            matrix.check_names(names).at(|| path.display().to_string())?;
        }
        let targets = source.infos().iter().map(|info| {
            let choice = choose(&shape, &info.name, &info.shape, self.file_type);
            self.target(info, choice, importance)
                .at(|| format!("tensor {:?}", info.name))
                .at(|| self.model.display().to_string())
        });
        let targets = targets.collect::<Result<Vec<_>>>()?;
        let infos = retyped(source.infos(), &targets);
        let parts = divide(&source.metadata(self), &infos, self.parts)?;
        Ok(Plan { source, targets, parts })
    }

    fn target(
        &self,
        info: &TensorInfo,
        choice: Choice,
        importance: Option<&ImportanceMatrix>,
    ) -> Result<Target> {
        if let (Some(wanted), false) = (choice.instead_of, self.fallback) {
            let columns = info.row_elements();
            return Err(Error::unsupported(format!(
                "rows of {columns} elements are no whole number of {wanted} blocks"
            ))
            .code("FB-4702")
            .hint("leave out --no-fallback to let another type stand in, or choose another type"));
        }
        let encoders = match choice.ty {
            Some(ty) if ty != info.ty => encoders(info, ty, importance)?,
            _ => Vec::new(),
        };
        let important = encoders.iter().any(RowEncoder::has_importance);
        let ty = choice.ty.unwrap_or(info.ty);
        Ok(Target { choice, ty, encoders, important, rounded: None })
    }
}

/// An encoder for each matrix of a tensor.
fn encoders(
    info: &TensorInfo,
    ty: BlockType,
    importance: Option<&ImportanceMatrix>,
) -> Result<Vec<RowEncoder>> {
    if !matches!(info.ty, BlockType::F32 | BlockType::F16 | BlockType::BF16)
        && !matches!(ty, BlockType::F32 | BlockType::F16 | BlockType::BF16)
    {
        return Err(Error::unsupported(format!("is {} already: {ty} would lose more", info.ty))
            .code("FB-4703")
            .hint(
                "quantize the float model; `fewbit convert` makes one of this, with its losses",
            ));
    }
    let columns = info.row_elements();
    let matrices = matrices(info);
    let weights = importance.map(|i| i.importance(&info.name, columns, matrices)).transpose()?;
    match weights.flatten() {
        None => Ok(vec![RowEncoder::new(ty, columns, None)?; matrices]),
        Some(weights) => {
            let encoder = |w: &[f32]| RowEncoder::new(ty, columns, Some(w));
            weights.chunks(columns.max(1)).map(encoder).collect()
        }
    }
}

/// Matrices that a tensor stacks; 1 for a matrix.
fn matrices(info: &TensorInfo) -> usize {
    let outer = info.shape.len().saturating_sub(2);
    info.shape[..outer].iter().product::<usize>().max(1)
}

/// The decision for one tensor, and what carries it out.
struct Target {
    choice: Choice,
    ty: BlockType,
    /// One for each matrix; none where the bytes are copied.
    encoders: Vec<RowEncoder>,
    important: bool,
    /// Bytes that are there already.
    rounded: Option<Rounded>,
}

/// A tensor that was rounded before, in the journal.
struct Rounded {
    path: PathBuf,
    /// Where its bytes begin.
    offset: u64,
    loss: Loss,
}

impl Rounded {
    fn read(&self, start: usize, out: &mut [u8]) -> Result<()> {
        let mut read = || File::open(&self.path)?.read_exact_at(out, self.offset + start as u64);
        read().map_err(|e| {
            let error = Error::resource(format!("cannot read: {e}")).code("FB-5303");
            error.at(self.path.display().to_string())
        })
    }
}

impl Target {
    /// A few rows, spread over the tensor.
    fn sample(&self, tensor: usize, rows: usize, count: usize) -> Vec<Chunk> {
        if self.encoders.is_empty() {
            return Vec::new();
        }
        let count = count.min(rows);
        (0..count).map(|i| Chunk { tensor, first: i * rows / count, rows: 1 }).collect()
    }
}

struct Plan {
    source: Source,
    targets: Vec<Target>,
    /// The files that are written.
    parts: Vec<Part>,
}

impl Plan {
    /// Bytes of all files.
    fn file_bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    /// Where the files go.
    fn paths(&self, out: &Path, limits: PartLimits) -> Result<Vec<PathBuf>> {
        part_paths(out, self.parts.len(), limits)
    }

    fn writer(&self, paths: &[PathBuf], options: &OutputOptions) -> Result<Writer> {
        Writer::create_parts(paths, &self.parts, &self.infos(), options)
    }

    /// A line for each file, where there are several by intention.
    fn part_lines(&self) -> Vec<PartLine> {
        let is_split = |part: &&Part| part.metadata.get("split.count").is_some();
        let line = |part: &Part| PartLine { tensors: part.tensors.len(), bytes: part.bytes };
        self.parts.iter().filter(is_split).map(line).collect()
    }

    fn infos(&self) -> Vec<TensorInfo> {
        retyped(self.source.infos(), &self.targets)
    }

    /// Takes tensors over from the journal, where their bytes lie.
    fn take(&mut self, layers: &[Vec<Done>], journal: &Journal) -> Result<()> {
        for (layer, tensors) in layers.iter().enumerate() {
            for (done, offset) in tensors.iter().zip(journal.offsets(layer)?) {
                let index = self.source.index(&done.name)?;
                let (path, loss) = (journal.path(layer), done.loss);
                self.targets[index].rounded = Some(Rounded { path, offset, loss });
                self.targets[index].important = true;
            }
        }
        Ok(())
    }

    fn report(self, losses: &[stream::Losses], start: Instant) -> GgufReport {
        let merged = |index: usize| -> Option<f64> {
            let found = losses.iter().filter_map(|l| l.get(&index));
            found.copied().reduce(|a, b| a.merge(b)).map(|loss| loss.relative())
        };
        let lines = self.source.infos().iter().zip(&self.targets).enumerate();
        let tensors = lines.map(|(index, (info, target))| {
            let after = TensorInfo { ty: target.ty, ..info.clone() };
            TensorLine {
                name: info.name.clone(),
                shape: info.shape.clone(),
                from: info.ty.name(),
                to: target.ty.name(),
                reason: target.choice.reason.clone(),
                instead_of: target.choice.instead_of.map(BlockType::name),
                important: target.important,
                bytes: after.byte_len().unwrap_or(0) as u64,
                loss: target.rounded.as_ref().map(|r| r.loss.relative()).or_else(|| merged(index)),
            }
        });
        GgufReport {
            tensors: tensors.collect(),
            parts: self.part_lines(),
            source_bytes: self.source.tensor_bytes(),
            file_bytes: self.file_bytes(),
            resumed_layers: 0,
            seconds: start.elapsed().as_secs_f64(),
        }
    }
}

fn retyped(infos: &[TensorInfo], targets: &[Target]) -> Vec<TensorInfo> {
    let pairs = infos.iter().zip(targets);
    pairs.map(|(info, target)| TensorInfo { ty: target.ty, ..info.clone() }).collect()
}

/// The instruction set for encoding.
pub(crate) fn isa() -> Isa {
    Isa::from_env().unwrap_or_else(|_| Isa::best())
}

/// Threads that a pool of `threads` has at most; 0 means all.
pub(crate) fn lanes(pool: &Pool) -> usize {
    pool.threads().clamp(1, cores().max(1) * 4)
}
