//! Quantizing into an ONNX file, by way of a GGUF file beside it.

use super::{GgufJob, GgufReport};
use crate::portable::OnnxJob;
use fewbit_core::codec::block::BlockType;
use fewbit_core::{Error, Result, ResultExt};
use fewbit_formats::atomic::{OutputOptions, TemporaryFolder, check_destination};
use fewbit_llm::graph::BlockForm;
use fewbit_quant::Progress;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the GGUF file lies meanwhile.
fn folder(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_os_string();
    name.push(".fewbit-parts");
    out.with_file_name(name)
}

fn failed(what: &str, error: &std::io::Error, path: &Path) -> Error {
    Error::resource(format!("{what}: {error}")).code("FB-5301").at(path.display().to_string())
}

impl GgufJob {
    /// As [`run`](GgufJob::run), but writes an ONNX file ([`OnnxJob`]). A GGUF file stands in
    /// `OUT.fewbit-parts` until it is finished; with calibrated rounding, the same job goes on
    /// there when it was killed.
    ///
    /// # Errors
    /// As `run`, and when a type that the mix chooses has no form in ONNX.
    pub fn run_to_onnx(
        &self,
        out: &Path,
        force: bool,
        progress: &dyn Progress,
    ) -> Result<GgufReport> {
        self.check_onnx(out, force)?;
        let folder = folder(out);
        if !self.keeps_journal() {
            let temporary = TemporaryFolder::create(&folder)?;
            return self.run_within(temporary.path(), out, force, progress);
        }
        fs::create_dir_all(&folder).map_err(|e| failed("cannot make the folder", &e, &folder))?;
        let report = self.run_within(&folder, out, force, progress)?;
        fs::remove_dir_all(&folder).map_err(|e| failed("cannot remove", &e, &folder))?;
        Ok(report)
    }

    /// The GGUF file in `folder`, and the ONNX file made of it.
    fn run_within(
        &self,
        folder: &Path,
        out: &Path,
        force: bool,
        progress: &dyn Progress,
    ) -> Result<GgufReport> {
        let model = folder.join("model.gguf");
        let report = self.run(&model, true, progress)?;
        let written = OnnxJob { model, floats: false }.run(out, force)?;
        Ok(GgufReport { file_bytes: written.file_bytes, ..report })
    }

    /// What would fail in the end fails before the work.
    fn check_onnx(&self, out: &Path, force: bool) -> Result<()> {
        let plan = self.plan(None)?;
        let mut inputs = plan.source.paths();
        inputs.extend(self.importance.clone());
        check_destination(
            out,
            &OutputOptions { inputs, keep_existing: !force, ..Default::default() },
        )?;
        let float = |ty| matches!(ty, BlockType::F32 | BlockType::F16 | BlockType::BF16);
        let targets = plan.source.infos().iter().zip(&plan.targets);
        for (info, target) in targets {
            if !float(target.ty) && !BlockForm::has_portable(target.ty) {
                return Err(Error::unsupported(format!("{} has no form in ONNX", target.ty))
                    .code("FB-4722")
                    .hint(
                        "quantize to a GGUF file; `fewbit convert --floats` makes floats of such types",
                    ))
                .at(|| format!("tensor {:?}", info.name));
            }
        }
        Ok(())
    }
}
