//! Importance matrices: how large the inputs of each weight matrix were, column by column.
//!
//! For a matrix that multiplies activations `x`, the importance of a column is the mean of `x²`
//! over calibration tokens. Both forms of llama.cpp are read and written: GGUF files (sums and
//! counts), and the older `.dat`. [`read`] tells them apart by content.
//!
//! ```no_run
//! let imatrix = fewbit_formats::imatrix::read("imatrix.gguf".as_ref())?;
//! let importance = imatrix.importance("blk.0.attn_q.weight", 576, 1)?;
//! # Ok::<(), fewbit_core::Error>(())
//! ```
//!
//! # Stable codes
//!
//! | code | meaning |
//! |---|---|
//! | FB-3701 | the file holds no importance matrix |
//! | FB-3702 | the sums and counts of a tensor do not fit together |
//! | FB-3703 | a value is negative, infinite or no number |
//! | FB-3704 | a tensor stands twice |
//! | FB-3705 | a tensor of the model has another shape: the matrix is of another model |
//!
//! Damage to the file itself has the codes of [`gguf`](crate::gguf).

mod legacy;
mod sums;

use crate::atomic::{OutputOptions, write_file};
use crate::mmap::{InputFile, shown};
use bytes::Bytes;
use fewbit_core::{Error, Result, ResultExt};
use std::collections::BTreeMap;
use std::path::Path;

/// The two forms of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// GGUF with `.in_sum2` and `.counts` tensors; the one to write.
    Gguf,
    /// `.dat`, for tools before 2025. It keeps one count for all matrices of a tensor.
    Legacy,
}

/// What was seen of the inputs of one weight tensor.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entry {
    /// Sum of squares of each column, matrix after matrix (several where experts are stacked).
    pub sums: Vec<f32>,
    /// Number of tokens behind the sums: one for all matrices, or one for each.
    pub counts: Vec<f32>,
}

impl Entry {
    /// Means of squares, matrix after matrix; 1 for a matrix that saw no token, as in llama.cpp.
    pub fn means(&self) -> Vec<f32> {
        let row = self.sums.len().checked_div(self.counts.len()).unwrap_or(0).max(1);
        let rows = self.sums.chunks(row).zip(&self.counts);
        let mean = |(sums, &count): (&[f32], &f32)| -> Vec<f32> {
            if count > 0.0 {
                sums.iter().map(|sum| sum / count).collect()
            } else {
                vec![1.0; sums.len()]
            }
        };
        rows.flat_map(mean).collect()
    }

    fn check(&self) -> Result<()> {
        let (sums, counts) = (self.sums.len(), self.counts.len());
        if sums == 0 || counts == 0 || sums % counts != 0 {
            let what = format!("{sums} sums do not fit {counts} counts");
            return Err(Error::bad_input(what).code("FB-3702"));
        }
        let unsound = |v: &&f32| !(v.is_finite() && **v >= 0.0);
        if let Some(value) = self.sums.iter().chain(&self.counts).find(unsound) {
            let what = format!("a value is {value}; sums of squares are finite and not negative");
            return Err(Error::bad_input(what).code("FB-3703").hint("calibrate again"));
        }
        if self.means().iter().any(|mean| !mean.is_finite()) {
            let what = "a sum over a count close to 0 is infinite";
            return Err(Error::bad_input(what).code("FB-3703").hint("calibrate again"));
        }
        Ok(())
    }
}

/// The importance of the columns of all weight matrices of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ImportanceMatrix {
    /// By the GGUF name of the weight tensor, such as `blk.0.attn_q.weight`.
    pub entries: BTreeMap<String, Entry>,
    /// Names of the files it was calibrated on.
    pub datasets: Vec<String>,
    /// Chunks of text it was calibrated on.
    pub chunk_count: u32,
    /// Tokens of one chunk; 0 where the file does not say (legacy).
    pub chunk_size: u32,
}

impl ImportanceMatrix {
    /// The importance of each column of a tensor of `matrices` matrices with `columns` columns
    /// (`columns * matrices` values); `None` when the tensor was not calibrated.
    ///
    /// # Errors
    /// When the entry was made for a tensor of another shape.
    pub fn importance(
        &self,
        name: &str,
        columns: usize,
        matrices: usize,
    ) -> Result<Option<Vec<f32>>> {
        let Some(entry) = self.entries.get(name) else { return Ok(None) };
        let counts = entry.counts.len();
        let fits = columns.checked_mul(matrices) == Some(entry.sums.len())
            && (counts == 1 || counts == matrices);
        if fits {
            return Ok(Some(entry.means()));
        }
        let found = entry.sums.len();
        Err(Error::bad_input(format!(
            "the importance matrix has {found} values, the tensor {columns} columns in {matrices} matrices"
        ))
        .code("FB-3705")
        .at(format!("tensor {name:?}"))
        .hint("it was made for another model"))
    }

    /// Checks that it knows some of a model's tensors.
    ///
    /// # Errors
    /// When it knows none of them.
    pub fn check_names<'n>(&self, mut names: impl Iterator<Item = &'n str>) -> Result<()> {
        if names.any(|name| self.entries.contains_key(name)) {
            return Ok(());
        }
        let error = Error::bad_input("the importance matrix has no tensor of the model");
        Err(error.code("FB-3705").hint("it was made for another model"))
    }

    /// Reads either form from memory.
    ///
    /// # Errors
    /// When it is damaged, contradicts itself, or is none.
    pub fn from_bytes(bytes: &Bytes) -> Result<ImportanceMatrix> {
        let found =
            if bytes.starts_with(b"GGUF") { sums::read(bytes)? } else { legacy::read(bytes)? };
        found.check()?;
        Ok(found)
    }

    fn check(&self) -> Result<()> {
        if self.entries.is_empty() {
            return Err(none("holds no tensors"));
        }
        self.entries
            .iter()
            .try_for_each(|(name, entry)| entry.check().at(|| format!("tensor {name:?}")))
    }

    /// Writes a file; the number of its bytes.
    ///
    /// # Errors
    /// When it is not one that [`read`] takes back, or see
    /// [`OutputFile::create`](crate::atomic::OutputFile::create).
    pub fn write(&self, path: &Path, form: Form, options: &OutputOptions) -> Result<u64> {
        self.check().at(|| format!("output {}", shown(path)))?;
        match form {
            Form::Gguf => sums::write(self, path, options),
            Form::Legacy => {
                let bytes = legacy::encode(self).at(|| format!("output {}", shown(path)))?;
                write_file(path, &bytes, options)
            }
        }
    }
}

fn none(what: &str) -> Error {
    Error::bad_input(what).code("FB-3701").hint("make one with llama-imatrix or with fewbit")
}

/// Reads an importance matrix, in either form.
///
/// # Errors
/// When the file is damaged, contradicts itself, or is none.
pub fn read(path: &Path) -> Result<ImportanceMatrix> {
    let file = InputFile::open(path)?;
    let found = ImportanceMatrix::from_bytes(file.bytes()).at(|| shown(path))?;
    file.check_unchanged()?;
    Ok(found)
}
