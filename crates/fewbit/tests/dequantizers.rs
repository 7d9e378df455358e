//! Folders in the layouts of GPTQ and AWQ, through the dequantizers of the libraries themselves:
//! GPTQModel and AutoAWQ find the numbers that fewbit reads.
//!
//! Not for CI: `FEWBIT_DEQUANTIZERS` names a Python in which both can be imported
//! (`pip download --no-deps --no-binary :all:` and `PYTHONPATH` do). `FEWBIT_LANGUAGE_MODEL` may
//! name a float GGUF file or folder beside the small random model.

mod random;

use fewbit::formats::safetensors::{self, SafetensorsFile};
use fewbit::llm::{LanguageModel, Weight};
use fewbit::{FolderJob, FolderType, Silent};
use random::{folder, random};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Those of a layer.
const MATRICES: [&str; 7] =
    ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];

fn path(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from)
}

/// The matrices of the folder, `f32[outputs, inputs]`, as the library gives them.
fn theirs(python: &Path, folder: &Path, out: &Path) -> SafetensorsFile {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ask_dequantizers.py");
    let status = Command::new(python).arg(script).arg(folder).arg(out).status().unwrap();
    assert!(status.success());
    safetensors::read(out).unwrap()
}

/// Shape and numbers of a matrix, from its codes.
fn numbers(weight: &Weight) -> (Vec<usize>, Vec<f32>) {
    let coded = weight.coded.as_ref().unwrap();
    let (codes, scales) = (weight.tensor.to_f32().unwrap(), coded.scales.to_f32().unwrap());
    let zeros = coded.zeros.as_ref().unwrap().to_f32().unwrap();
    let number =
        |(i, code): (usize, &f32)| (code - zeros[i / coded.group]) * scales[i / coded.group];
    (weight.shape.clone(), codes.iter().enumerate().map(number).collect())
}

fn compare(python: &Path, model: &Path, ty: FolderType, group: usize) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("quantized");
    let mut job = FolderJob::new(model, ty);
    job.group = group;
    job.run(&out, false, &Silent).unwrap();
    let theirs = theirs(python, &out, &dir.path().join("theirs.safetensors"));
    let opened = LanguageModel::open(&out).unwrap();
    let weights = &opened.checkpoint().weights;
    let layers = opened.decoder().unwrap().layers.len();
    for name in (0..layers).flat_map(|layer| MATRICES.map(|m| format!("blk.{layer}.{m}.weight"))) {
        let (shape, ours) = numbers(&weights.get(&name).unwrap().unwrap());
        let found = theirs.require(&weights.stored_name(&name)).unwrap();
        assert_eq!(shape, found.shape, "{name}");
        // They multiply in 16 bits.
        for (a, b) in ours.iter().zip(found.to_tensor().unwrap().to_f32().unwrap()) {
            assert!((a - b).abs() <= a.abs() / 1024.0, "{name}: {a} {b}");
        }
    }
    println!("{} {}: {} matrices are equal", model.display(), ty.name(), layers * MATRICES.len());
}

#[test]
fn the_libraries_find_the_same_numbers() {
    let Some(python) = path("FEWBIT_DEQUANTIZERS") else {
        eprintln!("skipped: FEWBIT_DEQUANTIZERS is not set");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let float = dir.path().join("float");
    folder(&float, &random());
    let more = path("FEWBIT_LANGUAGE_MODEL");
    for ty in [FolderType::Gptq4, FolderType::Gptq8, FolderType::Awq] {
        compare(&python, &float, ty, 32);
        if let Some(model) = &more {
            compare(&python, model, ty, 64);
        }
    }
}
