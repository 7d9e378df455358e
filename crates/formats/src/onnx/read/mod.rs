//! Reading: scan the bytes, decode the messages, inline functions, build the graph, verify it.

mod attribute;
mod constant;
mod external;
mod function;
mod graph;
mod tensor;
mod types;

use super::scan::{Kind, scan};
use super::schema::{ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto};
use crate::detect::{Format, detect, require_onnx};
use crate::mmap::{InputFile, shown};
use bytes::Bytes;
use external::External;
use fewbit_core::{Error, Graph, Model, Result, ResultExt, Tensor};
use prost::Message;
use std::ops::RangeInclusive;
use std::path::Path;

/// IR versions of the file format that are read.
pub const IR_VERSIONS: RangeInclusive<i64> = 3..=14;

/// Versions of the default operator set that are read.
pub const OPSETS: RangeInclusive<i64> = 1..=28;

/// What the parts of the reader share.
struct Context {
    external: External,
}

/// Reads a model. Weights are views into the mapped file (and into its external data files).
///
/// # Errors
/// When the file is damaged or no ONNX model (`BadInput`), or sound but of a kind that fewbit
/// does not know (`Unsupported`). The place names the file, the field and, for damage to the
/// encoding itself, the byte.
pub fn read(path: &Path) -> Result<Model> {
    read_with_files(path).map(|(model, _)| model)
}

/// Like [`read`], with all files the model is a view of: the model file first, then external data.
///
/// # Errors
/// See [`read`].
pub fn read_with_files(path: &Path) -> Result<(Model, Vec<InputFile>)> {
    let file = InputFile::open(path)?;
    let context = Context { external: External::beside(&file, path) };
    let model = decode_model(file.bytes(), &context).at(|| shown(path))?;
    let mut files = vec![file];
    files.extend(context.external.into_files());
    files.iter().try_for_each(InputFile::check_unchanged)?;
    Ok((model, files))
}

/// Reads a model from memory; weights are views into `bytes`. External data is looked for in
/// and below `base`, and refused without one.
///
/// # Errors
/// See [`read`].
pub fn read_bytes(bytes: Bytes, base: Option<&Path>) -> Result<Model> {
    decode_model(&bytes, &Context { external: External::new(base) })
}

/// Reads one tensor from a `.pb` file, as the ONNX backend tests store them.
///
/// # Errors
/// When the file holds anything else than one sound `TensorProto`.
pub fn read_tensor(path: &Path) -> Result<Tensor> {
    let file = InputFile::open(path)?;
    let proto = decode_tensor(file.bytes()).at(|| shown(path))?;
    tensor::decode(&proto, &External::beside(&file, path)).at(|| shown(path))
}

/// Decodes an encoded `TensorProto`, without external data.
///
/// # Errors
/// When the message is damaged or contradicts itself.
pub fn tensor_from_bytes(bytes: &Bytes) -> Result<Tensor> {
    tensor_from_proto(&decode_tensor(bytes)?)
}

/// Converts a decoded `TensorProto`, without external data.
///
/// # Errors
/// When the message contradicts itself.
pub fn tensor_from_proto(proto: &TensorProto) -> Result<Tensor> {
    tensor::decode(proto, &External::default())
}

fn decode_tensor(bytes: &Bytes) -> Result<TensorProto> {
    scan(bytes, Kind::Tensor).map_err(|e| e.hint("is this a `TensorProto`?"))?;
    TensorProto::decode(bytes.clone()).map_err(undecodable)
}

fn undecodable(error: prost::DecodeError) -> Error {
    Error::bad_input(format!("damaged: {error}")).code("FB-3201")
}

fn decode_model(bytes: &Bytes, context: &Context) -> Result<Model> {
    require_onnx(bytes)?;
    scan(bytes, Kind::Model).map_err(|e| unrecognized(e, bytes))?;
    let mut proto = ModelProto::decode(bytes.clone()).map_err(undecodable)?;
    check_header(&proto)?;
    function::inline(&mut proto)?;
    let opsets = opsets(&proto.opset_import)?;
    let graph = proto.graph.take().ok_or_else(no_graph)?;
    let graph = graph::build(graph, context).at(|| "graph")?;
    graph.verify(None).at(|| "graph")?;
    require_default_opset(&graph, &opsets)?;
    let carried = ModelProto {
        training_info: std::mem::take(&mut proto.training_info),
        configuration: std::mem::take(&mut proto.configuration),
        ..Default::default()
    };
    Ok(Model {
        graph,
        opsets,
        ir_version: proto.ir_version(),
        model_version: proto.model_version(),
        producer: (
            proto.producer_name.unwrap_or_default(),
            proto.producer_version.unwrap_or_default(),
        ),
        domain: proto.domain.unwrap_or_default(),
        doc: proto.doc_string.unwrap_or_default(),
        metadata: proto.metadata_props.into_iter().map(entry).collect(),
        carried: carried.encode_to_vec(),
    })
}

fn entry(entry: StringStringEntryProto) -> (String, String) {
    (entry.key.unwrap_or_default(), entry.value.unwrap_or_default())
}

/// Damage in something that does not even begin like a model deserves a plainer message.
fn unrecognized(error: Error, bytes: &[u8]) -> Error {
    if detect(bytes) == Some(Format::Onnx) {
        return error.hint("the file is damaged or cut off; get it again");
    }
    Error::bad_input(format!("not an ONNX model, nor any other known format ({error})"))
        .code("FB-3004")
        .hint("fewbit reads ONNX, GGUF and safetensors")
}

fn no_graph() -> Error {
    Error::bad_input("the model has no graph").code("FB-3210").hint("is this an ONNX model?")
}

fn check_header(proto: &ModelProto) -> Result<()> {
    if proto.graph.is_none() {
        return Err(no_graph());
    }
    let version = proto.ir_version();
    if IR_VERSIONS.contains(&version) {
        return Ok(());
    }
    let (first, last) = (IR_VERSIONS.start(), IR_VERSIONS.end());
    let what = format!("`ir_version` is {version}; {first} to {last} are read");
    Err(match version {
        ..=0 => Error::bad_input(what).code("FB-3211"),
        _ => Error::unsupported(what)
            .code("FB-4105")
            .hint("export the model with another version of the onnx package"),
    })
}

/// Checks the imported operator sets and drops repetitions.
fn opsets(imports: &[OperatorSetIdProto]) -> Result<Vec<(String, i64)>> {
    let mut opsets: Vec<(String, i64)> = Vec::new();
    for (index, import) in imports.iter().enumerate() {
        let (domain, version) = (import.domain(), import.version());
        check_opset(domain, version).at(|| format!("opset_import[{index}]"))?;
        match opsets.iter().find(|(known, _)| same_domain(known, domain)) {
            None => opsets.push((domain.to_string(), version)),
            Some((_, known)) if *known == version => {}
            Some((_, known)) => {
                let what = format!("domain {domain:?} in version {known} and in version {version}");
                return Err(Error::bad_input(what)
                    .code("FB-3212")
                    .at(format!("opset_import[{index}]")));
            }
        }
    }
    if opsets.is_empty() {
        return Err(Error::bad_input("no `opset_import`: operators have no meaning without one")
            .code("FB-3212"));
    }
    Ok(opsets)
}

fn is_default(domain: &str) -> bool {
    domain.is_empty() || domain == "ai.onnx"
}

fn same_domain(a: &str, b: &str) -> bool {
    a == b || (is_default(a) && is_default(b))
}

fn check_opset(domain: &str, version: i64) -> Result<()> {
    let (first, last) = (OPSETS.start(), OPSETS.end());
    if version < 1 || i32::try_from(version).is_err() {
        let what = format!("version {version} of domain {domain:?}; 1 to {last} exist");
        return Err(Error::bad_input(what).code("FB-3212"));
    }
    if is_default(domain) && !OPSETS.contains(&version) {
        let what = format!("operator set {version}; {first} to {last} are read");
        return Err(Error::unsupported(what)
            .code("FB-4105")
            .hint("export the model with `opset_version=21`"));
    }
    Ok(())
}

fn require_default_opset(graph: &Graph, opsets: &[(String, i64)]) -> Result<()> {
    let imported = opsets.iter().any(|(domain, _)| is_default(domain));
    let user = graph.nodes().find(|(_, node)| is_default(&node.domain));
    match user {
        Some((id, _)) if !imported => {
            let what = "an operator of the default domain, which `opset_import` does not name";
            Err(Error::bad_input(what).code("FB-3212").at(graph.label(id)))
        }
        _ => Ok(()),
    }
}

/// Puts external data of a tensor that is passed on as it is into the message itself.
fn embed(proto: &mut TensorProto, external: &External) -> Result<()> {
    let tensor = tensor::decode(proto, external)?;
    if proto.data_location.unwrap_or(0) != 0 {
        proto.data_location = None;
        proto.external_data.clear();
        proto.raw_data = Some(Bytes::copy_from_slice(tensor.bytes()));
    }
    Ok(())
}
