//! `fewbit embed MODEL "a text"`

use crate::exit::Outcome;
use crate::flags::{ModeFlag, Work, check_output};
use crate::ui::Ui;
use fewbit::formats::atomic::OutputOptions;
use fewbit::formats::data::npy;
use fewbit::llm::{Embedder, LanguageModel};
use fewbit::{Error, Result, SessionOptions, Tensor};
use serde_json::json;
use std::io::BufRead;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub struct Args {
    /// A folder with config.json, or a GGUF file, of an encoder
    model: PathBuf,
    /// Texts; without any, the lines of stdin
    #[arg(value_name = "TEXT")]
    texts: Vec<String>,
    /// Where the vectors go, one row for each text: .npy
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How the model is run
    #[arg(long, value_enum, default_value = "integer")]
    mode: ModeFlag,
    /// Replace an existing output
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub work: Work,
}

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    args.work.limit_tensors();
    let model = LanguageModel::open(&args.model)?;
    let inputs = &model.checkpoint().files;
    if let Some(path) = &args.output {
        check_output(path, inputs, args.force)?;
    }
    let lines = if args.texts.is_empty() { stdin_lines()? } else { args.texts.clone() };
    let texts: Vec<&str> = lines.iter().map(String::as_str).collect();
    let options = SessionOptions::new(args.mode.into()).threads(args.work.threads);
    let embedder = Embedder::new(&model, &options)?;
    let (progress, mut done) = (ui.progress(), 0);
    progress.start("embed", texts.len());
    let vectors = embedder.embed(&texts, &mut |now| {
        (done..now).for_each(|_| progress.step());
        done = now;
    })?;
    progress.finish();
    match &args.output {
        Some(path) => write(path, &vectors, embedder.width(), args, inputs)?,
        None => show(&vectors, ui),
    }
    if ui.json {
        let shown = args.output.is_none().then_some(&vectors);
        ui.print_json(&json!({
            "vectors": shown,
            "count": vectors.len(),
            "width": embedder.width(),
        }));
    }
    Ok(Outcome::Done)
}

fn stdin_lines() -> Result<Vec<String>> {
    let lines = std::io::stdin().lock().lines().collect::<Result<Vec<_>, _>>();
    lines.map_err(|e| Error::bad_input(format!("cannot read the texts: {e}")).code("FB-3001"))
}

/// One line of numbers for each text.
fn show(vectors: &[Vec<f32>], ui: &Ui) {
    for vector in vectors {
        let numbers: Vec<String> = vector.iter().map(f32::to_string).collect();
        ui.line(&numbers.join(" "));
    }
}

fn write(
    path: &Path,
    vectors: &[Vec<f32>],
    width: usize,
    args: &Args,
    inputs: &[PathBuf],
) -> Result<()> {
    let values: Vec<f32> = vectors.concat();
    let tensor = Tensor::from_slice(vec![vectors.len(), width], &values)?;
    let options = OutputOptions {
        inputs: inputs.to_vec(),
        keep_existing: !args.force,
        expected_bytes: values.len() as u64 * 4,
    };
    npy::write(path, &tensor, &options)
}
