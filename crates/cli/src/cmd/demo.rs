//! `fewbit demo`: the whole job on a network that is compiled in.

use super::quantize::{command_line, finish};
use crate::exit::Outcome;
use crate::flags::Work;
use crate::ui::{Paint, Ui, count};
use fewbit::formats::atomic::{OutputOptions, write_file};
use fewbit::{Data, QuantizeJob, Recipe, Result, Samples};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// Folder for the models, the data and the report
    #[arg(long, default_value = "fewbit-report", value_name = "DIR")]
    report: PathBuf,
    #[command(flatten)]
    pub work: Work,
}

/// The files of the demonstration, unpacked so that one can go on with them.
const FILES: [(&str, &[u8]); 5] = [
    ("digits.onnx", include_bytes!("../../../../testdata/digits/digits.onnx")),
    ("digits.toml", include_bytes!("../../../../testdata/digits/digits.toml")),
    ("digits-test.npz", include_bytes!("../../../../testdata/digits/digits-test.npz")),
    ("digits-calib.toml", include_bytes!("../../../../testdata/digits/digits-calib.toml")),
    ("digits-calib.npz", include_bytes!("../../../../testdata/digits/digits-calib.npz")),
];

/// What the int8 network may lose, in percentage points.
const MAX_DROP: f64 = 0.5;

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    args.work.limit_tensors();
    let dir = &args.report;
    for (name, content) in FILES {
        write_file(&dir.join(name), content, &OutputOptions::default())?;
    }
    let source = fewbit::load(&dir.join("digits.onnx"))?;
    args.work.check_memory(&[&source.model], &[])?;
    let calibration = open(dir, "digits-calib.toml")?;
    let evaluation = open(dir, "digits.toml")?;
    ui.line(&format!(
        "A network that reads handwritten digits, {} nodes. Calibrating on {} images, measuring on {} others.\n",
        source.model.graph.node_count(),
        count(calibration.len() as u64),
        count(evaluation.len() as u64)
    ));
    let mut job = QuantizeJob::new(&source, Recipe::built_in("int8")?)?;
    job.calibration = Some(&calibration);
    job.evaluation = Some(&evaluation);
    job.max_drop = Some(MAX_DROP);
    job.threads = args.work.threads;
    job.command = command_line();
    job.explain = true;
    let mut quantized = job.run(ui.progress())?;
    quantized.write(&dir.join("digits-int8.onnx"), true)?;
    let outcome = finish(&quantized, Some(dir), ui)?;
    show_next(dir, ui);
    Ok(outcome)
}

fn open(dir: &Path, card: &str) -> Result<Data> {
    Data::open(&dir.join(card).to_string_lossy())
}

fn show_next(dir: &Path, ui: &Ui) {
    let at = |name: &str| dir.join(name).display().to_string();
    let (float, small, data) = (at("digits.onnx"), at("digits-int8.onnx"), at("digits.toml"));
    ui.line(&format!("\n{}", ui.paint(Paint::Strong, "Look closer")));
    ui.line(&format!("  fewbit inspect {small} --verbose"));
    ui.line(&format!("  fewbit compare {float} {small} --data {data} --per-layer"));
    ui.line(&format!("  fewbit bench {small} --against {float}"));
    ui.line(&format!("\n{}", ui.paint(Paint::Strong, "Your own model")));
    ui.line("  fewbit inspect model.onnx");
    ui.line("  fewbit quantize model.onnx -o model-int8.onnx --calibrate card.toml@0..200 \\");
    ui.line("      --evaluate card.toml@200.. --max-drop 1% --report report/");
    ui.line(&format!("A card says where samples are and how one becomes an input; see {data}."));
}
