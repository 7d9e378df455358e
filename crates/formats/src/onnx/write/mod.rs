//! Writing: the graph to messages, the messages to a stream, the stream to a whole file.

mod graph;
mod stream;
mod tensor;

use super::schema::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto};
use crate::atomic::{OutputFile, OutputOptions, check_destination, commit_all, write_failed};
use crate::limits::MAX_PROTOBUF_BYTES;
use fewbit_core::{Error, Model, Result, ResultExt, SharedBytes};
use graph::Context;
use prost::Message;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tensor::ExternalPlan;

/// Where the weights of a written model go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalData {
    /// Into the model file, unless it would be larger than protobuf allows (2 GiB).
    #[default]
    Auto,
    /// Into the model file; a model that is too large is refused.
    Never,
    /// Into `OUT.data` beside the model; small tensors stay in the model.
    Always,
}

/// How to write a model.
#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    /// Where the weights go.
    pub external_data: ExternalData,
    /// Refuse to replace files that exist.
    pub keep_existing: bool,
    /// Files the model was made from; none of them is ever replaced.
    pub inputs: Vec<PathBuf>,
}

/// Writes a model, whole or not at all, and returns the bytes of all files together.
///
/// # Errors
/// When the destination is an input or must be kept, the disk is full, or the model is too large
/// for one file and `external_data` is `Never`.
pub fn write(model: &Model, path: &Path, options: &WriteOptions) -> Result<u64> {
    let output = OutputOptions {
        inputs: options.inputs.clone(),
        keep_existing: options.keep_existing,
        expected_bytes: 0,
    };
    check_destination(path, &output)?;
    let (proto, external) = plan(model, path, options.external_data)?;
    let side = match external.filter(|plan| !plan.parts.is_empty()) {
        None => None,
        Some(plan) => Some(write_parts(&plan, path, &output)?),
    };
    let expected_bytes = proto.encoded_len() as u64;
    let mut file = OutputFile::create(path, &OutputOptions { expected_bytes, ..output })?;
    stream::model(proto, &mut file).map_err(|e| write_failed(path, &e))?;
    // An old model must never be seen with new weights, nor a new one without.
    commit_all(side.into_iter().chain([file]).collect())
}

/// The encoded model in memory, weights included.
///
/// # Errors
/// When the model is larger than protobuf allows.
pub fn to_bytes(model: &Model) -> Result<Vec<u8>> {
    let mut context = context(model, None);
    let proto = encode_model(model, &mut context)?;
    check_size(&proto)?;
    let mut bytes = Vec::with_capacity(proto.encoded_len());
    let written = stream::model(proto, &mut bytes);
    written.map_err(|e| Error::internal(format!("writing to memory failed: {e}")))?;
    Ok(bytes)
}

fn plan(
    model: &Model,
    path: &Path,
    external_data: ExternalData,
) -> Result<(ModelProto, Option<ExternalPlan>)> {
    if external_data != ExternalData::Always {
        let proto = encode_model(model, &mut context(model, None))?;
        let fits = check_size(&proto);
        if fits.is_ok() || external_data == ExternalData::Never {
            return fits.map(|()| (proto, None));
        }
    }
    let mut context = context(model, Some(ExternalPlan::new(data_name(path)?)));
    let proto = encode_model(model, &mut context)?;
    check_size(&proto)?;
    Ok((proto, context.external))
}

fn context(model: &Model, external: Option<ExternalPlan>) -> Context {
    Context { initializers_are_inputs: model.ir_version < 4, external }
}

fn check_size(proto: &ModelProto) -> Result<()> {
    let len = proto.encoded_len() as u64;
    if len <= MAX_PROTOBUF_BYTES {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "the model file would have {len} bytes; protobuf allows {MAX_PROTOBUF_BYTES}"
    ))
    .code("FB-4108")
    .hint("let the weights go to a file of their own (external data)"))
}

/// `OUT.data`, which must be text, as the model names it.
fn data_name(path: &Path) -> Result<String> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        Error::usage("external data needs an output name in UTF-8").code("FB-2103")
    })?;
    Ok(format!("{name}.data"))
}

/// Writes the external data file up to, but not including, its commit.
fn write_parts(plan: &ExternalPlan, path: &Path, options: &OutputOptions) -> Result<OutputFile> {
    let path = path.with_file_name(&plan.location);
    let options = OutputOptions { expected_bytes: plan.end, ..options.clone() };
    let mut file = OutputFile::create(&path, &options)?;
    for (start, bytes) in &plan.parts {
        let written =
            pad(&mut file, *start).and_then(|()| file.write_all(SharedBytes::as_ref(bytes)));
        written.map_err(|e| write_failed(&path, &e))?;
    }
    Ok(file)
}

fn pad(file: &mut OutputFile, start: u64) -> io::Result<()> {
    let gap = start.saturating_sub(file.written());
    io::copy(&mut io::repeat(0).take(gap), file).map(drop)
}

fn encode_model(model: &Model, context: &mut Context) -> Result<ModelProto> {
    let text = |s: &String| (!s.is_empty()).then(|| s.clone());
    let carried: ModelProto = graph::decode(&model.carried)?;
    let graph: GraphProto = graph::encode_graph(&model.graph, context).at(|| "graph")?;
    Ok(ModelProto {
        ir_version: Some(model.ir_version),
        opset_import: model.opsets.iter().map(opset).collect(),
        producer_name: text(&model.producer.0),
        producer_version: text(&model.producer.1),
        domain: text(&model.domain),
        model_version: (model.model_version != 0).then_some(model.model_version),
        doc_string: text(&model.doc),
        graph: Some(graph),
        metadata_props: model.metadata.iter().map(entry).collect(),
        training_info: carried.training_info,
        functions: Vec::new(),
        configuration: carried.configuration,
    })
}

fn opset((domain, version): &(String, i64)) -> OperatorSetIdProto {
    OperatorSetIdProto { domain: Some(domain.clone()), version: Some(*version) }
}

fn entry((key, value): &(String, String)) -> StringStringEntryProto {
    StringStringEntryProto { key: Some(key.clone()), value: Some(value.clone()) }
}
