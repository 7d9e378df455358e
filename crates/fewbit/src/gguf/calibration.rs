//! The text that a quantization is calibrated on, and the importance it gives.

use super::source::Source;
use fewbit_core::{DType, Error, Result, Tensor};
use fewbit_exec::{Mode, SessionOptions};
use fewbit_formats::data::{Corpus, CorpusKind};
use fewbit_formats::imatrix::{Entry, ImportanceMatrix};
use fewbit_llm::perplexity::Windows;
use fewbit_llm::walk::{Replaced, Walk};
use fewbit_llm::{LanguageModel, Weight};
use fewbit_quant::Progress;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Windows that are taken where the user says nothing.
const WINDOWS: usize = 64;

/// How codes are chosen once the scales are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// So that the outputs on the calibration text change least (GPTQ), for the types that allow
    /// it; the others are rounded to nearest.
    #[default]
    Calibrated,
    /// To the nearest code; the text sets scales alone.
    Nearest,
}

/// A text to calibrate on.
#[derive(Clone, Debug)]
pub struct TextCalibration {
    /// `PATH` or `PATH@A..B`, as for [`Corpus::open`]; the range counts windows. Without one, the
    /// first 64.
    pub data: String,
    /// Tokens of a window; 0 takes 512.
    pub context: usize,
    /// How codes are chosen.
    pub rounding: Rounding,
    /// Where the importance matrix goes too.
    pub save_importance: Option<PathBuf>,
}

impl TextCalibration {
    /// Calibration on a text, in windows of 512 tokens.
    pub fn new(data: &str) -> TextCalibration {
        let (data, rounding) = (data.to_string(), Rounding::default());
        TextCalibration { data, context: 0, rounding, save_importance: None }
    }

    /// The file's name, with the range.
    pub(super) fn name(&self) -> String {
        let name = Path::new(&self.data).file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The tokens of each window.
    ///
    /// # Errors
    /// When the data is no text, or too short.
    pub(crate) fn windows(&self, model: &LanguageModel) -> Result<Vec<Vec<u32>>> {
        let corpus = Corpus::open(&self.data)?;
        let mut windows = match &corpus.kind {
            CorpusKind::Text(text) => Windows::of_text(model, text, self.context)?,
            CorpusKind::Documents(documents) => {
                let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
                Windows::of_documents(model, &texts)?
            }
            CorpusKind::Pairs(_) => {
                return Err(Error::usage("sentence pairs are no text to calibrate on")
                    .code("FB-2303")
                    .hint("give a text file, or a card with the task perplexity"));
            }
        };
        let all = match corpus.range.is_all() {
            true => 0..windows.len().min(WINDOWS),
            false => corpus.range.resolve(windows.len())?,
        };
        windows.keep(all);
        Ok(windows.tokens().map(<[u32]>::to_vec).collect())
    }

    /// An importance matrix over `entries`.
    pub(super) fn importance(
        &self,
        entries: BTreeMap<String, Entry>,
        windows: &[Vec<u32>],
    ) -> ImportanceMatrix {
        let size = windows.iter().map(Vec::len).max().unwrap_or(0);
        ImportanceMatrix {
            entries,
            datasets: vec![self.data.clone()],
            chunk_count: u32::try_from(windows.len()).unwrap_or(u32::MAX),
            chunk_size: u32::try_from(size).unwrap_or(u32::MAX),
        }
    }

    /// Squares of the inputs of every matrix in the layers, in the float model.
    ///
    /// # Errors
    /// When the model is no decoder, or a run fails.
    pub(super) fn measure(
        &self,
        model: &LanguageModel,
        source: &Source,
        threads: usize,
        progress: &dyn Progress,
    ) -> Result<ImportanceMatrix> {
        let windows = self.windows(model)?;
        let walk = walk(model, threads)?;
        let mut states = walk.start(&windows)?;
        let mut entries = BTreeMap::new();
        progress.start("calibrate", walk.layers());
        for layer in 0..walk.layers() {
            let weights = layer_weights(&walk, source, layer)?;
            let groups = walk.matrices(layer)?;
            let firsts: Vec<String> = groups.iter().filter_map(|g| g.first().cloned()).collect();
            let run = walk.layer(layer, &weights, &firsts)?;
            let mut sums: BTreeMap<String, (Vec<f64>, u64)> = BTreeMap::new();
            for state in &mut states {
                *state = run.run(state, &mut |matrix, _, x| {
                    let columns = columns(source, matrix)?;
                    let (sum, count) =
                        sums.entry(matrix.to_string()).or_insert_with(|| (vec![0.0; columns], 0));
                    add_squares(sum, x);
                    *count += (x.len() / columns.max(1)) as u64;
                    Ok(())
                })?;
            }
            for group in groups {
                let Some((sum, count)) = group.first().and_then(|f| sums.get(f)) else { continue };
                let sums: Vec<f32> = sum.iter().map(|&s| s as f32).collect();
                let entry = Entry { sums, counts: vec![*count as f32] };
                entries.extend(group.into_iter().map(|name| (name, entry.clone())));
            }
            progress.step();
        }
        progress.finish();
        Ok(self.importance(entries, &windows))
    }
}

fn add_squares(sums: &mut [f64], x: &[f32]) {
    for row in x.chunks_exact(sums.len().max(1)) {
        sums.iter_mut().zip(row).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
}

/// Columns of a matrix of the file.
pub(super) fn columns(source: &Source, matrix: &str) -> Result<usize> {
    let index = source.index(matrix)?;
    Ok(source.infos()[index].row_elements())
}

pub(super) fn walk(model: &LanguageModel, threads: usize) -> Result<Walk<'_>> {
    Walk::new(model, &SessionOptions::new(Mode::Float).threads(threads))
}

/// The weights of the model, with the plain matrices of one layer read into memory: mapped pages
/// would stay until the end.
pub(super) fn layer_weights<'w>(
    walk: &'w Walk<'_>,
    source: &Source,
    layer: usize,
) -> Result<Replaced<'w>> {
    let mut with = BTreeMap::new();
    for name in walk.matrices(layer)?.into_iter().flatten() {
        let index = source.index(&name)?;
        let info = &source.infos()[index];
        let dtype = match info.ty {
            fewbit_core::codec::block::BlockType::F32 => DType::F32,
            fewbit_core::codec::block::BlockType::F16 => DType::F16,
            fewbit_core::codec::block::BlockType::BF16 => DType::BF16,
            _ => continue,
        };
        let mut bytes = vec![0; info.byte_len()?];
        source.read(index, 0, &mut bytes)?;
        let tensor = Tensor::from_bytes(dtype, info.shape.clone(), shared(bytes))?;
        with.insert(name, Weight::plain(tensor));
    }
    Ok(Replaced { weights: walk.weights(), with })
}

/// Bytes for a tensor.
pub(super) fn shared(bytes: Vec<u8>) -> fewbit_core::SharedBytes {
    fewbit_core::SharedBytes::from(fewbit_core::AlignedBytes::copy_of(&bytes))
}
