//! `.csv` tables: one sample per line, one number per column.

use super::rows::Rows;
use super::{Loaded, Samples, numbers};
use crate::data::card::Card;
use crate::data::file::{show, show_text};
use crate::data::spec::SampleRange;
use crate::data::text::read_text;
use fewbit_core::{Error, Result, ResultExt};
use std::path::Path;

/// Opens a table.
///
/// A first line that holds anything but numbers names the columns. The column called `label` or
/// `y` (or as the card says) is the truth; the others, in order, are the sample.
pub(super) fn open(path: &Path, card: Option<&Card>, range: &SampleRange) -> Result<Loaded> {
    let text = read_text(path).at(|| show(path))?;
    let table = Table::parse(&text, card).at(|| show(path))?;
    let count = table.truth.len().max(table.values.len() / table.columns.max(1));
    if count == 0 {
        return Err(super::empty().at(show(path)));
    }
    let range = range.resolve(count)?;
    let (n, first) = (table.columns, range.start);
    let rows = Rows::of_f32(n, &table.values[range.start * n..range.end * n]);
    let truth = match table.truth.is_empty() {
        true => None,
        false => Some(numbers(&table.truth[range])?),
    };
    Ok(Loaded { samples: Samples::Arrays(vec![(None, rows)]), first, truth })
}

struct Table {
    columns: usize,
    values: Vec<f32>,
    truth: Vec<f64>,
}

impl Table {
    fn parse(text: &str, card: Option<&Card>) -> Result<Table> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());
        let mut records = reader.records();
        let Some(first) = records.next() else { return Err(super::empty()) };
        let first = first.map_err(|e| csv_error(&e))?;
        let is_header = first.iter().any(|field| field.parse::<f64>().is_err());
        let truth_column = truth_column(is_header.then_some(&first), card)?;
        let columns = first.len() - usize::from(truth_column.is_some());
        if columns == 0 {
            let error = Error::bad_input("there is no column besides the label").code("FB-3354");
            return Err(error.at("line 1"));
        }
        let mut table = Table { columns, values: Vec::new(), truth: Vec::new() };
        let data = (!is_header).then_some(Ok(first));
        for record in data.into_iter().chain(records) {
            table.push(&record.map_err(|e| csv_error(&e))?, truth_column)?;
        }
        Ok(table)
    }

    fn push(&mut self, record: &csv::StringRecord, truth: Option<usize>) -> Result<()> {
        for (column, field) in record.iter().enumerate() {
            let value = field.parse::<f64>().ok().filter(|v| (*v as f32).is_finite());
            let value = value.ok_or_else(|| {
                let line = record.position().map_or(0, |p| p.line());
                not_a_number(field, &format!("column {}", column + 1)).at(format!("line {line}"))
            })?;
            match truth == Some(column) {
                true => self.truth.push(value),
                false => self.values.push(value as f32),
            }
        }
        Ok(())
    }
}

fn truth_column(header: Option<&csv::StringRecord>, card: Option<&Card>) -> Result<Option<usize>> {
    let asked = card.and_then(|c| c.y.as_deref());
    let find = |name: &str| {
        header.and_then(|h| h.iter().position(|field| field.eq_ignore_ascii_case(name)))
    };
    match asked {
        None => Ok(find("label").or_else(|| find("y"))),
        Some(name) => find(name).map(Some).ok_or_else(|| {
            let what = format!("there is no column `{}`", show_text(name));
            Error::bad_input(what).code("FB-3354").at("line 1")
        }),
    }
}

pub(super) fn not_a_number(field: &str, place: &str) -> Error {
    let shown: String = show_text(field).chars().take(40).collect();
    Error::bad_input(format!("`{shown}` is not a finite number")).code("FB-3353").at(place)
}

pub(super) fn csv_error(error: &csv::Error) -> Error {
    let line = error.position().map_or(1, csv::Position::line);
    let what = match error.kind() {
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("{len} columns; the lines before have {expected_len}")
        }
        _ => format!("not a sound table: {error}"),
    };
    Error::bad_input(what).code("FB-3354").at(format!("line {line}"))
}
