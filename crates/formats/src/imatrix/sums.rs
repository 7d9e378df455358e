//! The GGUF form: sums and counts as tensors (tools/imatrix of llama.cpp).

use super::{Entry, ImportanceMatrix, none};
use crate::atomic::OutputOptions;
use crate::gguf::{self, GgufTensor, Metadata, TensorInfo, Writer};
use bytes::Bytes;
use fewbit_core::codec::block::BlockType;
use fewbit_core::{Error, Result, ResultExt};
use std::path::Path;

const KIND: &str = "general.type";
const DATASETS: &str = "imatrix.datasets";
const CHUNK_COUNT: &str = "imatrix.chunk_count";
const CHUNK_SIZE: &str = "imatrix.chunk_size";
const SUMS: &str = ".in_sum2";
const COUNTS: &str = ".counts";

pub(super) fn read(bytes: &Bytes) -> Result<ImportanceMatrix> {
    let file = gguf::read_bytes(bytes)?;
    let metadata = file.metadata();
    if metadata.find::<&str>(KIND)? != Some("imatrix") {
        return Err(none("a GGUF file, but no importance matrix"));
    }
    let mut found = ImportanceMatrix {
        datasets: metadata.find::<&[String]>(DATASETS)?.unwrap_or_default().to_vec(),
        chunk_count: metadata.find(CHUNK_COUNT)?.unwrap_or_default(),
        chunk_size: metadata.find(CHUNK_SIZE)?.unwrap_or_default(),
        ..Default::default()
    };
    for tensor in file.tensors() {
        let (name, is_sums) =
            match (tensor.name.strip_suffix(SUMS), tensor.name.strip_suffix(COUNTS)) {
                (Some(name), _) => (name, true),
                (None, Some(name)) => (name, false),
                (None, None) => continue,
            };
        let values = values(tensor).at(|| format!("tensor {:?}", tensor.name))?;
        let entry = found.entries.entry(name.to_string()).or_default();
        *(if is_sums { &mut entry.sums } else { &mut entry.counts }) = values;
    }
    Ok(found)
}

fn values(tensor: &GgufTensor) -> Result<Vec<f32>> {
    if tensor.ty != BlockType::F32 {
        let what = format!("is of type {}; sums and counts are F32", tensor.ty);
        return Err(Error::bad_input(what).code("FB-3702"));
    }
    Ok(bytemuck::pod_collect_to_vec(tensor.bytes.as_ref()))
}

pub(super) fn write(
    imatrix: &ImportanceMatrix,
    path: &Path,
    options: &OutputOptions,
) -> Result<u64> {
    let mut metadata = Metadata::default();
    metadata.set(KIND, "imatrix");
    metadata.set(DATASETS, imatrix.datasets.clone());
    metadata.set(CHUNK_COUNT, imatrix.chunk_count);
    metadata.set(CHUNK_SIZE, imatrix.chunk_size);
    let infos: Vec<TensorInfo> = imatrix.entries.iter().flat_map(infos).collect();
    let mut writer = Writer::create(path, &metadata, &infos, options)?;
    for (name, entry) in &imatrix.entries {
        writer.write(&format!("{name}{SUMS}"), bytemuck::cast_slice(&entry.sums))?;
        writer.write(&format!("{name}{COUNTS}"), bytemuck::cast_slice(&entry.counts))?;
    }
    writer.finish()
}

fn infos((name, entry): (&String, &Entry)) -> [TensorInfo; 2] {
    let rows = entry.counts.len();
    let info = |suffix: &str, columns: usize| TensorInfo {
        name: format!("{name}{suffix}"),
        shape: vec![rows, columns],
        ty: BlockType::F32,
    };
    [info(SUMS, entry.sums.len() / rows.max(1)), info(COUNTS, 1)]
}
