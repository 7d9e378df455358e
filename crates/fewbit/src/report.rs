//! Writing a report into a folder.

use fewbit_core::{Error, Result};
use fewbit_formats::atomic::{OutputOptions, write_file};
use fewbit_quant::report::{Report, to_html};
use std::path::{Path, PathBuf};

/// Writes `report.html` (one page, nothing outside it) and `report.json` into `dir`, making the folder, and returns the paths.
///
/// Reports replace older ones of the same name.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_report(report: &Report, dir: &Path) -> Result<Vec<PathBuf>> {
    let json = serde_json::to_vec_pretty(report).map_err(|e| Error::internal(e.to_string()))?;
    let text = String::from_utf8_lossy(&json);
    let html = to_html(report, &text).into_bytes();
    let files = [("report.html", html), ("report.json", json)];
    let mut written = Vec::new();
    for (name, bytes) in files {
        let path = dir.join(name);
        write_file(&path, &bytes, &OutputOptions::default())?;
        written.push(path);
    }
    Ok(written)
}
