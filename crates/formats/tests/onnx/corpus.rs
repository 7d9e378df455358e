//! Every model of the zoo and of the ONNX backend test suite: read, written, read again.

use bytes::Bytes;
use fewbit_core::{ErrorKind, Tensor};
use fewbit_formats::onnx::schema::{AttributeProto, GraphProto, ModelProto, NodeProto};
use fewbit_formats::onnx::{self, ExternalData, WriteOptions};
use prost::Message;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

fn files_below(dir: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files_below(&path, extension, found);
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
}

/// The models of the zoo; none when it is not there.
fn zoo() -> Vec<PathBuf> {
    let mut found = Vec::new();
    match std::env::var_os("FEWBIT_ZOO") {
        Some(dir) => files_below(Path::new(&dir), "onnx", &mut found),
        None => eprintln!("skipped: FEWBIT_ZOO is not set"),
    }
    found
}

/// The Python of the oracle environment, `None` when there is none.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("FEWBIT_PYTHON").map(PathBuf::from);
    if python.is_none() {
        eprintln!("skipped: FEWBIT_PYTHON is not set");
    }
    python
}

/// The folder with the backend suite of the installed onnx package.
fn backend_data(python: &Path) -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus");
        if folder.exists() {
            std::fs::remove_dir_all(&folder).unwrap();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../exec/tests/backend_cases.py");
        let output = Command::new(python).arg(script).arg(&folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        folder
    })
}

/// Nodes in the form that reading and writing leaves: no empty texts, tensors raw, attributes
/// with a kind, `Constant` nodes among the weights.
fn normal(graph: &GraphProto, weights: &mut BTreeMap<String, Tensor>) -> Vec<NodeProto> {
    for tensor in &graph.initializer {
        weights.insert(tensor.name().to_string(), onnx::tensor_from_proto(tensor).unwrap());
    }
    let mut nodes = Vec::new();
    for node in &graph.node {
        if let ("Constant", "", [AttributeProto { t: Some(value), .. }]) =
            (node.op_type(), node.domain(), &node.attribute[..])
        {
            weights.insert(node.output[0].clone(), onnx::tensor_from_proto(value).unwrap());
            continue;
        }
        let folded = [
            "value_float",
            "value_floats",
            "value_int",
            "value_ints",
            "value_string",
            "value_strings",
        ];
        if node.op_type() == "Constant" && folded.contains(&node.attribute[0].name()) {
            continue;
        }
        nodes.push(NodeProto {
            name: text(&node.name),
            doc_string: text(&node.doc_string),
            domain: text(&node.domain),
            attribute: node.attribute.iter().map(normal_attribute).collect(),
            ..node.clone()
        });
    }
    nodes
}

fn text(text: &Option<String>) -> Option<String> {
    text.clone().filter(|t| !t.is_empty())
}

/// The bytes of tensors and the nodes of subgraphs stand for them.
fn normal_attribute(attribute: &AttributeProto) -> AttributeProto {
    let mut normal =
        AttributeProto { doc_string: text(&attribute.doc_string), ..attribute.clone() };
    if let Some(tensor) = normal.t.take() {
        let value = onnx::tensor_from_proto(&tensor).unwrap();
        normal.s = Some(Bytes::copy_from_slice(value.bytes()));
        normal.ints = tensor.dims;
    }
    let graphs: Vec<GraphProto> =
        normal.g.take().into_iter().chain(normal.graphs.drain(..)).collect();
    for graph in graphs {
        let mut weights = BTreeMap::new();
        let nodes = self::normal(&graph, &mut weights);
        normal.strings.extend(nodes.iter().map(|n| Bytes::from(n.encode_to_vec())));
    }
    normal
}

/// Compares what a file says with what was written of it.
fn assert_same(original: &ModelProto, written: &ModelProto, name: &str) {
    let (before, after) = (original.graph.as_ref().unwrap(), written.graph.as_ref().unwrap());
    let (mut weights_before, mut weights_after) = (BTreeMap::new(), BTreeMap::new());
    let (nodes_before, nodes_after) =
        (normal(before, &mut weights_before), normal(after, &mut weights_after));
    assert_eq!(nodes_before.len(), nodes_after.len(), "{name}: nodes");
    for (before, after) in nodes_before.iter().zip(&nodes_after) {
        assert_eq!(before, after, "{name}");
    }
    for (weight, tensor) in &weights_before {
        assert!(weights_after.get(weight) == Some(tensor), "{name}: weight {weight}");
    }
    let names = |g: &GraphProto| -> Vec<String> {
        g.input.iter().chain(&g.output).map(|v| v.name().to_string()).collect()
    };
    assert_eq!(names(before), names(after), "{name}: inputs and outputs");
    assert_eq!(original.opset_import.len(), written.opset_import.len(), "{name}: opsets");
    assert_eq!(original.metadata_props, written.metadata_props, "{name}: metadata");
    assert_eq!(original.producer_name(), written.producer_name(), "{name}: producer");
}

/// Reads, writes and reads again; both models must encode to the same bytes.
fn round_trip(path: &Path) -> Result<Vec<u8>, fewbit_core::Error> {
    let model = onnx::read(path)?;
    let first = onnx::to_bytes(&model)?;
    let again = onnx::read_bytes(Bytes::from(first.clone()), None)
        .unwrap_or_else(|e| panic!("{}: {e:?}", path.display()));
    let second = onnx::to_bytes(&again)?;
    assert!(first == second, "{}: the second copy differs", path.display());
    Ok(first)
}

#[test]
fn zoo_models_survive_the_round_trip() {
    for path in zoo() {
        let written = round_trip(&path).unwrap_or_else(|e| panic!("{e:?}"));
        let original = ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
        let written = ModelProto::decode(&written[..]).unwrap();
        assert_same(&original, &written, &path.display().to_string());
    }
}

#[test]
fn zoo_weights_are_views_into_the_file() {
    for path in zoo() {
        let model = onnx::read(&path).unwrap();
        let original = ModelProto::decode(&std::fs::read(&path).unwrap()[..]).unwrap();
        for proto in original.graph.unwrap().initializer {
            let tensor =
                model.graph.constant(model.graph.find_value(proto.name()).unwrap()).unwrap();
            let is_view = tensor.shared_bytes().is_some_and(|b| b.is_view());
            assert_eq!(is_view, proto.raw_data.is_some(), "{}", proto.name());
        }
    }
}

/// Models of the backend suite that are refused, with the reason.
const REFUSED: &[(&str, &str)] = &[];

#[test]
fn backend_models_survive_the_round_trip() {
    let Some(python) = python() else { return };
    let mut found = Vec::new();
    files_below(backend_data(&python), "onnx", &mut found);
    assert!(found.len() >= 1_900, "{} models", found.len());
    let mut refused = Vec::new();
    for path in &found {
        let name = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        match round_trip(path) {
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Unsupported, "{e:?}");
                refused.push((name, e.to_string()));
            }
            Ok(written) => {
                let original = ModelProto::decode(&std::fs::read(path).unwrap()[..]).unwrap();
                if original.functions.is_empty() {
                    assert_same(&original, &ModelProto::decode(&written[..]).unwrap(), &name);
                }
            }
        }
    }
    let names: Vec<&str> = refused.iter().map(|(name, _)| name.as_str()).collect();
    let expected: Vec<&str> = REFUSED.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, expected, "{refused:?}");
}

#[test]
fn backend_tensors_are_read_or_refused() {
    let Some(python) = python() else { return };
    let mut found = Vec::new();
    files_below(backend_data(&python), "pb", &mut found);
    let mut read = 0;
    for path in &found {
        match onnx::read_tensor(path) {
            Ok(tensor) => {
                read += 1;
                let proto = onnx::schema::TensorProto::decode(&std::fs::read(path).unwrap()[..]);
                assert_eq!(tensor.rank(), proto.unwrap().dims.len());
            }
            Err(e) => assert!(matches!(e.kind().exit_code(), 3 | 4), "{e:?}"),
        }
    }
    assert!(read * 100 >= found.len() * 95, "{read} of {}", found.len());
}

#[test]
fn the_onnx_checker_accepts_what_is_written() {
    let Some(python) = python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut found = zoo();
    files_below(backend_data(&python), "onnx", &mut found);
    let mut list = String::new();
    for (index, path) in found.iter().enumerate() {
        let Ok(model) = onnx::read(path) else { continue };
        let written = dir.path().join(format!("{index}.onnx"));
        // Whole files are brought to the disk, which takes its time; some of them are enough.
        if index % 16 == 0 {
            let external_data = ExternalData::Always;
            let options = WriteOptions { external_data, ..Default::default() };
            onnx::write(&model, &written, &options).unwrap();
        } else {
            std::fs::write(&written, onnx::to_bytes(&model).unwrap()).unwrap();
        }
        list += &format!("{}\t{}\n", path.display(), written.display());
    }
    let names = dir.path().join("list");
    std::fs::write(&names, list).unwrap();
    let script = "\
import onnx, sys
bad = []
for line in open(sys.argv[1]):
    original, written = line.rstrip('\\n').split('\\t')
    try:
        onnx.checker.check_model(original)
    except Exception:
        continue  # not sound before either
    try:
        onnx.checker.check_model(written)
    except Exception as e:
        bad.append(f'{original}: {e}')
print('\\n'.join(bad))
";
    let output = Command::new(python).args(["-c", script]).arg(&names).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "");
}
