//! `fewbit convert IN OUT`, between GGUF files and folders of Hugging Face.

use crate::cmd::quantize::folder;
use crate::cmd::quantize::gguf::{is_text_model, show};
use crate::exit::Outcome;
use crate::flags::Work;
use crate::ui::Ui;
use fewbit::quant::algo::mix::FileType;
use fewbit::{Error, FolderJob, FolderType, GgufJob, Result};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// The model: a GGUF file, or a folder with config.json and safetensors
    input: PathBuf,
    /// Where it goes: a file that ends in .gguf, or a folder
    output: PathBuf,
    /// What numbers it is stored in
    #[arg(long = "type", value_name = "NAME", default_value = "f16", value_enum)]
    float: Float,
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

/// Whether an output is to be a GGUF file, by its name.
fn names_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gguf"))
}

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    if !is_text_model(&args.input) {
        return Err(Error::unsupported(
            "only GGUF files and folders of Hugging Face can be converted",
        )
        .code("FB-4705")
        .at(args.input.display().to_string()));
    }
    let file_type = args.float.file_type();
    match FolderType::of_float(file_type) {
        Some(ty) if !names_gguf(&args.output) => {
            let mut job = FolderJob::new(&args.input, ty);
            job.threads = args.work.threads;
            folder::print(&job.run(&args.output, args.force, ui.progress())?, false, ui)?;
        }
        _ => to_gguf(args, file_type, ui)?,
    }
    Ok(Outcome::Done)
}

fn to_gguf(args: &Args, file_type: FileType, ui: &Ui) -> Result<()> {
    let mut job = GgufJob::new(&args.input, file_type);
    job.threads = args.work.threads;
    let report = job.run(&args.output, args.force, ui.progress())?;
    if ui.json {
        let value = serde_json::to_value(&report);
        ui.print_json(&value.map_err(|e| Error::internal(e.to_string()))?);
    } else {
        show(&report, &job, false, ui);
    }
    Ok(())
}
