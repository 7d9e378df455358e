//! The text form of a data set on the command line: `PATH` or `PATH@A..B`.

use fewbit_core::{Error, Result};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Which samples of a data set to use: `from..to`, either end open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleRange {
    /// First sample, 0 when left out.
    pub from: Option<usize>,
    /// One past the last sample, the end of the data when left out.
    pub to: Option<usize>,
}

impl SampleRange {
    /// Parses `A..B`, `A..`, `..B` or `..`; `None` for any other text.
    pub fn parse(text: &str) -> Option<SampleRange> {
        let (from, to) = text.split_once("..")?;
        Some(SampleRange { from: bound(from)?, to: bound(to)? })
    }

    /// The indices this selects out of `len` samples.
    ///
    /// # Errors
    /// `FB-2301` when the range is empty, reversed or leaves the data.
    pub fn resolve(&self, len: usize) -> Result<Range<usize>> {
        let (from, to) = (self.from.unwrap_or(0), self.to.unwrap_or(len));
        if from < to && to <= len {
            return Ok(from..to);
        }
        let why = match from >= to {
            true => "selects nothing".to_owned(),
            false => format!("leaves the data, which has {len} samples"),
        };
        let hint = format!("write A..B with A < B <= {len}; B itself is not included");
        Err(Error::usage(format!("the range {self} {why}")).code("FB-2301").hint(hint))
    }

    /// Whether this takes everything.
    pub fn is_all(&self) -> bool {
        *self == SampleRange::default()
    }
}

impl fmt::Display for SampleRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |e: Option<usize>| e.map_or(String::new(), |n| n.to_string());
        write!(f, "{}..{}", end(self.from), end(self.to))
    }
}

/// An open end is `Some(None)`; `None` means that the text is no number.
fn bound(text: &str) -> Option<Option<usize>> {
    match text {
        "" => Some(None),
        _ if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok().map(Some),
        _ => None,
    }
}

/// A path with the samples to take from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataSpec {
    /// A card, a folder or a data file.
    pub path: PathBuf,
    /// The samples to take.
    pub range: SampleRange,
}

impl DataSpec {
    /// Splits `PATH@A..B`. A path may itself contain `@`: only the part after the last one is
    /// read as a range, and only when no file has the whole text as its name.
    ///
    /// # Errors
    /// `FB-2301` when what follows the `@` looks like a range but is none.
    pub fn parse(text: &str) -> Result<DataSpec> {
        let whole = DataSpec { path: PathBuf::from(text), range: SampleRange::default() };
        let Some((path, suffix)) = text.rsplit_once('@') else { return Ok(whole) };
        if whole.path.exists() || path.is_empty() {
            return Ok(whole);
        }
        if let Some(range) = SampleRange::parse(suffix) {
            return Ok(DataSpec { path: PathBuf::from(path), range });
        }
        if Path::new(path).exists() || suffix.contains("..") {
            let error = Error::usage(format!("`{suffix}` is not a range of samples"));
            let hint = "write DATA@A..B, DATA@A.. or DATA@..B, for example card.toml@0..200";
            return Err(error.code("FB-2301").at(text).hint(hint));
        }
        Ok(whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> (String, SampleRange) {
        let s = DataSpec::parse(text).unwrap();
        (s.path.to_string_lossy().into_owned(), s.range)
    }

    #[test]
    fn ranges_are_split_off() {
        let range = |from, to| SampleRange { from, to };
        assert_eq!(spec("a.toml@0..200"), ("a.toml".into(), range(Some(0), Some(200))));
        assert_eq!(spec("a.toml@..9"), ("a.toml".into(), range(None, Some(9))));
        assert_eq!(spec("a@b.npz@7.."), ("a@b.npz".into(), range(Some(7), None)));
        assert_eq!(spec("me@home.npz"), ("me@home.npz".into(), SampleRange::default()));
    }

    #[test]
    fn what_looks_like_a_range_must_be_one() {
        for text in ["a.toml@-1..3", "a.toml@1..x", "a.toml@1...3", "a@0..99999999999999999999"] {
            let e = DataSpec::parse(text).unwrap_err();
            assert_eq!((e.stable_code(), e.kind().exit_code()), ("FB-2301", 2), "{text}");
        }
    }

    #[test]
    fn a_range_must_select_samples_that_exist() {
        let resolve = |t: &str| SampleRange::parse(t).unwrap().resolve(10);
        assert_eq!(resolve("..").unwrap(), 0..10);
        assert_eq!(resolve("3..10").unwrap(), 3..10);
        assert!(resolve("0..11").unwrap_err().what().contains("10 samples"));
        assert!(resolve("4..4").unwrap_err().what().contains("nothing"));
        assert!(resolve("5..4").is_err());
        assert!(resolve("10..").is_err());
    }
}
