//! Language models as folders of Hugging Face: in floats, or quantized as compressed-tensors,
//! GPTQ or AWQ checkpoints.
//!
//! ```no_run
//! use fewbit::{FolderJob, FolderType, Silent};
//! let job = FolderJob::new("SmolLM2-135M".as_ref(), FolderType::W4A16);
//! let report = job.run("SmolLM2-135M-W4A16".as_ref(), false, &Silent)?;
//! println!("{} bytes", report.file_bytes);
//! # Ok::<(), fewbit::Error>(())
//! ```

mod calibrated;
mod kind;
mod matrix;
mod stream;

pub use kind::FolderType;

use crate::gguf::{GgufReport, TensorLine, TextCalibration};
use calibrated::Calibrated;
use fewbit_core::codec::block::BlockType;
use fewbit_core::{DType, Error, Result, ResultExt};
use fewbit_formats::atomic::{OutputFolder, OutputOptions};
use fewbit_formats::imatrix::{self, ImportanceMatrix};
use fewbit_formats::safetensors::{DEFAULT_SHARD_BYTES, FolderWriter, TensorSpec};
use fewbit_kernels::Pool;
use fewbit_llm::LanguageModel;
use fewbit_llm::export::{FolderForm, Piece, to_folder};
use fewbit_quant::Progress;
use fewbit_quant::algo::grid::Grid;
use kind::{GROUP, Groups, quantization_config};
use matrix::Matrix;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The smallest group that is tried where larger ones do not divide a row.
const LEAST_GROUP: usize = 32;

/// Importance below this share of the mean is taken for as much.
const LEAST_IMPORTANCE: f32 = 1e-6;

/// A language model to write as a folder.
#[derive(Clone, Debug)]
pub struct FolderJob {
    /// A folder of Hugging Face, or a GGUF file.
    pub model: PathBuf,
    /// What it becomes.
    pub ty: FolderType,
    /// Columns that share a scale, where the type has groups; 0 for all of a row.
    pub group: usize,
    /// An importance matrix of llama.cpp's format.
    pub importance: Option<PathBuf>,
    /// A text that sets scales and codes; the model must be a folder.
    pub calibration: Option<TextCalibration>,
    /// Whether another size may stand in where groups do not divide a row.
    pub fallback: bool,
    /// Threads; 0 takes all cores.
    pub threads: usize,
}

/// What becomes of one tensor.
enum Fate {
    /// Numbers of this type; `None` copies the bytes.
    Plain(Option<BlockType>),
    Quantized(Matrix),
}

struct Plan {
    form: FolderForm,
    fates: Vec<Fate>,
    inputs: Vec<PathBuf>,
    importance: Option<ImportanceMatrix>,
    groups: Groups,
    ignore: Vec<String>,
    float: DType,
}

impl FolderJob {
    /// A job on all cores, in groups of 128, that may choose smaller groups and says so.
    pub fn new(model: &Path, ty: FolderType) -> FolderJob {
        let model = model.to_path_buf();
        let (importance, calibration) = (None, None);
        FolderJob { model, ty, group: GROUP, importance, calibration, fallback: true, threads: 0 }
    }

    /// What [`run`](FolderJob::run) would write, with the loss of every matrix predicted from a
    /// sample of its rows.
    ///
    /// # Errors
    /// As `run`, but for writing.
    pub fn predict(&self, progress: &dyn Progress) -> Result<GgufReport> {
        let start = Instant::now();
        let (plan, _) = self.plan()?;
        let specs = plan.specs()?;
        progress.start("predict", plan.fates.len());
        let mut losses = Vec::with_capacity(plan.fates.len());
        for (index, fate) in plan.fates.iter().enumerate() {
            progress.step();
            losses.push(match fate {
                Fate::Plain(_) => None,
                Fate::Quantized(matrix) => Some(stream::sampled(&plan, index, matrix)?.relative()),
            });
        }
        progress.finish();
        let mut bytes = 0;
        for spec in specs.iter().flatten() {
            bytes += spec.byte_len()? as u64;
        }
        Ok(plan.report(&specs, &losses, bytes, start))
    }

    /// Writes the folder, whole or not at all.
    ///
    /// # Errors
    /// When the model is damaged or cannot be written in this form, the output may not be
    /// replaced, or writing fails.
    pub fn run(&self, out: &Path, force: bool, progress: &dyn Progress) -> Result<GgufReport> {
        let start = Instant::now();
        let (plan, model) = self.plan()?;
        let options =
            OutputOptions { inputs: plan.inputs.clone(), keep_existing: !force, expected_bytes: 0 };
        let folder = OutputFolder::create(out, &options)?;
        let specs = plan.specs()?;
        let metadata = [("format".to_string(), "pt".to_string())];
        let flat: Vec<TensorSpec> = specs.iter().flatten().cloned().collect();
        let shards = DEFAULT_SHARD_BYTES;
        let none = OutputOptions::default();
        let writer = FolderWriter::create(folder.work_path(), &metadata, &flat, shards, &none)?;
        let calibrated = match &self.calibration {
            Some(text) => calibrated::run(&plan, &model, text, self.threads, progress)?,
            None => Calibrated::new(),
        };
        let pool = Pool::new(self.threads);
        let (writer, losses) = stream::write(&plan, &specs, writer, &calibrated, &pool, progress)?;
        plan.form.pieces.files().iter().try_for_each(|file| file.check_unchanged())?;
        let mut bytes = writer.finish()?;
        for (name, content) in &plan.form.files {
            bytes += folder.write(name, content)?;
        }
        bytes += self.write_config(&plan, &folder)?;
        folder.commit()?;
        Ok(plan.report(&specs, &losses, bytes, start))
    }

    fn write_config(&self, plan: &Plan, folder: &OutputFolder) -> Result<u64> {
        let mut config = plan.form.config.clone();
        let name = match plan.float {
            DType::F32 => "float32",
            DType::BF16 => "bfloat16",
            _ => "float16",
        };
        config.set("torch_dtype", name);
        if config.get("dtype").is_some() {
            config.set("dtype", name);
        }
        let mut bytes = 0;
        if let Some(how) = quantization_config(self.ty, &plan.groups, &plan.ignore) {
            if !self.ty.is_compressed_tensors() {
                let text = format!("{how:#}\n");
                bytes += folder.write(Path::new("quantize_config.json"), text.as_bytes())?;
            }
            config.set("quantization_config", how);
        }
        let text = format!("{:#}\n", json!(config.fields()));
        Ok(bytes + folder.write(Path::new("config.json"), text.as_bytes())?)
    }

    fn plan(&self) -> Result<(Plan, LanguageModel)> {
        let model = LanguageModel::open(&self.model)?;
        self.check(&model).at(|| self.model.display().to_string())?;
        let form = to_folder(&model)?;
        let float = self.float(&form);
        let importance = self.importance.as_deref().map(imatrix::read).transpose()?;
        if let (Some(path), Some(matrix)) = (&self.importance, &importance) {
            let names = form.linear.values().map(String::as_str);
            matrix.check_names(names).at(|| path.display().to_string())?;
        }
        let mut inputs = model.checkpoint().files.clone();
        inputs.extend(self.importance.clone());
        let place = || self.model.display().to_string();
        let group = self.common_group(&form).at(place)?;
        let fates = form.pieces.list().iter().map(|piece| {
            self.fate(&form, piece, float, group)
                .at(|| format!("tensor {:?}", piece.info.name))
                .at(place)
        });
        let fates = fates.collect::<Result<Vec<_>>>()?;
        if self.ty.codes().is_some() && !fates.iter().any(|f| matches!(f, Fate::Quantized(_))) {
            return Err(Error::unsupported("a model without linear layers").code("FB-4714"));
        }
        let groups = match group {
            Some(group) => vec![(group, Vec::new())],
            None => groups(&fates),
        };
        let ignore = ignored(&form);
        Ok((Plan { form, fates, inputs, importance, groups, ignore, float }, model))
    }

    fn check(&self, model: &LanguageModel) -> Result<()> {
        let architecture = model.checkpoint().architecture;
        if self.ty.quantizes() && architecture.tensors.transposed {
            let what = format!("layers of {} in codes", architecture.title);
            return Err(Error::unsupported(what)
                .code("FB-4718")
                .hint("its matrices lie the other way round than these formats have them"));
        }
        if self.calibration.is_some() && !self.model.is_dir() {
            return Err(Error::unsupported("a GGUF file cannot be calibrated into a folder")
                .code("FB-4720")
                .hint("`fewbit convert` makes a folder of it; quantize that"));
        }
        Ok(())
    }

    /// The type of what is not quantized.
    fn float(&self, form: &FolderForm) -> DType {
        if let FolderType::Float(dtype) = self.ty {
            return dtype;
        }
        // Matrices say it: vectors may be wider.
        let matrices = form.pieces.list().iter().filter(|piece| piece.info.shape.len() > 1);
        let mut dtypes = matrices.filter_map(|piece| piece.info.ty.dtype());
        dtypes.rfind(|dtype| dtype.is_float()).unwrap_or(DType::F16)
    }

    /// The group size for layouts that have one for all matrices; `None` where each may have its
    /// own, or has all of a row.
    fn common_group(&self, form: &FolderForm) -> Result<Option<usize>> {
        if !self.ty.grouped() || self.ty.is_compressed_tensors() || self.group == 0 {
            return Ok(None);
        }
        let list = form.pieces.list().iter().filter(|p| form.linear.contains_key(&p.info.name));
        let columns: Vec<usize> = list.map(|piece| piece.info.row_elements()).collect();
        let fits = |group: usize| columns.iter().all(|c| c.is_multiple_of(group));
        let sizes = std::iter::successors(Some(self.group), |g| Some(g / 2));
        let found = sizes.take_while(|g| *g >= LEAST_GROUP.min(self.group)).find(|g| fits(*g));
        match found {
            Some(group) if group == self.group || self.fallback => Ok(Some(group)),
            _ => Err(self.no_group(columns.first().copied().unwrap_or(0))),
        }
    }

    fn fate(
        &self,
        form: &FolderForm,
        piece: &Piece,
        float: DType,
        common: Option<usize>,
    ) -> Result<Fate> {
        let info = &piece.info;
        let Some(codes) = self.ty.codes().filter(|_| form.linear.contains_key(&info.name)) else {
            let plain = info.ty.dtype().is_some_and(|dtype| !dtype.is_float());
            let wide = info.shape.len() <= 1 && info.ty == BlockType::F32;
            let same = plain || wide || info.ty.dtype() == Some(float);
            return Ok(Fate::Plain((!same).then(|| block_type(float))));
        };
        if info.ty.dtype().is_none() {
            return Err(Error::unsupported(format!(
                "is {} already: this would lose more",
                info.ty
            ))
            .code("FB-4703")
            .hint("quantize the float model; `fewbit convert` makes one of this"));
        }
        let (rows, columns) = (info.rows(), info.row_elements());
        let group = match common {
            Some(group) => group,
            None if self.ty.grouped() => self.group_of(columns)?,
            None => columns,
        };
        let scales = if self.ty.is_compressed_tensors() { float } else { DType::F16 };
        let layer = info.name.strip_suffix(".weight").unwrap_or(&info.name).to_string();
        let grid = Grid { codes, group, scales };
        let matrix = Matrix { layer, rows, columns, ty: self.ty, grid };
        matrix.specs()?;
        Ok(Fate::Quantized(matrix))
    }

    /// The largest group that divides a row: the wanted one, half of it, and so on, or the row.
    fn group_of(&self, columns: usize) -> Result<usize> {
        let mut group = if self.group == 0 { columns } else { self.group };
        while group >= LEAST_GROUP && !columns.is_multiple_of(group) {
            group /= 2;
        }
        let found = if columns.is_multiple_of(group.max(1)) { group.max(1) } else { columns };
        match found {
            found if self.fallback || found == self.group || self.group == 0 => Ok(found),
            _ => Err(self.no_group(columns)),
        }
    }

    fn no_group(&self, columns: usize) -> Error {
        let group = self.group;
        let what = format!("rows of {columns} columns are no whole number of groups of {group}");
        Error::unsupported(what).code("FB-4714").hint(match self.fallback {
            true => "choose another size with --group",
            false => "choose another size with --group, or leave out --no-fallback",
        })
    }
}

/// Importance of which no column is worth nothing.
fn positive(means: Vec<f32>) -> Vec<f32> {
    let least = means.iter().sum::<f32>() / means.len().max(1) as f32 * LEAST_IMPORTANCE;
    means.into_iter().map(|w| w.max(least).max(f32::MIN_POSITIVE)).collect()
}

fn block_type(dtype: DType) -> BlockType {
    match dtype {
        DType::F32 => BlockType::F32,
        DType::BF16 => BlockType::BF16,
        _ => BlockType::F16,
    }
}

/// The last parts of layer names, by group size; most matrices first.
fn groups(fates: &[Fate]) -> Groups {
    let mut found: Vec<(usize, Vec<String>, usize)> = Vec::new();
    for fate in fates {
        let Fate::Quantized(matrix) = fate else { continue };
        // All of a row is a strategy of its own, not a group.
        let whole = !matrix.ty.grouped() || matrix.grid.group == matrix.columns;
        let group = if whole { 0 } else { matrix.grid.group };
        let end = end_of(&matrix.layer);
        match found.iter_mut().find(|(size, ..)| *size == group) {
            Some((_, ends, count)) => {
                *count += 1;
                if !ends.contains(&end) {
                    ends.push(end);
                }
            }
            None => found.push((group, vec![end], 1)),
        }
    }
    found.sort_by_key(|(group, _, count)| (std::cmp::Reverse(*count), *group));
    found.into_iter().map(|(group, ends, _)| (group, ends)).collect()
}

/// What follows the number of the layer.
fn end_of(layer: &str) -> String {
    let parts: Vec<&str> = layer.split('.').collect();
    let number = parts.iter().rposition(|part| part.bytes().all(|b| b.is_ascii_digit()));
    parts[number.map_or(0, |at| at + 1)..].join(".")
}

/// Linear layers that stay floats: the head, and those outside of the network proper.
fn ignored(form: &FolderForm) -> Vec<String> {
    let outside = |piece: &&Piece| {
        let name = &piece.info.name;
        let table = ["embed", "wte", "wpe", "lm_head"].iter().any(|part| name.contains(part));
        piece.info.shape.len() == 2 && !form.linear.contains_key(name) && !table
    };
    let layers = form.pieces.list().iter().filter(outside);
    let names = layers.filter_map(|p| p.info.name.strip_suffix(".weight").map(str::to_string));
    std::iter::once("lm_head".to_string()).chain(names).collect()
}

impl Plan {
    /// How much the errors of each column count; `None` where nothing is known.
    fn importance_of(&self, index: usize) -> Result<Option<Vec<f32>>> {
        let Some(matrix) = &self.importance else { return Ok(None) };
        let info = &self.form.pieces.list()[index].info;
        let Some(name) = self.form.linear.get(&info.name) else { return Ok(None) };
        let Some(means) = matrix.importance(name, info.row_elements(), 1)? else { return Ok(None) };
        Ok(Some(positive(means)))
    }

    /// The tensors that each piece becomes.
    fn specs(&self) -> Result<Vec<Vec<TensorSpec>>> {
        let pairs = self.form.pieces.list().iter().zip(&self.fates);
        let of = |(piece, fate): (&Piece, &Fate)| match fate {
            Fate::Quantized(matrix) => matrix.specs(),
            Fate::Plain(to) => {
                let dtype = to.unwrap_or(piece.info.ty).dtype();
                let dtype = dtype.ok_or_else(|| Error::internal("blocks in safetensors"))?;
                let (name, shape) = (piece.info.name.clone(), piece.info.shape.clone());
                Ok(vec![TensorSpec { name, dtype, shape }])
            }
        };
        pairs.map(of).collect()
    }

    fn report(
        &self,
        specs: &[Vec<TensorSpec>],
        losses: &[Option<f64>],
        file_bytes: u64,
        start: Instant,
    ) -> GgufReport {
        let rows = self.form.pieces.list().iter().zip(&self.fates);
        let line = |(index, (piece, fate)): (usize, (&Piece, &Fate))| {
            let specs = &specs[index];
            let bytes = specs.iter().map(|spec| spec.byte_len().unwrap_or(0) as u64).sum();
            let (to, reason, important) = match fate {
                Fate::Plain(to) => (to.unwrap_or(piece.info.ty).name(), "float".to_string(), false),
                Fate::Quantized(matrix) => {
                    let reason = match matrix.grid.group {
                        group if group == matrix.columns => "a scale for each row".to_string(),
                        group => format!("groups of {group}"),
                    };
                    (matrix.ty.name(), reason, self.importance.is_some())
                }
            };
            TensorLine {
                name: piece.info.name.clone(),
                shape: piece.info.shape.clone(),
                from: piece.info.ty.name(),
                to,
                reason,
                instead_of: None,
                important,
                bytes,
                loss: losses[index],
            }
        };
        GgufReport {
            parts: Vec::new(),
            tensors: rows.enumerate().map(line).collect(),
            source_bytes: self
                .form
                .pieces
                .list()
                .iter()
                .map(|p| p.info.byte_len().unwrap_or(0) as u64)
                .sum(),
            file_bytes,
            resumed_layers: 0,
            seconds: start.elapsed().as_secs_f64(),
        }
    }
}
