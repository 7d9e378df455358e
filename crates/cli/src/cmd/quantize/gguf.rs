//! `fewbit quantize MODEL.gguf -o OUT.gguf --type Q4_K_M`

use super::{Args, folder};
use crate::cmd::convert::ends_in;
use crate::exit::Outcome;
use crate::flags::Parts;
use crate::signals::resumable;
use crate::ui::{Paint, Table, Ui, bytes, count, printable, seconds};
use fewbit::formats::detect::{Format, detect};
use fewbit::quant::algo::mix::FileType;
use fewbit::{
    Error, FolderType, GgufJob, GgufReport, Result, Rounding, TensorLine, TextCalibration,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Flags for GGUF files.
#[derive(clap::Args)]
pub struct Flags {
    /// Language models: what the model becomes; a GGUF file: Q4_K_M, Q8_0, IQ4_NL, F16, ...; a folder of Hugging Face: W4A16, W8A16, W8A8, FP8, GPTQ-4bit, GPTQ-8bit, AWQ-4bit
    #[arg(long = "type", value_name = "NAME", value_parser = kind)]
    kind: Option<Kind>,
    /// Folders of Hugging Face: columns that share a scale, 0 for a whole row [default: 128]
    #[arg(long, value_name = "N")]
    pub(super) group: Option<usize>,
    /// Language models: an importance matrix of llama.cpp, .gguf or .dat
    #[arg(long, value_name = "FILE")]
    pub(super) imatrix: Option<PathBuf>,
    /// GGUF files, with --calibrate: how codes are chosen
    #[arg(long, value_enum, value_name = "HOW")]
    rounding: Option<RoundingFlag>,
    /// GGUF files, with --calibrate: write the importance matrix too, for llama.cpp
    #[arg(long, value_name = "FILE")]
    save_imatrix: Option<PathBuf>,
    #[command(flatten)]
    pub(super) parts: Parts,
    /// Language models: fail where a tensor cannot have the type or the group that is asked for
    #[arg(long)]
    pub(super) no_fallback: bool,
    /// Language models: show type, size and predicted loss of every tensor, and write nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RoundingFlag {
    /// So that outputs change least (GPTQ), where the type allows it; the default
    Calibrated,
    /// To the nearest code; the text sets scales alone
    Nearest,
}

impl From<RoundingFlag> for Rounding {
    fn from(flag: RoundingFlag) -> Rounding {
        match flag {
            RoundingFlag::Calibrated => Rounding::Calibrated,
            RoundingFlag::Nearest => Rounding::Nearest,
        }
    }
}

/// What a language model becomes.
#[derive(Clone, Copy, Debug)]
enum Kind {
    File(FileType),
    Folder(FolderType),
}

fn kind(text: &str) -> Result<Kind, String> {
    if let Ok(ty) = FolderType::from_name(text)
        && ty.quantizes()
    {
        return Ok(Kind::Folder(ty));
    }
    FileType::from_name(text).map(Kind::File).map_err(|e| match e.advice() {
        Some(advice) => {
            format!("{e}; {advice}; W4A16, W8A16, W8A8, FP8, GPTQ-4bit, GPTQ-8bit, AWQ-4bit")
        }
        None => e.to_string(),
    })
}

impl Flags {
    /// Refuses these flags for other models.
    pub fn refuse(&self) -> Result<()> {
        self.parts.refuse()?;
        let given = [
            (self.kind.is_some(), "--type"),
            (self.group.is_some(), "--group"),
            (self.imatrix.is_some(), "--imatrix"),
            (self.rounding.is_some(), "--rounding"),
            (self.save_imatrix.is_some(), "--save-imatrix"),
            (self.no_fallback, "--no-fallback"),
            (self.dry_run, "--dry-run"),
        ];
        match given.iter().find(|(given, _)| *given) {
            Some((_, flag)) => Err(Error::usage(format!("{flag} is for language models"))
                .hint("ONNX models take --recipe; `fewbit plan` shows what it would do")),
            None => Ok(()),
        }
    }
}

/// Whether a path is a language model: a GGUF file, or a folder of Hugging Face.
pub fn is_text_model(path: &Path) -> bool {
    is_gguf(path) || fewbit::llm::is_language_model(path)
}

/// Whether the file begins as GGUF files do. (Of any architecture, even one that cannot be run.)
fn is_gguf(path: &Path) -> bool {
    let mut head = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && detect(&head) == Some(Format::Gguf)
}

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    refuse_others(args)?;
    let flags = &args.gguf;
    let kind = flags.kind.ok_or_else(|| {
        Error::usage("a language model needs --type")
            .hint("for example --type Q4_K_M (a GGUF file) or --type W4A16 (a folder)")
    })?;
    if let Some(output) = &args.output {
        check_name(output, kind)?;
    }
    let file_type = match kind {
        Kind::Folder(ty) => {
            flags.parts.refuse()?;
            return folder::run(args, ty, ui);
        }
        Kind::File(file_type) => file_type,
    };
    if flags.group.is_some() {
        return Err(Error::usage("--group has no effect on a GGUF file")
            .hint("the blocks of its types have fixed sizes"));
    }
    let job = GgufJob {
        model: args.model.clone(),
        file_type,
        importance: flags.imatrix.clone(),
        calibration: calibration(args)?,
        fallback: !flags.no_fallback,
        threads: args.work.threads,
        max_memory: args.work.max_memory,
        parts: flags.parts.limits(),
    };
    let report = match &args.output {
        Some(output) if !flags.dry_run => {
            let onnx = output.extension().is_some_and(|end| end.eq_ignore_ascii_case("onnx"));
            if onnx {
                flags.parts.refuse()?;
            }
            let run = || match onnx {
                true => job.run_to_onnx(output, args.force, ui.progress()),
                false => job.run(output, args.force, ui.progress()),
            };
            if job.keeps_journal() { resumable(run) } else { run() }?
        }
        _ => job.predict(ui.progress())?,
    };
    if ui.json {
        let value = serde_json::to_value(&report);
        ui.print_json(&value.map_err(|e| Error::internal(e.to_string()))?);
    } else {
        show(&report, &job, flags.dry_run, ui);
    }
    Ok(Outcome::Done)
}

/// The name of an output says what it is, here as for `convert`.
fn check_name(output: &Path, kind: Kind) -> Result<()> {
    let is_file = ends_in(output, "gguf") || ends_in(output, "onnx");
    let hint = match kind {
        Kind::File(_) if is_file => return Ok(()),
        Kind::Folder(_) if !is_file => return Ok(()),
        Kind::File(_) => "this type makes a file: end the name in .gguf or .onnx",
        Kind::Folder(_) => "this type makes a folder: choose a name without .gguf and .onnx",
    };
    let what = format!("the output {} does not fit --type", output.display());
    Err(Error::usage(what).hint(hint))
}

/// What to calibrate on, from the flags.
///
/// # Errors
/// When flags need a text that is not there, or exclude each other.
pub(super) fn calibration(args: &Args) -> Result<Option<TextCalibration>> {
    let flags = &args.gguf;
    let Some(data) = &args.calibrate else {
        let given = [
            (flags.rounding.is_some(), "--rounding"),
            (flags.save_imatrix.is_some(), "--save-imatrix"),
        ];
        return match given.iter().find(|(given, _)| *given) {
            Some((_, flag)) => Err(Error::usage(format!("{flag} needs a text"))
                .hint("add --calibrate TEXT, such as text.txt or card.toml@0..16")),
            None => Ok(None),
        };
    };
    if flags.imatrix.is_some() {
        return Err(Error::usage("--imatrix and --calibrate exclude each other")
            .hint("--calibrate finds the importance itself"));
    }
    let mut calibration = TextCalibration::new(data);
    calibration.rounding = flags.rounding.map(Rounding::from).unwrap_or_default();
    calibration.save_importance = flags.save_imatrix.clone();
    Ok(Some(calibration))
}

/// Flags that say nothing about a GGUF file.
fn refuse_others(args: &Args) -> Result<()> {
    let given = [
        (args.plan.is_some(), "--plan"),
        (args.evaluate.is_some(), "--evaluate"),
        (args.max_drop.is_some(), "--max-drop"),
        (args.report.is_some(), "--report"),
        (args.seed.is_some(), "--seed"),
    ];
    let given = given.iter().find(|(given, _)| *given).map(|(_, flag)| *flag);
    match given.or_else(|| args.choice.given()) {
        Some(flag) => Err(Error::usage(format!("{flag} has no effect on a language model")).hint(
            "language models take --type, --imatrix and --calibrate; `fewbit eval` measures them",
        )),
        None => Ok(()),
    }
}

/// The table of a dry run, or a summary by type; substitutions in both.
pub fn show(report: &GgufReport, job: &GgufJob, every: bool, ui: &Ui) {
    ui.print(&if every { lines(report) } else { totals(report) }.render());
    let substituted = report.substituted();
    if substituted > 0 {
        let text = format!(
            "{substituted} tensors got another type than {} gives them, as their rows are no whole number of its blocks; --no-fallback refuses that",
            job.file_type.name()
        );
        ui.line(&format!("{}: {text}", ui.paint(Paint::Bad, "warning")));
    }
    let without = report.tensors.iter().filter(|t| t.loss.is_some() && !t.important).count();
    if (job.importance.is_some() || job.calibration.is_some()) && without > 0 {
        ui.remark(&format!("note: {without} tensors are rounded without importance, as calibration knows nothing of them"));
    }
    if report.resumed_layers > 0 {
        let layers = report.resumed_layers;
        ui.remark(&format!("note: {layers} layers were done by a run that was interrupted"));
    }
    if !report.parts.is_empty() {
        ui.print(&parts(report).render());
    }
    let output = if report.parts.len() > 1 { "set of files" } else { "file" };
    close(report, output, ui);
}

/// The files of a split model.
fn parts(report: &GgufReport) -> Table {
    let mut table = Table::new(&["file", "tensors", "size"]);
    for (no, part) in report.parts.iter().enumerate() {
        let number = format!("{} of {}", no + 1, report.parts.len());
        table.row(&[number, count(part.tensors as u64), bytes(part.bytes)]);
    }
    table
}

/// What the work came to; `output` names what was written.
pub(super) fn close(report: &GgufReport, output: &str, ui: &Ui) {
    ui.line(&format!(
        "{} of tensors become a {output} of {} in {}, peak memory {}",
        bytes(report.source_bytes),
        bytes(report.file_bytes),
        seconds(report.seconds),
        bytes(fewbit::peak_rss_bytes())
    ));
}

pub(super) fn lines(report: &GgufReport) -> Table {
    let mut table = Table::new(&["tensor", "shape", "from", "to", "size", "loss", "why"]);
    for t in &report.tensors {
        let shape: Vec<String> = t.shape.iter().map(usize::to_string).collect();
        let why = match t.instead_of {
            Some(wanted) => format!("{}; {wanted} does not fit", t.reason),
            None => t.reason.clone(),
        };
        table.row(&[
            printable(&t.name),
            shape.join("x"),
            t.from.to_string(),
            t.to.to_string(),
            bytes(t.bytes),
            loss(t.loss),
            why,
        ]);
    }
    table
}

/// Tensors, size and loss of each type.
pub(super) fn totals(report: &GgufReport) -> Table {
    let mut by_type: BTreeMap<&str, Vec<&TensorLine>> = BTreeMap::new();
    for tensor in &report.tensors {
        by_type.entry(tensor.to).or_default().push(tensor);
    }
    let mut table = Table::new(&["type", "tensors", "size", "mean loss", "largest"]);
    for (ty, tensors) in by_type {
        let losses: Vec<f64> = tensors.iter().filter_map(|t| t.loss).collect();
        let mean = losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let largest = losses.iter().copied().reduce(f64::max);
        table.row(&[
            ty.to_string(),
            count(tensors.len() as u64),
            bytes(tensors.iter().map(|t| t.bytes).sum()),
            loss(largest.map(|_| mean)),
            loss(largest),
        ]);
    }
    table
}

/// A squared error relative to the squared weights.
fn loss(share: Option<f64>) -> String {
    share.map_or(String::new(), |share| format!("{share:.2e}"))
}
