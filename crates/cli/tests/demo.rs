//! `fewbit demo` and what it tells people to type next.

mod process;

use process::{Ran, fewbit, names, run};
use tempfile::tempdir;

#[test]
fn the_demo_runs_to_the_end_and_keeps_its_promises() {
    let dir = tempdir().unwrap();
    let folder = dir.path().join("report");
    let report = folder.display().to_string();
    let ran = run(["demo", "--report", &report, "--json"]);
    let value = ran.succeeds().json();
    assert_eq!(value["verdict"], "met");
    assert_eq!(value["metric"]["samples"], 1000);
    assert!(value["metric"]["drop_points"].as_f64().unwrap() <= 0.5);
    let bytes = |which: &str| value[which]["bytes"].as_f64().unwrap();
    assert!(bytes("quantized") < 0.3 * bytes("float"));
    assert!(value["latency"]["quantized_ms"].as_f64().unwrap() > 0.0);
    assert!(value["layers"].as_array().unwrap().iter().any(|l| l["sqnr_db"].is_f64()));
    let files = names(&folder);
    for name in [
        "digits-int8.onnx",
        "digits.onnx",
        "digits.toml",
        "report.html",
        "report.json",
        "report.txt",
    ] {
        assert!(files.iter().any(|f| f == name), "{name} is missing in {files:?}");
    }
    // It runs again, and the commands that it names work.
    let again = Ran::of(fewbit().arg("demo").args(["--report", &report]).output().unwrap());
    let next: Vec<&str> =
        again.succeeds().stdout.lines().filter(|l| l.contains("report/digits-int8")).collect();
    let commands = next.iter().filter_map(|l| l.trim().strip_prefix("fewbit "));
    let lines: Vec<Vec<&str>> = commands.map(|c| c.split(' ').collect()).collect();
    assert_eq!(lines.len(), 3, "{next:?}");
    lines.iter().for_each(|line| {
        run(line).succeeds();
    });
}
