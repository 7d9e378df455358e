//! `fewbit convert IN OUT`, between GGUF files and folders of Hugging Face, and to ONNX.

use crate::cmd::quantize::folder;
use crate::cmd::quantize::gguf::{is_text_model, show};
use crate::exit::Outcome;
use crate::flags::{Parts, Work};
use crate::ui::{Ui, bytes};
use fewbit::formats::detect::detect_path;
use fewbit::quant::algo::mix::FileType;
use fewbit::{Error, FolderJob, FolderType, GgufJob, OnnxJob, Result};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a folder with config.json and safetensors
    input: PathBuf,
    /// Where it goes: a file that ends in .gguf or .onnx, or a folder
    output: PathBuf,
    /// What numbers it is stored in: f16 unless said otherwise; an ONNX file keeps the types that
    /// there are
    #[arg(long = "type", value_name = "NAME", value_enum, ignore_case = true)]
    float: Option<Float>,
    /// ONNX: store types of blocks that it has no form for as floats
    #[arg(long)]
    floats: bool,
    #[command(flatten)]
    parts: Parts,
    /// Replace an existing output
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub work: Work,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Float {
    F32,
    F16,
    Bf16,
}

impl Float {
    fn file_type(self) -> FileType {
        match self {
            Float::F32 => FileType::F32,
            Float::F16 => FileType::F16,
            Float::Bf16 => FileType::Bf16,
        }
    }
}

/// Whether the name of an output has this ending.
pub(super) fn ends_in(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    if !is_text_model(&args.input) {
        if detect_path(&args.input).is_none() {
            // Its reader says why it is nothing.
            fewbit::load(&args.input)?;
        }
        return Err(Error::unsupported(
            "only GGUF files and folders of Hugging Face can be converted",
        )
        .code("FB-4705")
        .at(args.input.display().to_string())
        .hint("`fewbit quantize` makes an ONNX model smaller, with --recipe fp16 as half floats"));
    }
    if !ends_in(&args.output, "gguf") {
        args.parts.refuse()?;
    }
    if ends_in(&args.output, "onnx") {
        return to_onnx(args, ui);
    }
    if args.floats {
        return Err(Error::usage("--floats is for ONNX files")
            .hint("an output that ends in .onnx is one; --type f32 stores any other as floats"));
    }
    let file_type = args.float.unwrap_or(Float::F16).file_type();
    match FolderType::of_float(file_type) {
        Some(ty) if !ends_in(&args.output, "gguf") => {
            let mut job = FolderJob::new(&args.input, ty);
            job.threads = args.work.threads;
            folder::print(&job.run(&args.output, args.force, ui.progress())?, false, ui)?;
        }
        _ => to_gguf(args, file_type, ui)?,
    }
    Ok(Outcome::Done)
}

fn to_onnx(args: &Args, ui: &Ui) -> Result<Outcome> {
    if args.float.is_some() {
        return Err(Error::usage("an ONNX file keeps the types of its weights: leave out --type")
            .hint("convert or quantize to a GGUF file of that type first"));
    }
    let job = OnnxJob { model: args.input.clone(), floats: args.floats };
    let report = job.run(&args.output, args.force)?;
    if ui.json {
        let value = serde_json::to_value(report);
        ui.print_json(&value.map_err(|e| Error::internal(e.to_string()))?);
    } else {
        let size = bytes(report.file_bytes);
        ui.line(&format!("{} nodes, {size}, written to {}", report.nodes, args.output.display()));
    }
    Ok(Outcome::Done)
}

fn to_gguf(args: &Args, file_type: FileType, ui: &Ui) -> Result<()> {
    let mut job = GgufJob::new(&args.input, file_type);
    job.threads = args.work.threads;
    job.parts = args.parts.limits();
    let report = job.run(&args.output, args.force, ui.progress())?;
    if ui.json {
        let value = serde_json::to_value(&report);
        ui.print_json(&value.map_err(|e| Error::internal(e.to_string()))?);
    } else {
        show(&report, &job, false, ui);
    }
    Ok(())
}
