//! The keys that docs/json.md promises.

mod process;

use process::{digits, names, quantize, run};
use serde_json::Value;
use tempfile::tempdir;

#[track_caller]
fn has(value: &Value, paths: &[&str]) {
    for path in paths {
        let pointer = format!("/{}", path.replace('.', "/"));
        assert!(value.pointer(&pointer).is_some(), "`{path}` is missing in {value:#}");
    }
}

fn quantized(dir: &std::path::Path) -> (String, Value) {
    let out = dir.join("int8.onnx");
    let data = format!("{}@0..100", digits("digits.toml"));
    let ran = quantize(&out, &["--evaluate", &data, "--max-drop", "5%", "--json"]);
    (out.display().to_string(), ran.succeeds().json())
}

#[test]
fn quantize_tells_everything() {
    let dir = tempdir().unwrap();
    let (out, value) = quantized(dir.path());
    has(
        &value,
        &[
            "schema",
            "verdict",
            "max_drop_points",
            "float.bytes",
            "float.sha256",
            "quantized.bytes",
            "quantized.sha256",
            "recipe",
            "target",
            "metric.name",
            "metric.float",
            "metric.quantized",
            "metric.drop_points",
            "metric.interval_points",
            "metric.samples",
            "metric.flips",
            "layers.0.name",
            "layers.0.op",
            "layers.0.quantized",
            "layers.0.reason",
            "attempts.0.change",
            "attempts.0.comparison.drop_points",
            "data.0.sha256",
            "data.1.samples",
            "warnings",
            "advice",
            "peak_rss_bytes",
            "seconds.calibrate",
            "seconds.quantize",
            "seconds.evaluate",
            "seconds.total",
            "reproduce.command",
            "reproduce.seed",
        ],
    );
    assert_eq!(value["verdict"], "met");
    assert_eq!(value["metric"]["samples"], 100);
    assert_eq!(value["quantized"]["bytes"].as_u64(), std::fs::metadata(&out).ok().map(|m| m.len()));
    assert!(value["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
    assert_eq!(names(dir.path()), ["int8.onnx"]);
}

#[test]
fn every_other_command_tells_what_is_documented() {
    let dir = tempdir().unwrap();
    let (small, _) = quantized(dir.path());
    let (float, data) = (digits("digits.onnx"), format!("{}@0..50", digits("digits.toml")));
    let value = run(["inspect", &small, "--json"]).succeeds().json();
    has(&value, &["path", "format", "bytes", "ir_version", "opsets"]);
    has(
        &value,
        &[
            "inputs.0.dtype",
            "outputs.0.shape",
            "nodes",
            "parameters",
            "parameter_bytes",
            "operators.0.role",
            "unknown_operators",
            "quantization.low_bit_bytes",
            "runnable",
            "plan.0.kernel",
            "warnings",
            "files.0",
            "producer",
        ],
    );
    assert_eq!(value["runnable"], true);
    assert_eq!(value["quantization"]["quantized"], true);
    let value = run(["eval", &small, "--data", &data, "--json"]).succeeds().json();
    has(&value, &["metrics.top1", "metrics.top5", "samples", "mode", "task", "seconds"]);
    let line = ["compare", &float, &small, "--data", &data, "--per-layer", "--json"];
    let value = run(line).succeeds().json();
    has(&value, &["agreement", "flips", "metrics.deciding.drop_points", "layers.0.sqnr_db"]);
    let line = ["bench", &small, "--against", &float, "--seconds", "0.05", "--json"];
    let value = run(line).succeeds().json();
    has(
        &value,
        &[
            "median_ms",
            "p90_ms",
            "p99_ms",
            "threads",
            "ratio",
            "ratio_low",
            "ratio_high",
            "operators.0.ms",
            "operators.0.low_ms",
            "operators.0.high_ms",
            "isa",
            "mode",
            "runs",
        ],
    );
    let value = run(["plan", &float, "--json"]).succeeds().json();
    has(&value, &["target", "recipe.method", "node.0.reason", "value.0.scheme"]);
}
