//! Counts of cases, and the table of what has passed before.

use super::case::{Outcome, Report};
use std::collections::BTreeMap;
use std::path::Path;

/// Cases of an operator or of a folder.
#[derive(Clone, Copy, Default)]
pub struct Count {
    pub cases: usize,
    pub passed: usize,
    pub failed: usize,
    pub unsupported: usize,
    pub crashed: usize,
}

impl Count {
    pub fn add(&mut self, outcome: &Outcome) {
        self.cases += 1;
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Unsupported(_) => self.unsupported += 1,
            Outcome::Crashed => self.crashed += 1,
        }
    }

    pub fn of<'a>(reports: impl IntoIterator<Item = &'a Report>) -> Count {
        let mut count = Count::default();
        reports.into_iter().for_each(|report| count.add(&report.outcome));
        count
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Count { cases, passed, failed, unsupported, crashed } = self;
        write!(f, "{passed} of {cases} passed ({failed} failed, ")?;
        write!(f, "{unsupported} unsupported, {crashed} crashed)")
    }
}

/// Counts by name: one row for each operator, one for each further folder.
pub type Table = BTreeMap<String, Count>;

const HEADER: &str = "operator\tcases\tpassed";

/// The table as it is kept.
pub fn write(path: &Path, table: &Table) {
    let mut text = format!("{HEADER}\n");
    for (name, count) in table {
        text.push_str(&format!("{name}\t{}\t{}\n", count.cases, count.passed));
    }
    std::fs::write(path, text).unwrap();
}

/// Names and how many of their cases must pass.
pub fn read(path: &Path) -> BTreeMap<String, usize> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some(HEADER));
    let row = |line: &str| {
        let columns: Vec<&str> = line.split('\t').collect();
        (columns[0].to_string(), columns[2].parse().unwrap())
    };
    lines.map(row).collect()
}
