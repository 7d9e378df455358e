//! `fewbit generate MODEL -p "Once upon a time"`

use super::{Writing, ending, longest, prompts, speeds};
use crate::exit::Outcome;
use crate::flags::Work;
use crate::signals;
use crate::ui::Ui;
use fewbit::llm::{Generator, LanguageModel};
use fewbit::{Error, Result};
use serde_json::json;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

#[derive(clap::Args)]
pub struct Args {
    /// A folder with config.json, or a GGUF file
    model: PathBuf,
    /// The text to continue; `-` reads it from stdin
    #[arg(short, long, value_name = "TEXT", required_unless_present = "prompts")]
    prompt: Option<String>,
    /// Texts to continue: one on each line; of a .jsonl file objects, with fields as the flags
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompts: Option<PathBuf>,
    /// How many texts of --prompts are written at once. Results do not depend on it
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parallel, requires = "prompts")]
    parallel: usize,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    pub work: Work,
}

/// A prompt longer than this fits no context; nor may a file of prompts be longer.
pub const MAX_PROMPT_BYTES: u64 = 64 << 20;

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    args.work.limit_tensors();
    let model = LanguageModel::open(&args.model)?;
    if let Some(path) = &args.prompts {
        prompts::run(path, args.parallel, &model, (&args.writing, &args.work), ui)?;
        return Ok(Outcome::Done);
    }
    let prompt = match args.prompt.as_deref() {
        Some("-") => read_stdin()?,
        text => text.unwrap_or_default().to_string(),
    };
    let tokens = model.tokenizer().encode(&prompt, true)?;
    let longest = longest(tokens.len(), &args.writing.limits());
    let options = args.writing.options_for(&args.work, &model, longest);
    let mut generator = Generator::new(&model, &options)?;
    let mut text = String::new();
    let (new, finish, speed) = signals::interruptible(|interrupted| {
        generator.generate(
            &tokens,
            &mut args.writing.sampler(),
            &args.writing.limits(),
            &mut |piece| {
                ui.speech(piece);
                text.push_str(piece);
                !interrupted.load(Ordering::Relaxed)
            },
        )
    })?;
    if ui.json {
        ui.print_json(&json!({
            "text": text,
            "tokens": new,
            "finish": ending(finish),
            "prompt_tokens": speed.prompt_tokens,
            "prompt_seconds": speed.prompt_seconds,
            "seconds": speed.seconds,
            "peak_rss_bytes": fewbit::peak_rss_bytes(),
        }));
    } else {
        ui.line("");
        ui.note(&speeds(&speed));
    }
    Ok(Outcome::Done)
}

/// More texts at once than this take more memory than they save time.
const MAX_PARALLEL: usize = 256;

fn parallel(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(n) if (1..=MAX_PARALLEL).contains(&n) => Ok(n),
        _ => Err(format!("expected a number from 1 to {MAX_PARALLEL}")),
    }
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_PROMPT_BYTES).read_to_string(&mut text);
    read.map_err(|e| Error::bad_input(format!("cannot read the prompt: {e}")).code("FB-3001"))?;
    Ok(text.trim_end_matches('\n').to_string())
}
