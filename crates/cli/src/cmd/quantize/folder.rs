//! `fewbit quantize MODEL -o FOLDER --type W4A16`

use super::Args;
use super::gguf::{calibration, close, lines, totals};
use crate::exit::Outcome;
use crate::ui::Ui;
use fewbit::{Error, FolderJob, FolderType, GgufReport, Result};

/// Quantizes into a folder of Hugging Face.
pub fn run(args: &Args, ty: FolderType, ui: &Ui) -> Result<Outcome> {
    let flags = &args.gguf;
    let mut job = FolderJob::new(&args.model, ty);
    job.importance = flags.imatrix.clone();
    job.calibration = calibration(args)?;
    if job.calibration.as_ref().is_some_and(|text| text.save_importance.is_some()) {
        return Err(Error::usage("--save-imatrix is for GGUF files"));
    }
    job.fallback = !flags.no_fallback;
    job.threads = args.work.threads;
    if let Some(group) = flags.group {
        job.group = group;
    }
    let report = match &args.output {
        Some(output) if !flags.dry_run => job.run(output, args.force, ui.progress())?,
        _ => job.predict(ui.progress())?,
    };
    print(&report, flags.dry_run, ui)?;
    Ok(Outcome::Done)
}

/// The report as JSON, as a line for each tensor, or as a summary by type.
pub fn print(report: &GgufReport, every: bool, ui: &Ui) -> Result<()> {
    if ui.json {
        let value = serde_json::to_value(report);
        ui.print_json(&value.map_err(|e| Error::internal(e.to_string()))?);
        return Ok(());
    }
    ui.print(&if every { lines(report) } else { totals(report) }.render());
    close(report, "folder", ui);
    Ok(())
}
