//! The conformance suite of ONNX (the backend tests of the `onnx` package): every case runs, none
//! may panic, and no operator may pass fewer cases than `backend_suite.tsv` says.
//!
//! `FEWBIT_PYTHON` names a Python that has the package; `FEWBIT_BLESS=1` rewrites the table.

mod backend;

use backend::case::{Outcome, Report, run};
use backend::tally::{Count, Table, read, write};
use fewbit_exec::OpTable;
use fewbit_exec::kernels::Pool;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Operators that must pass all their cases.
const QUANTIZED: [&str; 7] = [
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
];

/// Cases that stand for an operator itself, on tensors, in the default domain: 1333 in all.
const LEAST: usize = 1300;

fn python() -> Option<OsString> {
    let python = std::env::var_os("FEWBIT_PYTHON");
    if python.is_none() {
        eprintln!("skipped: FEWBIT_PYTHON is not set");
    }
    python
}

/// The cases that a script of these tests writes into a folder of its name.
fn written(python: &OsStr, script: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(script);
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{script}.py"));
    let output = Command::new(python).arg(script).arg(&folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    folder
}

fn run_folder(folder: &Path) -> Vec<Report> {
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.join("model.onnx").exists());
    cases.sort();
    let (table, pool) = (OpTable::standard(), Arc::new(Pool::single()));
    cases.iter().map(|case| run(case, &table, &pool)).collect()
}

fn print(reports: &[Report]) {
    for report in reports {
        let (state, why) = match &report.outcome {
            Outcome::Passed => continue,
            Outcome::Unsupported(why) => ("unsupported", why.as_str()),
            Outcome::Failed(why) => ("FAILED", why.as_str()),
            Outcome::Crashed => ("CRASHED", ""),
        };
        let kind = if report.primary { "primary" } else { "other" };
        let why = why.replace('\n', " | ");
        println!("{state}\t{kind}\t{}\t{}\t{why}", report.operator, report.name);
    }
}

fn by_operator<'a>(reports: impl Iterator<Item = &'a Report>) -> Table {
    let mut table = Table::new();
    for report in reports {
        table.entry(report.operator.clone()).or_default().add(&report.outcome);
    }
    table
}

#[test]
fn the_conformance_suite_passes_as_before() {
    let Some(python) = python() else { return };
    let cases = written(&python, "backend_cases");
    let node = run_folder(&cases.join("node"));
    print(&node);
    let primary = || node.iter().filter(|report| report.primary);
    let mut table = by_operator(primary());
    table.iter().for_each(|(operator, count)| println!("{operator}: {count}"));
    let total = Count::of(primary());
    let mut crashed = Count::of(&node).crashed;
    println!("all cases: {}", Count::of(&node));
    println!("tensors, default domain, not expanded: {total}");
    for set in ["pytorch-converted", "pytorch-operator", "simple"] {
        let reports = run_folder(&cases.join(set));
        print(&reports);
        let count = Count::of(&reports);
        println!("{set}: {count}");
        crashed += count.crashed;
        table.insert(format!("{set}/"), count);
    }
    assert_eq!(node.len(), 1884, "the table belongs to onnx 1.23.2");
    assert_eq!(crashed, 0, "a case panicked");
    check(&table);
    assert!(total.passed >= LEAST, "{total}");
    for operator in QUANTIZED {
        let count = table[operator];
        assert_eq!(count.passed, count.cases, "{operator}");
    }
}

fn check(table: &Table) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backend_suite.tsv");
    if std::env::var_os("FEWBIT_BLESS").is_some() {
        write(&path, table);
    }
    for (name, passed) in read(&path) {
        let now = table.get(&name).map_or(0, |count| count.passed);
        assert!(now >= passed, "{name} passed {passed} cases before, and {now} now");
    }
}

/// What the suite leaves out, with ONNX Runtime as the judge: operators of its own domain, older
/// operator sets, recurrent networks in both directions, reductions over axes that lie apart.
#[test]
fn onnx_runtime_agrees() {
    let Some(python) = python() else { return };
    let reports = run_folder(&written(&python, "ort_cases"));
    print(&reports);
    let count = Count::of(&reports);
    assert!(count.cases > 100, "{count}");
    assert_eq!(count.passed, count.cases, "{count}");
}
