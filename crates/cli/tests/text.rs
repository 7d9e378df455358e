//! Commands of language models.

mod process;

use fewbit::llm::{Generator, GeneratorOptions, LanguageModel};
use fewbit::{Mode, Session, SessionOptions, Tensor};
use process::{digits, names, run, zoo};
use std::fs;
use std::path::Path;
use tempfile::tempdir;

#[test]
fn an_unknown_architecture_is_refused_with_the_known_ones() {
    let dir = tempdir().unwrap();
    fs::write(dir.path().join("config.json"), "{\"model_type\": \"mamba\"}").unwrap();
    let model = dir.path().display().to_string();
    run(["generate", &model, "-p", "a"]).fails(4, &["`mamba`", "llama, mistral, qwen2"]);
    fs::write(dir.path().join("config.json"), "{\"model_type\": \"llama\"}").unwrap();
    run(["generate", &model, "-p", "a"]).fails(3, &["safetensors"]);
    fs::write(dir.path().join("config.json"), "[1]").unwrap();
    run(["chat", &model]).fails(3, &["JSON object"]);
    run(["embed", &digits("digits.onnx"), "a"]).fails(3, &["no language model", "config.json"]);
    run(["embed", "nowhere", "a"]).fails(3, &["FB-3001", "nowhere", "check the path"]);
}

#[test]
fn a_model_writes_and_says_why_it_stopped() {
    let Some(model) = zoo("stories260k") else { return };
    let model = model.display().to_string();
    let line = ["generate", &model, "-p", "Once upon a time", "-n", "12", "--temperature", "0"];
    let plain = run(line);
    assert_eq!(plain.succeeds().stdout, ", there was a little girl named Lily. She\n");
    let value = run(line.iter().chain(&["--json"])).succeeds().json();
    assert_eq!(value["text"], ", there was a little girl named Lily. She");
    assert_eq!(
        (value["finish"].as_str(), value["prompt_tokens"].as_u64()),
        (Some("length"), Some(5))
    );
    let stopped = run(line.iter().chain(&["--stop", "girl", "--json"])).succeeds().json();
    assert_eq!(
        (stopped["text"].as_str(), stopped["finish"].as_str()),
        (Some(", there was a little "), Some("stop"))
    );
    let seeded = ["generate", &model, "-p", "The", "-n", "20", "--seed", "7", "-q"];
    assert_eq!(run(seeded).succeeds().stdout, run(seeded).succeeds().stdout);
}

#[test]
fn prompts_of_a_file_are_continued_as_they_would_be_alone() {
    let Some(model) = zoo("stories260k") else { return };
    let (model, dir) = (model.display().to_string(), tempdir().unwrap());
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("p.txt"), "Once upon a time\n\nTom and Lily\nThe dog\n").unwrap();
    let flags = ["-n", "12", "--temperature", "0", "--json"];
    let answers = |name: &str, parallel: &str| {
        let file = path(name);
        let line = ["generate", &model, "--prompts", &file, "--parallel", parallel];
        run(line.iter().chain(&flags)).succeeds().json()
    };
    let value = answers("p.txt", "2");
    for (index, prompt) in ["Once upon a time", "Tom and Lily", "The dog"].iter().enumerate() {
        let line = ["generate", &model, "-p", prompt];
        let alone = run(line.iter().chain(&flags)).succeeds().json();
        for key in ["text", "tokens", "finish", "prompt_tokens"] {
            assert_eq!(value["answers"][index][key], alone[key], "{prompt} {key}");
        }
    }
    assert_eq!(value["tokens"].as_u64(), Some(36));
    let lines = "{\"prompt\": \"The dog\", \"max_tokens\": 3}\n{\"prompt\": \"The dog\"}\n";
    fs::write(path("p.jsonl"), lines).unwrap();
    let value = answers("p.jsonl", "8");
    assert_eq!(value["answers"][0]["tokens"].as_array().unwrap().len(), 3);
    assert_eq!(value["answers"][1]["tokens"].as_array().unwrap().len(), 12);
    let shown = run(["generate", &model, "--prompts", &path("p.txt"), "-n", "5", "-q"]);
    let shown = shown.succeeds().stdout.clone();
    assert!(shown.starts_with("1. Once upon a time") && shown.contains("\n\n3. The dog"));
    fs::write(path("bad.jsonl"), "{\"prompt\": \"a\", \"sed\": 1}\n").unwrap();
    let bad = |name: &str| run(["generate", &model, "--prompts", &path(name)]);
    bad("bad.jsonl").fails(3, &["line 1", "unknown field `sed`"]);
    fs::write(path("none.txt"), "\n").unwrap();
    bad("none.txt").fails(3, &["no prompt"]);
    bad("nowhere.txt").fails(3, &["cannot open", "check the path"]);
    fs::write(path("long.txt"), "a\n".repeat(1 << 25) + "b").unwrap();
    bad("long.txt").fails(3, &["at most 67108864 bytes"]);
    run(["generate", &model]).fails(2, &["--prompt"]);
}

#[test]
fn a_cache_has_the_type_that_is_asked_for() {
    let (Some(model), Some(text)) = (zoo("stories260k"), zoo("text/tinystories_sample.txt")) else {
        return;
    };
    let (model, text) = (model.display().to_string(), format!("{}@0..2", text.display()));
    let scored = |flags: &[&str]| {
        let line = ["eval", &model, "--data", &text, "--context", "128", "--json"];
        let value = run(line.iter().chain(flags)).succeeds().json();
        value["metrics"]["perplexity"].as_f64().unwrap()
    };
    let (floats, halves) = (scored(&[]), scored(&["--cache-type", "f16"]));
    assert!(floats != halves && (floats - halves).abs() < 0.01 * floats, "{floats} {halves}");
    let mixed = scored(&["--cache-type", "f16", "--cache-type-v", "F32"]);
    assert!(mixed != floats && mixed != halves, "{mixed}");
    let generate = ["generate", &model, "-p", "Once upon a time", "-n", "8", "--cache-type"];
    run(generate.iter().chain(&["f16"])).succeeds();
    run(generate.iter().chain(&["q4_0"])).fails(4, &["FB-4719", "heads have 8", "f16"]);
    run(generate.iter().chain(&["q5_9"])).fails(2, &["f32, f16, q8_0, q4_0"]);
}

/// Logits behind `tokens`, by an ONNX file with a cache.
fn logits_of(path: &Path, tokens: &[i64]) -> Vec<f32> {
    let source = fewbit::load(path).unwrap();
    let session = Session::new(&source.model, &SessionOptions::new(Mode::Float)).unwrap();
    let places: Vec<i64> = (0..tokens.len() as i64).collect();
    let row = |values: &[i64]| Tensor::from_slice(vec![1, values.len()], values).unwrap();
    let mut inputs = vec![
        ("input_ids", row(tokens)),
        ("position_ids", row(&places)),
        ("logits_positions", Tensor::vector(&places[places.len() - 1..])),
    ];
    for port in &session.inputs()[3..] {
        let width = port.ty.shape.as_ref().unwrap()[2].known().unwrap();
        inputs.push((&port.name, Tensor::zeros(fewbit::DType::F32, vec![1, 32, width]).unwrap()));
    }
    session.run(&inputs).unwrap()[0].1.to_f32().unwrap()
}

#[test]
fn an_onnx_file_computes_what_the_model_does() {
    let Some(model) = zoo("stories260k") else { return };
    let (model, dir) = (model.display().to_string(), tempdir().unwrap());
    let path = |name: &str| dir.path().join(name).display().to_string();
    for ty in ["Q4_0", "Q5_0", "Q8_0", "Q5_1"] {
        let (gguf, onnx) = (path(&format!("{ty}.gguf")), path(&format!("{ty}.onnx")));
        run(["quantize", &model, "-o", &gguf, "--type", ty]).succeeds();
        let plain = run(["convert", &gguf, &onnx]);
        if ty == "Q5_1" {
            plain.fails(4, &["Q5_1 has no form in ONNX", "FB-4722", "--floats"]);
            assert!(!Path::new(&onnx).exists());
            run(["convert", &gguf, &onnx, "--floats"]).succeeds();
        } else {
            plain.succeeds();
        }
        let tokens = [1u32, 403, 407, 261, 378, 31];
        let quantized = LanguageModel::open(Path::new(&gguf)).unwrap();
        let session = SessionOptions::new(Mode::Float);
        let options = GeneratorOptions { session, ..GeneratorOptions::default() };
        let expected = Generator::new(&quantized, &options).unwrap().logits(&tokens).unwrap();
        let found = logits_of(Path::new(&onnx), &tokens.map(i64::from));
        assert_eq!(found, expected, "{ty}");
    }
    // The two steps in one.
    let direct = path("direct.onnx");
    run(["quantize", &model, "-o", &direct, "--type", "Q4_0"]).succeeds();
    assert!(fs::read(&direct).unwrap() == fs::read(path("Q4_0.onnx")).unwrap());
    let refused = path("refused.onnx");
    run(["quantize", &model, "-o", &refused, "--type", "Q5_1"]).fails(4, &["FB-4722", "tensor"]);
    run(["quantize", &model, "-o", &direct, "--type", "Q4_0"]).fails(2, &["FB-2102"]);
    assert!(!names(dir.path()).iter().any(|name| name.contains("parts") || name == "refused.onnx"));
    let floats = path("float.onnx");
    let value = run(["convert", &model, &floats, "--json"]).succeeds().json();
    assert_eq!(value["file_bytes"].as_u64(), Some(fs::metadata(&floats).unwrap().len()));
    run(["convert", &model, &floats]).fails(2, &["FB-2102", "--force"]);
    run(["convert", &model, &floats, "--type", "f32"]).fails(2, &["keeps the types"]);
    run(["convert", &model, &path("x.gguf"), "--floats"]).fails(2, &["for ONNX files"]);
}

#[test]
fn a_model_in_several_files_is_the_same_model() {
    let Some(model) = zoo("stories260k") else { return };
    let (model, dir) = (model.display().to_string(), tempdir().unwrap());
    let path = |name: &str| dir.path().join(name).display().to_string();
    run(["convert", &model, &path("one.gguf"), "--type", "F32"]).succeeds();
    let split = ["convert", &model, &path("cut.gguf"), "--type", "f32", "--split-max-size", "300K"];
    let report = run(split.iter().chain(&["--json"])).succeeds().json();
    let parts = report["parts"].as_array().unwrap().len();
    let found = names(dir.path());
    assert_eq!((found.len(), parts > 2), (parts + 1, true), "{found:?}");
    let logits = |name: &str| {
        let model = LanguageModel::open(Path::new(&path(name))).unwrap();
        let mut generator = Generator::new(&model, &GeneratorOptions::default()).unwrap();
        generator.logits(&[1, 403, 407, 261, 378, 31]).unwrap()
    };
    assert!(logits("one.gguf") == logits(&format!("cut-00002-of-{parts:05}.gguf")));
    run(split).fails(2, &["FB-2102", "cut-00001-of", "--force"]);
    run(split.iter().chain(&["--force"])).succeeds();
    let tensors = ["--split-max-tensors", "20", "--dry-run", "--type", "Q8_0"];
    let shown = run(["quantize", &model].iter().chain(&tensors));
    assert!(shown.succeeds().stdout.contains("1 of 3"), "{}", shown.stdout);
    let size =
        |out: &str, size: &str| run(["convert", &model, &path(out), "--split-max-size", size]);
    size("small.gguf", "40K").fails(2, &["FB-2106", "token_embd.weight", "allow files of"]);
    size("a-00001-of-00002.gguf", "1M").fails(2, &["FB-2103", "NAME.gguf"]);
    size("folder", "1M").fails(2, &["--split-max-size is for GGUF files"]);
    size("none.gguf", "0").fails(2, &["at least one byte"]);
    assert_eq!(names(dir.path()), found);
}

#[test]
fn what_a_model_cannot_do_is_said() {
    let Some(model) = zoo("stories260k") else { return };
    let model = model.display().to_string();
    run(["chat", &model]).fails(4, &["no chat template", "fewbit generate"]);
    run(["embed", &model, "a"]).fails(2, &["Llama", "fewbit generate"]);
    let long = "word ".repeat(600);
    run(["generate", &model, "-p", &long]).fails(2, &["the context holds 512"]);
    run(["generate", &model, "-p", "a", "--top-p", "2"]).fails(2, &["0 to 1"]);
}

#[test]
fn texts_are_scored_by_window_and_by_document() {
    let (Some(model), Some(text)) = (zoo("stories260k"), zoo("text/tinystories_sample.txt")) else {
        return;
    };
    let (model, dir) = (model.display().to_string(), tempdir().unwrap());
    fs::copy(text, dir.path().join("x.txt")).unwrap();
    let card = dir.path().join("x.toml");
    fs::write(&card, "path = 'x.txt'\ntask = 'perplexity'\nseparator = '<|endoftext|>'\n").unwrap();
    let data = format!("{}@0..5", card.display());
    let value = run(["eval", &model, "--data", &data, "--json"]).succeeds().json();
    assert_eq!((value["task"].as_str(), value["samples"].as_u64()), (Some("perplexity"), Some(5)));
    assert!((value["metrics"]["perplexity"].as_f64().unwrap() - 3.548).abs() < 0.0005, "{value}");
    fs::write(&card, "path = 'x.txt'\ntask = 'perplexity'\n").unwrap();
    let data = format!("{}@0..2", card.display());
    let line = ["eval", &model, "--data", &data, "--context", "128", "--against", &model, "--json"];
    let metrics = &run(line).succeeds().json()["metrics"];
    assert_eq!(
        (metrics["tokens"].as_f64(), metrics["agreement"].as_f64()),
        (Some(126.0), Some(1.0))
    );
    assert_eq!(metrics["kl_divergence"].as_f64(), Some(0.0));
    assert_eq!(metrics["perplexity"], metrics["reference_perplexity"]);
    run(["eval", &model, "--data", &format!("{}@0..9", card.display()), "--context", "512"])
        .fails(2, &["leaves the data"]);
    let kept = dir.path().join("x.logits").display().to_string();
    let line = ["eval", &model, "--data", &data, "--context", "128", "--save-logits"];
    run(line.iter().chain(&[kept.as_str()])).succeeds();
    // Two windows with 63 predictions of 512 tokens each.
    assert_eq!(fs::metadata(&kept).unwrap().len(), 20 + 4 * 2 * 128 + 2 * 63 * (8 + 2 * 512));
    run(line.iter().chain(&[kept.as_str()])).fails(2, &["FB-2102", "--force"]);
    run(line.iter().chain(&[kept.as_str(), "--force"])).succeeds();
    let text = dir.path().join("x.txt").display().to_string();
    run(line.iter().chain(&[text.as_str(), "--force"])).fails(2, &["FB-2101"]);
    run(line.iter().chain(&[kept.as_str(), "--against", &model])).fails(2, &["--against"]);
}
