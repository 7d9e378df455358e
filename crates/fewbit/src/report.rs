//! Writing a report into a folder.

use fewbit_core::{Error, Result};
use fewbit_formats::atomic::{OutputOptions, write_file};
use fewbit_quant::report::{Report, to_html, to_text};
use std::path::{Path, PathBuf};

/// Writes `report.html` (one page, nothing outside it), `report.json` and `report.txt` into `dir`,
/// making the folder, and returns the paths.
///
/// Reports replace older ones of the same name.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_report(report: &Report, dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: serde_json::Error| Error::internal(e.to_string());
    let html = to_html(report, &serde_json::to_string(report).map_err(failed)?);
    let json = serde_json::to_string_pretty(report).map_err(failed)?;
    let files = [("report.html", html), ("report.json", json), ("report.txt", to_text(report))];
    let mut written = Vec::new();
    for (name, content) in files {
        let path = dir.join(name);
        write_file(&path, content.as_bytes(), &OutputOptions::default())?;
        written.push(path);
    }
    Ok(written)
}
