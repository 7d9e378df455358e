//! Text token by token.

use crate::graph::CacheTypes;
use crate::model::LanguageModel;
use crate::runner::{CHUNK, Runner};
use crate::sample::Sampler;
use crate::state::Cache;
use crate::writer::Writer;
use fewbit_core::{Result, ResultExt};
use fewbit_exec::{Session, SessionOptions};
use std::time::Instant;

/// How a generator runs.
#[derive(Clone, Debug, Default)]
pub struct GeneratorOptions {
    /// Mode and threads.
    pub session: SessionOptions,
    /// Longest text in tokens, prompt included; 0 takes what the model was made for.
    pub context: usize,
    /// What keys and values of earlier tokens are kept in.
    pub cache: CacheTypes,
}

/// When to stop.
#[derive(Clone, Debug, Default)]
pub struct Generation {
    /// Most new tokens; 0 for as many as fit.
    pub max_tokens: usize,
    /// Texts that end the generation; they are not part of it.
    pub stop: Vec<String>,
    /// Whether tokens that end a text are ignored.
    pub ignore_end: bool,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model ended the text.
    End,
    /// A stop text was reached.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The context is full.
    Context,
    /// The listener wanted no more.
    Cancelled,
}

/// Tokens and seconds of the two parts of a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Tokens of the prompt that were computed (not found in the cache).
    pub prompt_tokens: usize,
    /// Seconds they took.
    pub prompt_seconds: f64,
    /// New tokens.
    pub tokens: usize,
    /// Seconds they took.
    pub seconds: f64,
}

/// A model that writes. It remembers the text so far: what a new prompt has in common with it is
/// not computed again.
pub struct Generator<'m> {
    runner: Runner<'m>,
    cache: Cache,
    /// Tokens whose keys and values are in the cache.
    seen: Vec<u32>,
}

impl<'m> Generator<'m> {
    /// Prepares a model.
    ///
    /// # Errors
    /// For encoders, when heads do not fit the type of the cache, and when the model contradicts
    /// itself.
    pub fn new(model: &'m LanguageModel, options: &GeneratorOptions) -> Result<Generator<'m>> {
        let runner = Runner::new(model, options)?;
        let cache = runner.cache()?;
        Ok(Generator { runner, cache, seen: Vec::new() })
    }

    /// Longest text in tokens.
    pub fn context(&self) -> usize {
        self.runner.context
    }

    /// Bytes that keys and values of earlier tokens take now.
    pub fn cache_bytes(&self) -> usize {
        self.cache.bytes()
    }

    /// The prepared graph.
    pub fn session(&self) -> &Session {
        &self.runner.session
    }

    /// Logits of the token after `tokens`, which is the whole text so far.
    ///
    /// # Errors
    /// When the text is empty or longer than the context, or a token is not in the vocabulary.
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        self.runner.check(tokens)?;
        let common = self.seen.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        self.seen.truncate(common.min(tokens.len() - 1));
        if !self.cache.holds(self.seen.len()) {
            self.seen.clear();
        }
        let mut logits = Vec::new();
        while self.seen.len() < tokens.len() {
            let end = tokens.len().min(self.seen.len() + CHUNK);
            logits = self.step(&tokens[self.seen.len()..end])?;
        }
        Ok(logits)
    }

    /// Runs new tokens at the end of those seen.
    fn step(&mut self, new: &[u32]) -> Result<Vec<f32>> {
        // A run that fails takes the cache with it.
        let mut seen = std::mem::take(&mut self.seen);
        let start = seen.len();
        self.cache.reserve(new.len(), start)?;
        let logits = self.runner.run(&mut self.cache, &[(start, new)]);
        let logits = logits.at(|| format!("token {start}"))?;
        seen.extend_from_slice(new);
        self.seen = seen;
        Ok(logits)
    }

    /// Continues `prompt`, telling `listener` each piece of text as it comes; generation ends
    /// when it returns false. Gives the new tokens.
    ///
    /// # Errors
    /// When the prompt is empty or too long, or a run fails.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        sampler: &mut Sampler,
        limits: &Generation,
        listener: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(Vec<u32>, Finish, Speed)> {
        let began = Instant::now();
        let cached = self.seen.iter().zip(prompt).take_while(|(a, b)| a == b).count();
        let mut logits = self.logits(prompt)?;
        let mut speed = Speed {
            prompt_tokens: prompt.len() - cached.min(prompt.len() - 1),
            prompt_seconds: began.elapsed().as_secs_f64(),
            ..Speed::default()
        };
        let began = Instant::now();
        let mut writer =
            Writer::new(self.runner.tokenizer, prompt, limits.clone(), self.runner.context)?;
        let finish = loop {
            let (piece, finish) = writer.advance(&mut logits, sampler)?;
            let wanted = piece.is_empty() || listener(&piece);
            match finish {
                Some(finish) => break finish,
                None if !wanted => break Finish::Cancelled,
                None => logits = self.logits(writer.text())?,
            }
        };
        let new = writer.into_new();
        (speed.tokens, speed.seconds) = (new.len(), began.elapsed().as_secs_f64());
        Ok((new, finish, speed))
    }
}
