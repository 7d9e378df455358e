//! stories260k of the zoo through every form that is written: as a GGUF file, back as a folder,
//! and quantized as Hugging Face keeps it.

use fewbit::formats::safetensors;
use fewbit::llm::perplexity::{Windows, score};
use fewbit::llm::{Generation, Generator, GeneratorOptions, LanguageModel, Sampler, Sampling};
use fewbit::quant::algo::mix::FileType;
use fewbit::{DType, FolderJob, FolderType, GgufJob, Mode, Result, SessionOptions, Silent};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn zoo() -> Option<PathBuf> {
    let found = std::env::var_os("FEWBIT_ZOO").map(PathBuf::from);
    if found.is_none() {
        eprintln!("skipped: FEWBIT_ZOO is not set");
    }
    found
}

fn perplexity(zoo: &Path, model: &Path, mode: Mode) -> f64 {
    let model = LanguageModel::open(model).unwrap();
    let text = std::fs::read_to_string(zoo.join("text/tinystories_sample.txt")).unwrap();
    let stories: Vec<&str> =
        text.split("<|endoftext|>").map(str::trim).filter(|s| s.len() > 200).take(5).collect();
    let windows = Windows::of_documents(&model, &stories).unwrap();
    let found = score(&model, &windows, &SessionOptions::new(mode).into(), &mut |_, _| {}).unwrap();
    assert_eq!(found.tokens, 1804);
    found.perplexity
}

fn continuation(path: &Path) -> String {
    let model = LanguageModel::open(path).unwrap();
    let mut generator = Generator::new(&model, &GeneratorOptions::default()).unwrap();
    let prompt = model.tokenizer().encode("Once upon a time", true).unwrap();
    let limits = Generation { max_tokens: 64, ..Generation::default() };
    let mut text = String::new();
    let mut sampler = Sampler::new(Sampling::greedy());
    let mut hear = |piece: &str| {
        text.push_str(piece);
        true
    };
    generator.generate(&prompt, &mut sampler, &limits, &mut hear).unwrap();
    text
}

fn to_folder(from: &Path, to: &Path, ty: FolderType) -> Result<fewbit::GgufReport> {
    FolderJob::new(from, ty).run(to, false, &Silent)
}

#[test]
fn a_model_survives_the_way_into_gguf_and_back() {
    let Some(zoo) = zoo() else { return };
    let dir = tempfile::tempdir().unwrap();
    let original = zoo.join("stories260k");
    let (gguf, back) = (dir.path().join("s.gguf"), dir.path().join("back"));
    GgufJob::new(&original, FileType::F32).run(&gguf, false, &Silent).unwrap();
    to_folder(&gguf, &back, FolderType::Float(DType::F32)).unwrap();
    for path in [&original, &gguf, &back] {
        let found = perplexity(&zoo, path, Mode::Float);
        assert!((found - 3.548).abs() < 0.0005, "{}: {found}", path.display());
        assert_eq!(continuation(path), continuation(&original));
    }
    // Every number is the one it was.
    let (before, after) =
        (safetensors::read(&original).unwrap(), safetensors::read(&back).unwrap());
    assert_eq!(before.tensors().len(), after.tensors().len());
    for tensor in before.tensors() {
        let found = after.require(&tensor.name).unwrap();
        assert_eq!((&found.shape, found.bytes.as_ref()), (&tensor.shape, tensor.bytes.as_ref()));
    }
    // And as GGUF again, it is the same file.
    let again = dir.path().join("again.gguf");
    GgufJob::new(&back, FileType::F32).run(&again, false, &Silent).unwrap();
    let (first, second) = (fewbit::formats::gguf::read(&gguf), fewbit::formats::gguf::read(&again));
    let (first, second) = (first.unwrap(), second.unwrap());
    for (key, value) in first.metadata().iter().filter(|(key, _)| *key != "general.name") {
        assert_eq!(second.metadata().get(key), Some(value), "{key}");
    }
}

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
}

#[test]
fn quantized_folders_load_and_predict() {
    let Some(zoo) = zoo() else { return };
    let dir = tempfile::tempdir().unwrap();
    let original = zoo.join("stories260k");
    for (ty, most) in [
        (FolderType::W4A16, 4.1),
        (FolderType::W8A16, 3.552),
        (FolderType::W8A8, 3.56),
        (FolderType::Fp8, 3.65),
    ] {
        let out = dir.path().join(ty.name());
        let report = to_folder(&original, &out, ty).unwrap();
        let found = perplexity(&zoo, &out, Mode::Simulate);
        assert!(found > 3.5 && found < most, "{}: {found}", ty.name());
        let quantized = report.tensors.iter().filter(|t| t.to == ty.name()).count();
        assert_eq!(quantized, 35);
        let how = &config(&out)["quantization_config"];
        assert_eq!(how["quant_method"], "compressed-tensors");
        assert!(out.join("tokenizer.json").is_file() && out.join("LICENSE").is_file());
        let again = to_folder(&out, &dir.path().join("again"), ty).unwrap_err();
        assert_eq!(again.stable_code(), "FB-4715");
        let gguf =
            GgufJob::new(&out, FileType::F16).run(&dir.path().join("x.gguf"), false, &Silent);
        assert_eq!(gguf.unwrap_err().stable_code(), "FB-4715");
    }
    // 172 columns are no whole groups of 32, so that one projection has a scheme of its own.
    let out = dir.path().join("groups");
    let mut job = FolderJob::new(&original, FolderType::W4A16);
    job.group = 32;
    job.run(&out, false, &Silent).unwrap();
    let groups = &config(&out)["quantization_config"]["config_groups"];
    assert_eq!(groups["group_0"]["weights"]["group_size"], 32);
    assert_eq!(groups["group_1"]["weights"]["strategy"], "channel");
    assert_eq!(groups["group_1"]["targets"][0], "re:.*mlp\\.down_proj$");
    LanguageModel::open(&out).unwrap();
}

#[test]
fn calibrated_rounding_loses_less() {
    let Some(zoo) = zoo() else { return };
    let dir = tempfile::tempdir().unwrap();
    let text = zoo.join("text/tinystories_sample.txt").display().to_string();
    let mut job = FolderJob::new(&zoo.join("stories260k"), FolderType::W4A16);
    let run = |job: &FolderJob, name: &str| {
        job.run(&dir.path().join(name), false, &Silent).unwrap();
        perplexity(&zoo, &dir.path().join(name), Mode::Float)
    };
    let plain = run(&job, "plain");
    job.calibration = Some(fewbit::TextCalibration::new(&format!("{text}@0..2")));
    let calibrated = run(&job, "calibrated");
    assert!(calibrated - 3.548 < 0.7 * (plain - 3.548), "{calibrated} {plain}");
}

#[test]
fn what_a_layout_cannot_hold_is_refused_and_leaves_nothing() {
    let Some(zoo) = zoo() else { return };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let run = |ty: FolderType, change: &dyn Fn(&mut FolderJob)| {
        let mut job = FolderJob::new(&zoo.join("stories260k"), ty);
        change(&mut job);
        job.run(&out, false, &Silent).unwrap_err().stable_code()
    };
    // 172 inputs are no whole words of 8 codes.
    assert_eq!(run(FolderType::Gptq4, &|_| ()), "FB-4714");
    assert_eq!(run(FolderType::Awq, &|job| job.group = 4), "FB-4505");
    assert_eq!(run(FolderType::W4A16, &|job| job.fallback = false), "FB-4714");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
