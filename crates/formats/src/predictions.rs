//! Predictions of a language model, as llama-perplexity keeps them (`--kl-divergence-base`): for
//! another model, or another program, to be held against.
//!
//! Little-endian: `_logits_`, the tokens of a window `u32`, the size of the vocabulary `i32`, the
//! number of windows `i32`, the tokens of all windows `i32`; then a row for each predicted token.
//! In each window those are the ones of the second half, but for the first of it. A row holds a
//! scale `f32`, the least logarithm `f32`, and a code `u16` for each token of the vocabulary (one
//! more where that is odd): `least + code * scale`. Logarithms that are more than 16 below the
//! greatest are kept as that.
//!
//! Stable codes: FB-2608 the windows cannot be kept in this form; those of
//! [`atomic`](crate::atomic).

use crate::atomic::{OutputFile, OutputOptions, write_failed};
use fewbit_core::{Error, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Logarithms are kept down to the greatest less this.
const SPAN: f32 = 16.0;

/// A file of predictions under construction.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: OutputFile,
    vocabulary: usize,
    missing: usize,
    row: Vec<u8>,
}

impl Writer {
    /// Opens the file, reserves its space and writes what comes before the rows. `windows` are
    /// the tokens of each window, `vocabulary` is the length of a row.
    ///
    /// # Errors
    /// When windows differ in length, the file cannot be written, or the disk has too little
    /// space.
    pub fn create(
        path: &Path,
        windows: &[&[u32]],
        vocabulary: usize,
        options: &OutputOptions,
    ) -> Result<Writer> {
        let context = windows.first().map_or(0, |tokens| tokens.len());
        if context < 4 || windows.iter().any(|tokens| tokens.len() != context) {
            let what = "only windows of one length can be kept for llama-perplexity";
            return Err(Error::usage(what)
                .code("FB-2608")
                .hint("score a text, rather than documents"));
        }
        let head = header(windows, context, vocabulary)?;
        let missing = windows.len() * (context - 1 - context / 2);
        let bytes = head.len() as u64 + missing as u64 * row_bytes(vocabulary) as u64;
        let options = OutputOptions { expected_bytes: bytes, ..options.clone() };
        let file = OutputFile::create(path, &options)?;
        let row = Vec::with_capacity(row_bytes(vocabulary));
        let mut writer = Writer { path: path.to_path_buf(), file, vocabulary, missing, row };
        writer.put(&head)?;
        Ok(writer)
    }

    /// Adds the row of the next predicted token: the logarithms of the probabilities of all
    /// tokens.
    ///
    /// # Errors
    /// When writing fails.
    pub fn add(&mut self, logarithms: &[f32]) -> Result<()> {
        if logarithms.len() != self.vocabulary || self.missing == 0 {
            return Err(Error::internal("a row of predictions that does not belong here"));
        }
        self.missing -= 1;
        let mut row = std::mem::take(&mut self.row);
        encode(logarithms, &mut row);
        let written = self.put(&row);
        self.row = row;
        written
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|e| write_failed(&self.path, &e))
    }

    /// Brings the file to its name; the number of its bytes.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(self) -> Result<u64> {
        match self.missing {
            0 => self.file.commit(),
            n => Err(Error::internal(format!("{n} rows of predictions are missing"))),
        }
    }
}

fn row_bytes(vocabulary: usize) -> usize {
    8 + 2 * vocabulary.next_multiple_of(2)
}

fn header(windows: &[&[u32]], context: usize, vocabulary: usize) -> Result<Vec<u8>> {
    let number = |n: usize| {
        let n = i32::try_from(n).map_err(|_| {
            Error::unsupported(format!("{n} is more than llama-perplexity counts")).code("FB-2608")
        });
        n.map(i32::to_le_bytes)
    };
    let mut head = b"_logits_".to_vec();
    for n in [context, vocabulary, windows.len()] {
        head.extend(number(n)?);
    }
    head.extend(windows.iter().flat_map(|tokens| tokens.iter().flat_map(|t| t.to_le_bytes())));
    Ok(head)
}

fn encode(logarithms: &[f32], row: &mut Vec<u8>) {
    let greatest = logarithms.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let smallest = logarithms.iter().copied().fold(f32::INFINITY, f32::min);
    let least = smallest.max(greatest - SPAN);
    let scale = (greatest - least) / 65535.0;
    row.clear();
    row.extend(scale.to_le_bytes());
    row.extend(least.to_le_bytes());
    for &value in logarithms {
        let steps = if scale > 0.0 { (value - least) / scale } else { 0.0 };
        // A cast of floats saturates: what lies below becomes 0.
        row.extend((steps.round_ties_even() as u16).to_le_bytes());
    }
    row.resize(row_bytes(logarithms.len()), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_laid_out_as_llama_perplexity_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.logits");
        let windows: [&[u32]; 2] = [&[1, 2, 3, 4], &[5, 6, 7, 8]];
        let mut writer = Writer::create(&path, &windows, 3, &OutputOptions::default()).unwrap();
        writer.add(&[-1.0, -9.0, -40.0]).unwrap();
        writer.add(&[-2.0, -2.0, -2.0]).unwrap();
        assert!(writer.add(&[-2.0; 3]).is_err());
        let bytes = std::fs::read(&path).unwrap_or_default();
        assert!(bytes.is_empty(), "nothing is there before the end");
        writer.finish().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 20 + 32 + 2 * 16);
        assert_eq!(bytes[..8], *b"_logits_");
        let words: Vec<u32> =
            bytes[8..].as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
        assert_eq!(words[..11], [4, 3, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(words[11], (16.0f32 / 65535.0).to_bits());
        assert_eq!(words[12], (-17.0f32).to_bits());
        // 65535 and 32768 (half of it, to even), then nothing.
        assert_eq!(words[13..15], [0x8000_ffff, 0]);
        assert_eq!(words[15..], [0f32.to_bits(), (-2f32).to_bits(), 0, 0]);
    }

    #[test]
    fn what_the_form_cannot_hold_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.logits");
        let options = OutputOptions::default();
        for windows in [&[&[1u32, 2, 3, 4][..], &[1, 2, 3]][..], &[], &[&[1, 2]]] {
            let error = Writer::create(&path, windows, 3, &options).unwrap_err();
            assert_eq!(error.stable_code(), "FB-2608");
        }
        let writer = Writer::create(&path, &[&[1, 2, 3, 4]], 3, &options).unwrap();
        assert!(writer.finish().is_err());
        assert!(!path.exists());
    }
}
