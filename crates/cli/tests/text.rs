//! Commands of language models.

mod process;

use process::{run, zoo};
use std::fs;
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
    run(["embed", "nowhere", "a"]).fails(3, &["no language model", "config.json"]);
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
