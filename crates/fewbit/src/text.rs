//! Scoring language models.

use crate::evaluate::{Evaluation, mode_name};
use fewbit_core::{Error, Result};
use fewbit_exec::SessionOptions;
use fewbit_formats::atomic::OutputOptions;
use fewbit_formats::data::{Corpus, CorpusKind, SampleRange, SentencePair};
use fewbit_formats::predictions;
use fewbit_llm::embed::{cosine, spearman};
use fewbit_llm::perplexity::{
    Distance, Score, ScoreOptions, Windows, compare, score, score_and_look,
};
use fewbit_llm::{CacheTypes, Embedder, LanguageModel};
use fewbit_quant::Progress;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// How a language model is scored.
#[derive(Clone, Debug, Default)]
pub struct TextOptions {
    /// Mode and threads.
    pub session: SessionOptions,
    /// Tokens of a window; 0 takes 512.
    pub context: usize,
    /// What keys and values are kept in, as when the model writes.
    pub cache: CacheTypes,
    /// Where the predictions go, as llama-perplexity keeps them ([`predictions`]); of texts that
    /// are scored by themselves.
    pub save: Option<(PathBuf, OutputOptions)>,
}

/// Scores a language model: perplexity of texts (and, `against` another model, the distance of
/// their predictions), rank correlation of sentence pairs.
///
/// Metrics by name. Texts: `perplexity`, `perplexity_error` (standard error), `tokens`; against a
/// reference also `reference_perplexity`, `kl_divergence` (mean, in nats), `kl_divergence_error`,
/// `kl_divergence_999`, `kl_divergence_max`, `agreement` (share of equal most likely tokens) and
/// `probability_change` (root mean square). Sentence pairs: `spearman`.
///
/// # Errors
/// When the data is not for this kind of model, or a run fails.
pub fn evaluate_text(
    model: &LanguageModel,
    against: Option<&LanguageModel>,
    corpus: &Corpus,
    options: &TextOptions,
    progress: &dyn Progress,
) -> Result<Evaluation> {
    let (samples, metrics) = match &corpus.kind {
        CorpusKind::Pairs(pairs) => {
            if options.save.is_some() {
                return Err(no_predictions("turned into vectors"));
            }
            let range = corpus.range.resolve(pairs.len())?;
            similarity(model, &pairs[range], &options.session, progress)?
        }
        CorpusKind::Text(text) => {
            let windows = Windows::of_text(model, text, options.context)?;
            prediction(model, against, windows, corpus.range, options, progress)?
        }
        CorpusKind::Documents(documents) => {
            let texts: Vec<&str> = documents.iter().map(String::as_str).collect();
            let windows = Windows::of_documents(model, &texts)?;
            prediction(model, against, windows, corpus.range, options, progress)?
        }
    };
    Ok(Evaluation {
        task: corpus.task().name().to_string(),
        mode: mode_name(options.session.mode).to_string(),
        samples,
        metrics,
        // Logits that are not finite are an error.
        not_finite: 0,
    })
}

type Metrics = BTreeMap<String, f64>;

fn prediction(
    model: &LanguageModel,
    against: Option<&LanguageModel>,
    mut windows: Windows,
    range: SampleRange,
    options: &TextOptions,
    progress: &dyn Progress,
) -> Result<(usize, Metrics)> {
    windows.keep(range.resolve(windows.len())?);
    progress.start("score", windows.len());
    let mut listener = |_: usize, _: usize| progress.step();
    let scoring = ScoreOptions { session: options.session.clone(), cache: options.cache };
    let metrics = match (against, &options.save) {
        (Some(_), Some(_)) => return Err(no_predictions("scored against another model")),
        (None, None) => of_score(&score(model, &windows, &scoring, &mut listener)?),
        (Some(reference), None) => {
            of_distance(&compare(model, reference, &windows, &scoring, &mut listener)?)
        }
        (None, Some((path, output))) => {
            let tokens: Vec<&[u32]> = windows.tokens().collect();
            let vocabulary = model.decoder()?.vocabulary;
            let mut writer = predictions::Writer::create(path, &tokens, vocabulary, output)?;
            let mut look = |row: &[f32]| writer.add(row);
            let score = score_and_look(model, &windows, &scoring, &mut listener, &mut look)?;
            writer.finish()?;
            of_score(&score)
        }
    };
    progress.finish();
    Ok((windows.len(), metrics))
}

fn no_predictions(what: &str) -> Error {
    Error::usage(format!("no predictions are kept of what is {what}"))
        .code("FB-2608")
        .hint("score a text by itself")
}

fn of_score(score: &Score) -> Metrics {
    named([
        ("perplexity", score.perplexity),
        ("perplexity_error", score.error),
        ("tokens", score.tokens as f64),
    ])
}

fn of_distance(distance: &Distance) -> Metrics {
    let mut metrics = of_score(&distance.model);
    metrics.append(&mut named([
        ("reference_perplexity", distance.reference.perplexity),
        ("kl_divergence", distance.divergence),
        ("kl_divergence_error", distance.divergence_error),
        ("kl_divergence_999", distance.divergence_999),
        ("kl_divergence_max", distance.divergence_max),
        ("agreement", distance.agreement),
        ("probability_change", distance.probability_change),
    ]));
    metrics
}

fn named<const N: usize>(values: [(&str, f64); N]) -> Metrics {
    values.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
}

fn similarity(
    model: &LanguageModel,
    pairs: &[SentencePair],
    options: &SessionOptions,
    progress: &dyn Progress,
) -> Result<(usize, Metrics)> {
    let embedder = Embedder::new(model, options)?;
    let texts: Vec<&str> =
        pairs.iter().flat_map(|p| p.sentences.iter().map(String::as_str)).collect();
    progress.start("embed", texts.len());
    let mut done = 0;
    let vectors = embedder.embed(&texts, &mut |now| {
        (done..now).for_each(|_| progress.step());
        done = now;
    })?;
    progress.finish();
    let found: Vec<f64> = vectors.chunks_exact(2).map(|pair| cosine(&pair[0], &pair[1])).collect();
    let truth: Vec<f64> = pairs.iter().map(|pair| pair.score).collect();
    Ok((pairs.len(), named([("spearman", spearman(&found, &truth))])))
}
