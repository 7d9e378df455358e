//! The model that is read: its tensors by pieces, so that mapped pages do not pile up.

use super::GgufJob;
use fewbit_core::{Error, Result};
use fewbit_formats::gguf::{self, GgufFile, Metadata, TensorInfo};
use fewbit_quant::algo::mix::ModelShape;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The version of the block formats.
const QUANTIZATION_VERSION: u32 = 2;

/// Where a tensor's bytes lie.
struct Place {
    file: usize,
    offset: u64,
}

/// An open GGUF model.
pub(super) struct Source {
    gguf: GgufFile,
    infos: Vec<TensorInfo>,
    places: Vec<Place>,
    files: Vec<File>,
}

impl Source {
    /// # Errors
    /// When the file is damaged or cannot be read.
    pub(super) fn open(path: &Path) -> Result<Source> {
        let gguf = gguf::read(path)?;
        let open = |file: &fewbit_formats::mmap::InputFile| {
            File::open(file.path()).map_err(|e| unreadable(file.path(), &e))
        };
        let files = gguf.files().iter().map(open).collect::<Result<Vec<_>>>()?;
        let infos = gguf.tensors().iter().map(|t| t.info.clone()).collect();
        let place = |t: &gguf::GgufTensor| {
            let start = gguf.files()[t.file].bytes().as_ptr().addr();
            let offset = t.bytes.as_ref().as_ptr().addr().wrapping_sub(start) as u64;
            // Tensors without elements lie nowhere, and are never read.
            Place { file: t.file, offset }
        };
        let places = gguf.tensors().iter().map(place).collect();
        Ok(Source { gguf, infos, places, files })
    }

    pub(super) fn infos(&self) -> &[TensorInfo] {
        &self.infos
    }

    pub(super) fn paths(&self) -> Vec<PathBuf> {
        self.gguf.files().iter().map(|f| f.path().to_path_buf()).collect()
    }

    pub(super) fn tensor_bytes(&self) -> u64 {
        self.gguf.tensor_bytes()
    }

    pub(super) fn check_unchanged(&self) -> Result<()> {
        self.gguf.check_unchanged()
    }

    /// Reads bytes of a tensor from `start` on; not through the map, whose pages would count as
    /// memory of this process until the end.
    ///
    /// # Errors
    /// When the system cannot read them.
    pub(super) fn read(&self, tensor: usize, start: usize, out: &mut [u8]) -> Result<()> {
        let place = &self.places[tensor];
        let path = self.gguf.files()[place.file].path();
        let file = &self.files[place.file];
        file.read_exact_at(out, place.offset + start as u64)
            .map_err(|e| unreadable(path, &e).at(format!("tensor {:?}", self.infos[tensor].name)))
    }

    /// The metadata of the output.
    pub(super) fn metadata(&self, job: &GgufJob) -> Metadata {
        let mut metadata = self.gguf.metadata().clone();
        metadata.set("general.file_type", job.file_type.id());
        metadata.set("general.quantization_version", QUANTIZATION_VERSION);
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
        let metadata = self.gguf.metadata();
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
            tied: self.gguf.get("output.weight").is_none(),
            importance,
        })
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::resource(format!("cannot read: {error}")).code("FB-5303").at(path.display().to_string())
}
