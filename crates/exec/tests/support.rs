//! `docs/support.md` is made from the operator table and the counts of the conformance suite.
//!
//! `FEWBIT_BLESS=1` rewrites the page.

use fewbit_exec::{OpDef, OpTable, Role};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Cases and how many of them pass, by operator of the default domain (or by folder, with `/`).
type Counts = BTreeMap<String, (usize, usize)>;

const INTRODUCTION: &str = "\
# What is supported

Made from the operator table (`crates/exec/src/ops`), the conformance counts \
(`crates/exec/tests/backend_suite.tsv`) and the `fewbit` target (`targets/fewbit.toml`) by the test \
`crates/exec/tests/support.rs`. Do not edit: `FEWBIT_BLESS=1 cargo test -p fewbit-exec --test support` \
rewrites it.

- **since**: the oldest operator set whose meaning is implemented.
- **role**: what quantization may do with the operator (see [architecture](architecture.md)); `float` \
means that it is left as it is.
- **int8**: recipe `int8` with target `fewbit` quantizes it, given constant weights where it has any. \
Operators without the mark run in float between quantized ones; a model may still hold quantized \
nodes of its own (`QLinearConv`, `MatMulInteger`, ...), which run on the integer kernels where their \
weights are constant.
- **suite**: cases of the ONNX backend suite (onnx 1.23.2) on tensors, passed of all, in float mode.
";

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn read(relative: &str) -> String {
    std::fs::read_to_string(path(relative)).unwrap_or_else(|e| panic!("{relative}: {e}"))
}

fn counts() -> Counts {
    let row = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        (columns[0].to_string(), (columns[1].parse().unwrap(), columns[2].parse().unwrap()))
    };
    read("tests/backend_suite.tsv").lines().skip(1).map(row).collect()
}

/// The quoted names in the list of operators of a target.
fn quantized_operators() -> Vec<String> {
    let text = read("../../targets/fewbit.toml");
    let (_, list) = text.split_once("operators = [").expect("a list of operators");
    list.split('"').skip(1).step_by(2).map(str::to_string).collect()
}

fn role(def: &OpDef) -> &'static str {
    match def.role {
        Role::Weighted(_) => "weighted",
        Role::Elementwise => "elementwise",
        Role::Clamp => "clamp",
        Role::SameScale => "same scale",
        Role::JointScale => "joint scale",
        Role::FloatOnly => "float",
    }
}

fn domain(def: &OpDef) -> &'static str {
    if def.domain.is_empty() { "ai.onnx" } else { def.domain }
}

fn row(def: &OpDef, counts: &Counts, quantized: &[String]) -> String {
    let standard = def.domain.is_empty();
    let count = counts.get(def.name).filter(|_| standard);
    let suite = count.map_or(String::new(), |(cases, passed)| format!("{passed} of {cases}"));
    let int8 = standard && quantized.iter().any(|name| name == def.name);
    let int8 = if int8 { "yes" } else { "" };
    format!("| {} | {} | {} | {int8} | {suite} |\n", def.name, def.since, role(def))
}

fn operators(page: &mut String, counts: &Counts) {
    let table = OpTable::standard();
    let quantized = quantized_operators();
    let mut last = None;
    for def in table.rows() {
        if last != Some(def.domain) {
            last = Some(def.domain);
            let number = table.rows().iter().filter(|d| d.domain == def.domain).count();
            write!(page, "\n## {} ({number} operators)\n\n", domain(def)).unwrap();
            page.push_str("| operator | since | role | int8 | suite |\n|---|---|---|---|---|\n");
        }
        page.push_str(&row(def, counts, &quantized));
    }
}

/// Operators of the suite that the table does not have.
fn missing(page: &mut String, counts: &Counts) {
    let table = OpTable::standard();
    page.push_str("\n## Operators of the suite that cannot be run\n\n");
    page.push_str(
        "They pass from file to file untouched. So do those on sequences (`SequenceAt`, \
         `SplitToSequence` and others), whose cases are not among these.\n\n\
         | operator | cases |\n|---|---|\n",
    );
    for (name, (cases, passed)) in counts {
        let operator = !name.ends_with('/') && !name.starts_with('(');
        if operator && *passed == 0 && table.get("", name).is_none() {
            writeln!(page, "| {name} | {cases} |").unwrap();
        }
    }
}

fn totals(page: &mut String, counts: &Counts) {
    let (folders, operators): (Counts, Counts) =
        counts.clone().into_iter().partition(|(name, _)| name.ends_with('/'));
    let sum = operators.values().fold((0, 0), |sum, c| (sum.0 + c.0, sum.1 + c.1));
    page.push_str("\n## The suite as a whole\n\n| cases | number | passed |\n|---|---|---|\n");
    writeln!(page, "| operators, on tensors | {} | {} |", sum.0, sum.1).unwrap();
    for (name, (cases, passed)) in folders {
        writeln!(page, "| {} | {cases} | {passed} |", name.trim_end_matches('/')).unwrap();
    }
}

fn render() -> String {
    let counts = counts();
    let mut page = INTRODUCTION.to_string();
    operators(&mut page, &counts);
    missing(&mut page, &counts);
    totals(&mut page, &counts);
    page
}

#[test]
fn the_page_says_what_the_tables_say() {
    let page = render();
    if std::env::var_os("FEWBIT_BLESS").is_some() {
        std::fs::write(path("../../docs/support.md"), &page).unwrap();
    }
    let kept = read("../../docs/support.md");
    let differs = kept.lines().zip(page.lines()).find(|(kept, now)| kept != now);
    assert!(
        kept == page,
        "docs/support.md is out of date ({differs:?}); FEWBIT_BLESS=1 rewrites it"
    );
}

#[test]
fn every_operator_of_the_target_is_in_the_table() {
    let table = OpTable::standard();
    let quantized = quantized_operators();
    assert!(quantized.len() > 20, "{quantized:?}");
    for name in quantized {
        assert!(table.get("", &name).is_some(), "targets/fewbit.toml names {name}");
    }
}
