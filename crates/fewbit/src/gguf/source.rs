//! The model that is read: its tensors by pieces, so that mapped pages do not pile up.

use super::{GgufJob, isa};
use fewbit_core::{Error, Result};
use fewbit_formats::gguf::{self, Metadata, TensorInfo};
use fewbit_formats::mmap::InputFile;
use fewbit_llm::LanguageModel;
use fewbit_llm::export::{self, Pieces};
use fewbit_quant::algo::blocks::decode;
use fewbit_quant::algo::mix::ModelShape;
use std::path::{Path, PathBuf};

/// The version of the block formats.
const QUANTIZATION_VERSION: u32 = 2;

/// An open model: a GGUF file, or a folder of Hugging Face seen as one.
pub(super) struct Source {
    metadata: Metadata,
    infos: Vec<TensorInfo>,
    pieces: Pieces,
    /// All files that were read.
    paths: Vec<PathBuf>,
}

impl Source {
    /// # Errors
    /// When the model is damaged, cannot be read, or has no form in GGUF.
    pub(super) fn open(path: &Path) -> Result<Source> {
        if path.is_dir() {
            return Source::from_folder(path);
        }
        let gguf = gguf::read(path)?;
        let paths = gguf.files().iter().map(|f| f.path().to_path_buf()).collect();
        Ok(Source::new(gguf.metadata().clone(), Pieces::of_gguf(&gguf), paths))
    }

    fn from_folder(path: &Path) -> Result<Source> {
        let model = LanguageModel::open(path)?;
        let form = export::to_gguf(&model)?;
        Ok(Source::new(form.metadata, form.pieces, model.checkpoint().files.clone()))
    }

    fn new(metadata: Metadata, pieces: Pieces, paths: Vec<PathBuf>) -> Source {
        let infos = pieces.list().iter().map(|piece| piece.info.clone()).collect();
        Source { metadata, infos, pieces, paths }
    }

    pub(super) fn infos(&self) -> &[TensorInfo] {
        &self.infos
    }

    /// The place of a tensor in the list.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(super) fn index(&self, name: &str) -> Result<usize> {
        let found = self.infos.iter().position(|info| info.name == name);
        found.ok_or_else(|| Error::internal(format!("no tensor {name:?}")))
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.paths.clone()
    }

    pub(super) fn tensor_bytes(&self) -> u64 {
        // Sizes were checked when the model was read.
        self.infos.iter().map(|info| info.byte_len().unwrap_or(0) as u64).sum()
    }

    pub(super) fn check_unchanged(&self) -> Result<()> {
        self.pieces.files().iter().try_for_each(InputFile::check_unchanged)
    }

    /// Reads rows of a tensor from row `first` on.
    ///
    /// # Errors
    /// When the system cannot read them.
    pub(super) fn read(&self, tensor: usize, first: usize, out: &mut [u8]) -> Result<()> {
        self.pieces.read(tensor, first, out)
    }

    /// Rows of a tensor from `first` on, as numbers.
    ///
    /// # Errors
    /// When the system cannot read them.
    pub(super) fn numbers(&self, tensor: usize, first: usize, rows: usize) -> Result<Vec<f32>> {
        let info = &self.infos[tensor];
        let row = info.ty.row_bytes(info.row_elements())?;
        let mut raw = vec![0; rows * row];
        self.read(tensor, first, &mut raw)?;
        let mut numbers = vec![0.0; rows * info.row_elements()];
        decode(isa(), info.ty, &raw, &mut numbers)?;
        Ok(numbers)
    }

    /// The metadata of the output.
    pub(super) fn metadata(&self, job: &GgufJob) -> Metadata {
        let mut metadata = self.metadata.clone();
        metadata.set("general.file_type", job.file_type.id());
        metadata.set("general.quantization_version", QUANTIZATION_VERSION);
        if let Some(calibration) = &job.calibration {
            metadata.set("quantize.imatrix.dataset", calibration.name().as_str());
        }
        if let Some(name) = job.importance.as_ref().and_then(|path| path.file_name()) {
            metadata.set("quantize.imatrix.file", name.to_string_lossy().as_ref());
        }
        metadata
    }

    /// What the mixes need to know.
    ///
    /// # Errors
    /// When a value in the metadata is of a wrong type, or the model has experts that the mixes
    /// treat in a way of their own.
    pub(super) fn shape(&self, importance: bool) -> Result<ModelShape> {
        let metadata = &self.metadata;
        let architecture = metadata.find::<&str>("general.architecture")?.unwrap_or("");
        let number = |key: &str| metadata.find::<usize>(&format!("{architecture}.{key}"));
        if number("expert_count")? == Some(8) {
            return Err(Error::unsupported("a model of 8 experts has mixes of its own")
                .code("FB-4704")
                .at(self.paths().first().map(|p| p.display().to_string()).unwrap_or_default()));
        }
        // Some models have a number of heads for each layer: then they count as not shared.
        let heads = number("attention.head_count").unwrap_or(None).unwrap_or(1);
        let kv = number("attention.head_count_kv").unwrap_or(None).unwrap_or(heads);
        Ok(ModelShape {
            architecture: architecture.to_string(),
            layers: number("block_count")?.unwrap_or(0),
            heads_per_kv: heads.checked_div(kv).unwrap_or(1),
            tied: self.infos.iter().all(|info| info.name != "output.weight"),
            importance,
        })
    }
}
