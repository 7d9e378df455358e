//! GGUF files through the quantizer: types, losses, sameness, and what is refused.

use fewbit::formats::atomic::OutputOptions;
use fewbit::formats::gguf::{Metadata, PartLimits, TensorInfo, Writer, part_path, read};
use fewbit::formats::imatrix::{Entry, ImportanceMatrix};
use fewbit::quant::algo::mix::FileType;
use fewbit::{GgufJob, GgufReport, Result, Silent};
use fewbit_core::codec::block::BlockType;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name, shape, type.
const TENSORS: &[(&str, &[usize], BlockType)] = &[
    ("token_embd.weight", &[96, 512], BlockType::F16),
    ("blk.0.attn_norm.weight", &[512], BlockType::F32),
    ("blk.0.attn_v.weight", &[64, 512], BlockType::F32),
    ("blk.0.ffn_up.weight", &[70, 512], BlockType::BF16),
    ("blk.0.ffn_down.weight", &[512, 96], BlockType::F16),
    ("output_norm.weight", &[512], BlockType::F32),
    ("output.weight", &[700, 512], BlockType::F16),
];

fn number(i: usize) -> f32 {
    let noise = (i as u32).wrapping_mul(2_654_435_761) >> 8;
    (noise as f32 / (1 << 23) as f32 - 1.0) * (0.02 + (i % 7) as f32 * 0.01)
}

fn stored(ty: BlockType, x: f32) -> Vec<u8> {
    match ty {
        BlockType::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
        BlockType::BF16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    }
}

/// A small model; `spoil` puts a NaN into the first matrix.
fn model(dir: &Path, spoil: bool) -> PathBuf {
    let path = dir.join("model.gguf");
    let mut metadata: Metadata = [("general.architecture", "llama")].into_iter().collect();
    metadata.set("llama.block_count", 1u32);
    metadata.set("llama.attention.head_count", 8u32);
    metadata.set("llama.attention.head_count_kv", 2u32);
    let infos = TENSORS.iter().map(|(name, shape, ty)| {
        let (name, shape) = (name.to_string(), shape.to_vec());
        TensorInfo { name, shape, ty: *ty }
    });
    let infos: Vec<TensorInfo> = infos.collect();
    let options = OutputOptions::default();
    let mut writer = Writer::create(&path, &metadata, &infos, &options).unwrap();
    for info in &infos {
        let elements = info.shape.iter().product();
        let value = |i: usize| if spoil && i == 1000 { f32::NAN } else { number(i) };
        let bytes: Vec<u8> = (0..elements).flat_map(|i| stored(info.ty, value(i))).collect();
        writer.write(&info.name, &bytes).unwrap();
    }
    writer.finish().unwrap();
    path
}

fn run(model: &Path, out: &Path, file_type: FileType, threads: usize) -> Result<GgufReport> {
    let mut job = GgufJob::new(model, file_type);
    job.threads = threads;
    job.run(out, true, &Silent)
}

fn types(path: &Path) -> Vec<String> {
    read(path).unwrap().tensors().iter().map(|t| t.ty.to_string()).collect()
}

#[test]
fn types_are_those_of_the_mix() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (model(dir.path(), false), dir.path().join("out.gguf"));
    let report = run(&model, &out, FileType::Q4KM, 1).unwrap();
    assert_eq!(types(&out), ["Q4_K", "F32", "Q6_K", "Q4_K", "Q8_0", "F32", "Q6_K"]);
    // Rows of 96 are no whole blocks of Q6_K.
    assert_eq!(report.tensors[4].instead_of, Some("Q6_K"));
    assert_eq!(report.substituted(), 1);
    assert_eq!(report.file_bytes, std::fs::metadata(&out).unwrap().len());
    let found = read(&out).unwrap();
    assert_eq!(found.metadata().require::<u32>("general.file_type").unwrap(), FileType::Q4KM.id());
    assert_eq!(found.metadata().require::<u32>("llama.block_count").unwrap(), 1);
}

#[test]
fn losses_are_those_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (model(dir.path(), false), dir.path().join("out.gguf"));
    for file_type in [FileType::Q8_0, FileType::Q4_0, FileType::Q2K, FileType::F16] {
        let report = run(&model, &out, file_type, 0).unwrap();
        let (before, after) = (read(&model).unwrap(), read(&out).unwrap());
        for (line, (a, b)) in
            report.tensors.iter().zip(before.tensors().iter().zip(after.tensors()))
        {
            let (x, y) = (a.to_f32().unwrap(), b.to_f32().unwrap());
            let pairs = || x.as_slice::<f32>().unwrap().iter().zip(y.as_slice::<f32>().unwrap());
            let error: f64 = pairs().map(|(x, y)| f64::from(x - y).powi(2)).sum();
            let signal: f64 = pairs().map(|(x, _)| f64::from(*x).powi(2)).sum();
            let loss = line.loss.unwrap_or(0.0);
            assert!((loss - error / signal).abs() <= 1e-3 * loss + 1e-9, "{line:?}");
        }
    }
}

#[test]
fn predictions_are_close() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (model(dir.path(), false), dir.path().join("out.gguf"));
    let report = run(&model, &out, FileType::Q4KM, 0).unwrap();
    let predicted = GgufJob::new(&model, FileType::Q4KM).predict(&Silent).unwrap();
    assert_eq!(predicted.file_bytes, report.file_bytes);
    for (a, b) in predicted.tensors.iter().zip(&report.tensors) {
        assert_eq!((a.to, a.bytes, a.loss.is_some()), (b.to, b.bytes, b.loss.is_some()));
        let (a, b) = (a.loss.unwrap_or(1.0), b.loss.unwrap_or(1.0));
        assert!((0.7..1.4).contains(&(a / b)), "{a} {b}");
    }
}

#[test]
fn threads_do_not_change_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path(), false);
    let files = [1, 2, 5].map(|threads| {
        let out = dir.path().join(format!("{threads}.gguf"));
        let report = run(&model, &out, FileType::Iq4Nl, threads).unwrap();
        let losses: Vec<Option<f64>> = report.tensors.iter().map(|t| t.loss).collect();
        (std::fs::read(out).unwrap(), losses)
    });
    assert!(files.iter().all(|f| *f == files[0]));
}

#[test]
fn importance_matters_and_must_fit() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (model(dir.path(), false), dir.path().join("out.gguf"));
    let importance = |name: &str, columns: usize| {
        let sums = (0..columns).map(|i| if i % 16 == 0 { 90.0 } else { 1.0 }).collect();
        let entry = Entry { sums, counts: vec![10.0] };
        let entries = BTreeMap::from([(name.to_string(), entry)]);
        let path = dir.path().join("imatrix.gguf");
        let matrix = ImportanceMatrix { entries, chunk_size: 512, ..Default::default() };
        matrix
            .write(&path, fewbit::formats::imatrix::Form::Gguf, &OutputOptions::default())
            .unwrap();
        path
    };
    let mut job = GgufJob::new(&model, FileType::Q4_0);
    let plain = job.run(&out, true, &Silent).unwrap();
    job.importance = Some(importance("blk.0.ffn_up.weight", 512));
    let weighted = job.run(&out, true, &Silent).unwrap();
    let index = 3;
    assert!(weighted.tensors[index].important && !plain.tensors[index].important);
    assert!(weighted.tensors[index].loss < plain.tensors[index].loss);
    assert_eq!(weighted.tensors[2].loss, plain.tensors[2].loss);

    job.importance = Some(importance("blk.0.ffn_up.weight", 64));
    let error = job.run(&out, true, &Silent).unwrap_err();
    assert_eq!(error.stable_code(), "FB-3705");
    job.importance = Some(importance("of.another.model", 512));
    let error = job.run(&out, true, &Silent).unwrap_err();
    assert_eq!(error.stable_code(), "FB-3705");
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (sound, out) = (model(dir.path(), false), dir.path().join("out.gguf"));
    let mut job = GgufJob::new(&sound, FileType::Q4KM);
    job.fallback = false;
    assert_eq!(job.run(&out, false, &Silent).unwrap_err().stable_code(), "FB-4702");
    assert!(!out.exists());

    run(&sound, &out, FileType::Q8_0, 0).unwrap();
    let again = run(&out, &dir.path().join("again.gguf"), FileType::Q4_0, 0).unwrap_err();
    assert_eq!(again.stable_code(), "FB-4703");
    let itself = run(&sound, &sound, FileType::Q8_0, 0).unwrap_err();
    assert_eq!(itself.kind().exit_code(), 2);
    let kept = GgufJob::new(&sound, FileType::Q8_0).run(&out, false, &Silent).unwrap_err();
    assert_eq!(kept.kind().exit_code(), 2);

    let spoilt = model(dir.path(), true);
    let bad = dir.path().join("bad.gguf");
    let error = run(&spoilt, &bad, FileType::Q4_0, 0).unwrap_err();
    assert_eq!(error.stable_code(), "FB-3713");
    assert!(error.to_string().contains("token_embd.weight"), "{error}");
    let left = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name());
    assert!(left.filter(|name| name.to_string_lossy().starts_with("bad")).count() == 0);
}

#[test]
fn floats_come_back_from_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let (model, small, back) =
        (model(dir.path(), false), dir.path().join("small.gguf"), dir.path().join("back.gguf"));
    run(&model, &small, FileType::Q8_0, 0).unwrap();
    run(&small, &back, FileType::F32, 0).unwrap();
    assert!(types(&back).iter().all(|ty| ty == "F32"));
    let (a, b) = (read(&small).unwrap(), read(&back).unwrap());
    for (a, b) in a.tensors().iter().zip(b.tensors()) {
        let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
        assert_eq!(a.as_slice::<f32>().unwrap(), b.as_slice::<f32>().unwrap());
    }
}

#[test]
fn a_split_model_is_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (model(dir.path(), false), dir.path().join("whole.gguf"));
    run(&model, &out, FileType::Q8_0, 0).unwrap();
    let whole = read(&out).unwrap();
    let mut job = GgufJob::new(&model, FileType::Q8_0);
    job.parts = PartLimits { bytes: Some(420_000), tensors: None };
    let cut = dir.path().join("cut.gguf");
    let predicted = job.predict(&Silent).unwrap();
    let report = job.run(&cut, false, &Silent).unwrap();
    assert_eq!(predicted.parts, report.parts);
    let count = report.parts.len();
    assert!(count > 1 && !cut.exists());
    let path = |no| part_path(&dir.path().join("cut"), no, count);
    for (no, part) in report.parts.iter().enumerate() {
        assert_eq!(std::fs::metadata(path(no)).unwrap().len(), part.bytes);
        assert!(part.bytes <= 420_000);
    }
    let back = read(&path(count - 1)).unwrap();
    assert_eq!(back.metadata(), whole.metadata());
    for (a, b) in whole.tensors().iter().zip(back.tensors()) {
        assert_eq!((&a.info, a.bytes.as_ref()), (&b.info, b.bytes.as_ref()));
    }
    assert_eq!(back.tensors().len(), whole.tensors().len());

    // One part that is there is enough to keep all of them.
    std::fs::remove_file(path(0)).unwrap();
    let kept = job.run(&cut, false, &Silent).unwrap_err();
    assert_eq!((kept.stable_code(), path(0).exists()), ("FB-2102", false));
    job.run(&cut, true, &Silent).unwrap();
    assert!(read(&path(0)).is_ok());
    let small = PartLimits { bytes: Some(50_000), tensors: None };
    let error = GgufJob { parts: small, ..job.clone() }.run(&cut, true, &Silent).unwrap_err();
    assert_eq!(error.stable_code(), "FB-2106");
    assert!(error.to_string().contains("token_embd.weight"), "{error}");
    let itself = GgufJob { model: path(1), ..job }.run(&cut, true, &Silent).unwrap_err();
    assert_eq!(itself.stable_code(), "FB-2101");
    let left = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, count + 2);
}
