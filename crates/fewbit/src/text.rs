//! Scoring language models.

use crate::evaluate::{Evaluation, mode_name};
use fewbit_core::Result;
use fewbit_exec::SessionOptions;
use fewbit_formats::data::{Corpus, CorpusKind, SampleRange, SentencePair};
use fewbit_llm::embed::{cosine, spearman};
use fewbit_llm::perplexity::{Distance, Score, Windows, compare, score};
use fewbit_llm::{Embedder, LanguageModel};
use fewbit_quant::Progress;
use std::collections::BTreeMap;

/// How a language model is scored.
#[derive(Clone, Debug, Default)]
pub struct TextOptions {
    /// Mode and threads.
    pub session: SessionOptions,
    /// Tokens of a window; 0 takes 512.
    pub context: usize,
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
    let metrics = match against {
        None => of_score(&score(model, &windows, &options.session, &mut listener)?),
        Some(reference) => {
            of_distance(&compare(model, reference, &windows, &options.session, &mut listener)?)
        }
    };
    progress.finish();
    Ok((windows.len(), metrics))
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
