//! How well a model predicts a text, and how far it is from another one.
//!
//! Long texts are scored as llama.cpp scores them: windows of a fixed number of tokens that do
//! not overlap, in each of which the second half is predicted. Documents are scored whole.

use crate::graph::decoder::{Decoder, State};
use crate::graph::{CacheTypes, names};
use crate::model::LanguageModel;
use crate::sample::greatest;
use crate::state::Cache;
use fewbit_core::{Error, Result, ResultExt, Tensor};
use fewbit_exec::kernels::softmax::log_softmax_f32;
use fewbit_exec::kernels::{Ctx, math};
use fewbit_exec::{OpTable, Session, SessionOptions};
use std::ops::Range;
use std::sync::Arc;

/// Called with the number of windows done and of all.
pub type Listener<'l> = dyn FnMut(usize, usize) + 'l;

/// Called with the logarithms of the probabilities of all tokens, for each predicted token.
pub type Look<'l> = dyn FnMut(&[f32]) -> Result<()> + 'l;

/// Tokens of a window unless another number is asked for.
const WINDOW: usize = 512;
/// Positions whose logits are held at once.
const ROWS: usize = 64;

/// How models are run to score them.
#[derive(Clone, Debug, Default)]
pub struct ScoreOptions {
    /// Mode and threads.
    pub session: SessionOptions,
    /// What keys and values are kept in, as when the model writes. A reference has floats.
    pub cache: CacheTypes,
}

impl From<SessionOptions> for ScoreOptions {
    fn from(session: SessionOptions) -> ScoreOptions {
        ScoreOptions { session, cache: CacheTypes::default() }
    }
}

/// How well a text is predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score {
    /// `e` to the mean negative logarithm of the probabilities.
    pub perplexity: f64,
    /// Its standard error.
    pub error: f64,
    /// Predicted tokens.
    pub tokens: usize,
    /// Windows or documents.
    pub windows: usize,
}

/// How far a model is from a reference, token by token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// The model's score.
    pub model: Score,
    /// The reference's score.
    pub reference: Score,
    /// Mean Kullback-Leibler divergence of the model's distribution from the reference's, in nats.
    pub divergence: f64,
    /// Its standard error.
    pub divergence_error: f64,
    /// The value that 99.9% of the divergences do not exceed.
    pub divergence_999: f64,
    /// The greatest divergence.
    pub divergence_max: f64,
    /// Share of tokens for which both find the same one most likely.
    pub agreement: f64,
    /// Root mean square of the change in the true token's probability.
    pub probability_change: f64,
}

/// Windows of tokens, and which of their tokens are predicted.
pub struct Windows {
    /// The tokens of each window, and the range of positions whose next token is predicted.
    windows: Vec<(Vec<u32>, Range<usize>)>,
}

impl Windows {
    /// Cuts a text into windows of `context` tokens (0 takes 512, or what the model was made
    /// for); the second half of each is predicted.
    ///
    /// # Errors
    /// When the text is shorter than one window.
    pub fn of_text(model: &LanguageModel, text: &str, context: usize) -> Result<Windows> {
        let decoder = model.decoder()?;
        let size = if context == 0 { WINDOW.min(decoder.context) } else { context };
        if size < 4 {
            return Err(
                Error::usage(format!("windows of {size} tokens are too short")).code("FB-2604")
            );
        }
        let tokenizer = model.tokenizer();
        let tokens = tokenizer.encode(text, true)?;
        let begin = tokenizer.bos().filter(|_| tokenizer.adds_bos());
        let windows: Vec<_> = tokens
            .chunks_exact(size)
            .map(|chunk| {
                let mut chunk = chunk.to_vec();
                if let Some(bos) = begin {
                    chunk[0] = bos;
                }
                (chunk, size / 2..size - 1)
            })
            .collect();
        if windows.is_empty() {
            let what = format!("the text has {} tokens, one window has {size}", tokens.len());
            return Err(Error::usage(what).code("FB-2605").hint("take a longer text or --context"));
        }
        Ok(Windows { windows })
    }

    /// One window for each document; every token but the first is predicted. Documents longer
    /// than the model's context are cut.
    ///
    /// # Errors
    /// When no document has two tokens.
    pub fn of_documents(model: &LanguageModel, documents: &[&str]) -> Result<Windows> {
        let context = model.decoder()?.context;
        let mut windows = Vec::with_capacity(documents.len());
        for document in documents {
            let mut tokens = model.tokenizer().encode(document, true)?;
            tokens.truncate(context);
            if tokens.len() > 1 {
                let scored = 0..tokens.len() - 1;
                windows.push((tokens, scored));
            }
        }
        if windows.is_empty() {
            return Err(Error::usage("there is no document to score").code("FB-2605"));
        }
        Ok(Windows { windows })
    }

    /// Leaves the windows of a range, which must lie within [`len`](Windows::len).
    pub fn keep(&mut self, range: Range<usize>) {
        self.windows.truncate(range.end);
        self.windows.drain(..range.start.min(self.windows.len()));
    }

    /// The tokens of each window.
    pub fn tokens(&self) -> impl Iterator<Item = &[u32]> {
        self.windows.iter().map(|(tokens, _)| tokens.as_slice())
    }

    /// Tokens of the longest window.
    fn longest(&self) -> usize {
        self.tokens().map(<[u32]>::len).max().unwrap_or(0)
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Never true: there is at least one window.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }
}

/// Scores a model.
///
/// # Errors
/// When a run fails.
pub fn score(
    model: &LanguageModel,
    windows: &Windows,
    options: &ScoreOptions,
    listener: &mut Listener,
) -> Result<Score> {
    score_and_look(model, windows, options, listener, &mut |_| Ok(()))
}

/// Scores a model; `look` sees its predictions, in the order of the text.
///
/// # Errors
/// When a run or `look` fails.
pub fn score_and_look(
    model: &LanguageModel,
    windows: &Windows,
    options: &ScoreOptions,
    listener: &mut Listener,
    look: &mut Look,
) -> Result<Score> {
    let predictor = Predictor::new(model, windows.longest(), options)?;
    let mut sums = Sums::default();
    for (index, (tokens, scored)) in windows.windows.iter().enumerate() {
        let hidden = predictor.hidden(tokens, scored.clone())?;
        for part in parts(scored) {
            let rows = predictor.log_probabilities(&hidden, &part, scored.start);
            let rows = rows.at(|| format!("window {index}"))?;
            for (row, at) in rows.chunks_exact(predictor.vocabulary).zip(part) {
                sums.add(f64::from(row[tokens[at + 1] as usize]));
                look(row)?;
            }
        }
        listener(index + 1, windows.len());
    }
    Ok(sums.score(windows.len()))
}

/// The positions of a window in parts, so that no more logits than those of one part are held.
fn parts(scored: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = scored.end;
    scored.clone().step_by(ROWS).map(move |start| start..end.min(start + ROWS))
}

/// Runs two models in step on the same tokens, which are those of `windows`; nothing is kept but
/// one number for each token.
///
/// # Errors
/// When the models have vocabularies of different sizes, or a run fails.
pub fn compare(
    model: &LanguageModel,
    reference: &LanguageModel,
    windows: &Windows,
    options: &ScoreOptions,
    listener: &mut Listener,
) -> Result<Distance> {
    let ours = Predictor::new(model, windows.longest(), options)?;
    let base = SessionOptions { mode: fewbit_exec::Mode::Float, ..options.session.clone() };
    let theirs = Predictor::new(reference, windows.longest(), &base.into())?;
    if ours.vocabulary != theirs.vocabulary {
        let what = format!("vocabularies of {} and {} tokens", ours.vocabulary, theirs.vocabulary);
        return Err(Error::usage(what).code("FB-2606").hint("the reference is another model"));
    }
    let mut likeness = Likeness::default();
    for (index, (tokens, scored)) in windows.windows.iter().enumerate() {
        let states = [ours.hidden(tokens, scored.clone())?, theirs.hidden(tokens, scored.clone())?];
        for part in parts(scored) {
            let place = || format!("window {index}");
            let a = ours.log_probabilities(&states[0], &part, scored.start).at(place)?;
            let b = theirs.log_probabilities(&states[1], &part, scored.start);
            let b = b.at(|| "the reference").at(place)?;
            let pairs = a.chunks_exact(ours.vocabulary).zip(b.chunks_exact(ours.vocabulary));
            for ((a, b), at) in pairs.zip(part) {
                likeness.add(a, b, tokens[at + 1] as usize);
            }
        }
        listener(index + 1, windows.len());
    }
    Ok(likeness.distance(windows.len()))
}

/// A model that predicts all tokens of a window at once.
struct Predictor<'m> {
    decoder: &'m Decoder,
    /// What the cache is kept in, if there is one: floats need none to give the same bits.
    cache: Option<CacheTypes>,
    body: Session,
    head: Session,
    width: usize,
    vocabulary: usize,
}

impl<'m> Predictor<'m> {
    fn new(
        model: &'m LanguageModel,
        longest: usize,
        options: &ScoreOptions,
    ) -> Result<Predictor<'m>> {
        let decoder = model.decoder()?;
        let cache = (options.cache != CacheTypes::default()).then_some(options.cache);
        let [body, head] = model.halves(cache.map_or(State::None, State::Cache), longest)?;
        let body = Session::new(&body, &options.session)?;
        let pool = Arc::clone(body.pool());
        let head = Session::with_pool(&head, &options.session, &OpTable::standard(), pool)?;
        let (width, vocabulary) = (decoder.hidden, decoder.vocabulary);
        Ok(Predictor { decoder, cache, body, head, width, vocabulary })
    }

    /// Hidden states of the wanted positions, a row each.
    fn hidden(&self, tokens: &[u32], wanted: Range<usize>) -> Result<Vec<f32>> {
        check_tokens(tokens, self.vocabulary)?;
        let row = |values: Vec<i64>| Tensor::from_slice(vec![1, tokens.len()], &values);
        let wanted: Vec<i64> = wanted.map(|p| p as i64).collect();
        let mut inputs = vec![
            (names::TOKENS.to_string(), row(tokens.iter().map(|&t| i64::from(t)).collect())?),
            (names::POSITIONS.to_string(), row((0..tokens.len() as i64).collect())?),
            (names::ROWS.to_string(), Tensor::vector(&wanted)),
        ];
        if let Some(types) = self.cache {
            let mut cache = Cache::new(self.decoder, types, false)?;
            cache.reserve(tokens.len(), 0)?;
            inputs.extend(cache.take());
        }
        let (names, tensors): (Vec<String>, Vec<Tensor>) = inputs.into_iter().unzip();
        let inputs = names.iter().map(String::as_str).zip(tensors).collect();
        first(self.body.run_owned(inputs)?)?.to_vec()
    }

    /// Logarithms of the probabilities of all tokens, a row for each position of `part`;
    /// `hidden` begins at position `start`.
    fn log_probabilities(
        &self,
        hidden: &[f32],
        part: &Range<usize>,
        start: usize,
    ) -> Result<Vec<f32>> {
        let rows = &hidden[(part.start - start) * self.width..(part.end - start) * self.width];
        let x = Tensor::from_slice(vec![1, part.len(), self.width], rows)?;
        let logits = first(self.head.run_owned(vec![(names::HIDDEN, x)])?)?;
        let logits = logits.cow::<f32>()?;
        for (row, at) in logits.chunks_exact(self.vocabulary).zip(part.clone()) {
            check_logits(row, at)?;
        }
        let mut logs = vec![0.0; logits.len()];
        let ctx = Ctx { isa: self.head.isa(), pool: self.head.pool() };
        log_softmax_f32(ctx, &logits, self.vocabulary, &mut logs);
        Ok(logs)
    }
}

/// # Errors
/// When a token is none of the `vocabulary`.
pub(crate) fn check_tokens(tokens: &[u32], vocabulary: usize) -> Result<()> {
    match tokens.iter().find(|&&t| t as usize >= vocabulary) {
        None => Ok(()),
        Some(token) => {
            let what = format!("token {token} is not among the {vocabulary}");
            let error = Error::bad_input(what).code("FB-3707");
            Err(error.hint("the tokenizer is another model's"))
        }
    }
}

/// # Errors
/// When a logit behind the token at `position` is not finite: it says nothing of what comes next.
pub(crate) fn check_logits(logits: &[f32], position: usize) -> Result<()> {
    match logits.iter().position(|logit| !logit.is_finite()) {
        None => Ok(()),
        Some(token) => {
            let what = format!("the logit of token {token} is {}", logits[token]);
            let error = Error::bad_input(what).at(format!("position {position}")).code("FB-3709");
            Err(error.hint("the model's weights are damaged, or numbers overflow in it"))
        }
    }
}

fn first(outputs: Vec<(String, Tensor)>) -> Result<Tensor> {
    let first = outputs.into_iter().next().map(|(_, tensor)| tensor);
    first.ok_or_else(|| Error::internal("a graph without outputs"))
}

/// Sums of logarithms and of their squares.
#[derive(Default)]
struct Sums {
    sum: f64,
    squares: f64,
    count: usize,
}

impl Sums {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.squares += value * value;
        self.count += 1;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1) as f64
    }

    /// Standard error of the mean.
    fn error(&self) -> f64 {
        let variance = self.squares / self.count.max(1) as f64 - self.mean().powi(2);
        (variance.max(0.0) / self.count.saturating_sub(1).max(1) as f64).sqrt()
    }

    fn score(&self, windows: usize) -> Score {
        let perplexity = (-self.mean()).exp();
        Score { perplexity, error: perplexity * self.error(), tokens: self.count, windows }
    }
}

#[derive(Default)]
struct Likeness {
    model: Sums,
    reference: Sums,
    divergence: Sums,
    each: Vec<f32>,
    same: usize,
    changes: f64,
}

impl Likeness {
    /// Adds one token from the logarithms of both distributions.
    fn add(&mut self, ours: &[f32], theirs: &[f32], token: usize) {
        let (a, b) = (f64::from(ours[token]), f64::from(theirs[token]));
        self.model.add(a);
        self.reference.add(b);
        let terms = ours.iter().zip(theirs).map(|(&a, &b)| {
            let p = math::exp(b);
            if p > 0.0 { f64::from(p) * (f64::from(b) - f64::from(a)) } else { 0.0 }
        });
        let divergence: f64 = terms.sum();
        self.divergence.add(divergence);
        self.each.push(divergence as f32);
        self.same += usize::from(greatest(ours) == greatest(theirs));
        self.changes += (a.exp() - b.exp()).powi(2);
    }

    fn distance(mut self, windows: usize) -> Distance {
        let count = self.each.len().max(1) as f64;
        self.each.sort_unstable_by(f32::total_cmp);
        let last = self.each.len().saturating_sub(1);
        let at = |share: f64| {
            let place = ((share * last as f64).ceil() as usize).min(last);
            self.each.get(place).map_or(0.0, |&d| f64::from(d))
        };
        Distance {
            model: self.model.score(windows),
            reference: self.reference.score(windows),
            divergence: self.divergence.mean(),
            divergence_error: self.divergence.error(),
            divergence_999: at(0.999),
            divergence_max: at(1.0),
            agreement: self.same as f64 / count,
            probability_change: (self.changes / count).sqrt(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_is_no_distance_from_itself() {
        let p = [0.5f32, 0.25, 0.25].map(f32::ln);
        let q = [0.25f32, 0.5, 0.25].map(f32::ln);
        let mut likeness = Likeness::default();
        likeness.add(&p, &p, 0);
        likeness.add(&q, &p, 0);
        let found = likeness.distance(1);
        let second = 0.5 * 2f64.ln() - 0.25 * 2f64.ln();
        assert!((found.divergence - second / 2.0).abs() < 1e-6, "{found:?}");
        assert!((found.divergence_max - second).abs() < 1e-6);
        assert_eq!(found.agreement, 0.5);
        assert!((found.probability_change - (0.0625f64 / 2.0).sqrt()).abs() < 1e-6);
        assert!((found.reference.perplexity - 2.0).abs() < 1e-6);
    }
}
