//! `fewbit eval MODEL --data DATA`

use crate::cmd::text::CacheFlags;
use crate::exit::Outcome;
use crate::flags::{ModeFlag, Work};
use crate::ui::{Table, Ui, count, percent, seconds};
use fewbit::formats::atomic::OutputOptions;
use fewbit::formats::data::Corpus;
use fewbit::llm::{CacheTypes, LanguageModel, is_language_model};
use fewbit::quant::metric::not_finite;
use fewbit::{Data, Error, Evaluation, Result, SessionOptions, TextOptions};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

#[derive(clap::Args)]
pub struct Args {
    /// The model: an ONNX file; for language models a folder with config.json, or a GGUF file
    model: PathBuf,
    /// Samples: a card, .npz, folder, ..., with an optional range such as card.toml@0..200; for
    /// language models a text (the range counts windows) or sentence pairs
    #[arg(long, value_name = "DATA")]
    data: String,
    /// How the model is run
    #[arg(long, value_enum, default_value = "integer")]
    mode: ModeFlag,
    /// For language models: another one, run in step on the same tokens; how far predictions
    /// are from its own
    #[arg(long, value_name = "MODEL")]
    against: Option<PathBuf>,
    /// For language models: tokens of a window, of which the second half is predicted
    #[arg(long, default_value_t = 0, value_name = "N", hide_default_value = true)]
    context: usize,
    /// For language models: write the predictions, as llama-perplexity keeps them
    /// (--kl-divergence-base)
    #[arg(long, value_name = "FILE", conflicts_with = "against")]
    save_logits: Option<PathBuf>,
    /// Replace an existing file of --save-logits
    #[arg(long, requires = "save_logits")]
    force: bool,
    #[command(flatten)]
    cache: CacheFlags,
    #[command(flatten)]
    pub work: Work,
}

pub fn run(args: &Args, ui: &Ui) -> Result<Outcome> {
    args.work.limit_tensors();
    let started = Instant::now();
    let result = if is_language_model(&args.model) { text(args, ui) } else { network(args, ui) }?;
    let took = started.elapsed().as_secs_f64();
    if ui.json {
        let mut value =
            serde_json::to_value(&result).map_err(|e| Error::internal(e.to_string()))?;
        value["seconds"] = json!(took);
        value["peak_rss_bytes"] = json!(fewbit::peak_rss_bytes());
        ui.print_json(&value);
    } else {
        show(&result, took, ui);
    }
    Ok(Outcome::Done)
}

fn network(args: &Args, ui: &Ui) -> Result<Evaluation> {
    let cached = args.cache.types() != CacheTypes::default();
    if args.against.is_some() || args.context != 0 || args.save_logits.is_some() || cached {
        let what = "--against, --context, --cache-type and --save-logits are for language models";
        return Err(Error::usage(what)
            .code("FB-2607")
            .hint("`fewbit compare` holds two networks against each other"));
    }
    let source = fewbit::load(&args.model)?;
    args.work.check_memory(&[&source.model], &[])?;
    let data = Data::open(&args.data)?;
    fewbit::evaluate(&source.model, &data, args.mode.into(), args.work.threads, ui.progress())
}

fn text(args: &Args, ui: &Ui) -> Result<Evaluation> {
    let corpus = Corpus::open(&args.data)?;
    let model = LanguageModel::open(&args.model)?;
    let reference = args.against.as_deref().map(LanguageModel::open).transpose()?;
    let session = SessionOptions::new(args.mode.into()).threads(args.work.threads);
    let save = args.save_logits.clone().map(|path| {
        let mut inputs = model.checkpoint().files.clone();
        inputs.extend(corpus.files.clone());
        (path, OutputOptions { inputs, keep_existing: !args.force, expected_bytes: 0 })
    });
    let options = TextOptions { session, context: args.context, cache: args.cache.types(), save };
    fewbit::evaluate_text(&model, reference.as_ref(), &corpus, &options, ui.progress())
}

fn show(result: &Evaluation, took: f64, ui: &Ui) {
    let mut table = Table::new(&["", ""]);
    for (name, value) in &result.metrics {
        let text = match name.as_str() {
            "top1" | "top5" | "agreement" => percent(*value),
            "tokens" => count(*value as u64),
            _ => format!("{value:.6}"),
        };
        table.row(&[name, &text]);
    }
    ui.print(&table.render());
    ui.line(&format!(
        "{} samples in mode {}, {}",
        count(result.samples as u64),
        result.mode,
        seconds(took)
    ));
    if result.not_finite > 0 {
        ui.warn(&not_finite("the model", result.not_finite, result.samples));
    }
}
