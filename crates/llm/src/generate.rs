//! Text token by token.

use crate::graph::decoder::{Decoder, State};
use crate::graph::names;
use crate::model::LanguageModel;
use crate::sample::Sampler;
use crate::state::Cache;
use crate::tokenizer::Tokenizer;
use fewbit_core::{Error, Result, ResultExt, Tensor};
use fewbit_exec::{Session, SessionOptions};
use std::time::Instant;

/// Tokens of a prompt that run at once.
const CHUNK: usize = 512;

/// How a generator runs.
#[derive(Clone, Debug, Default)]
pub struct GeneratorOptions {
    /// Mode and threads.
    pub session: SessionOptions,
    /// Longest text in tokens, prompt included; 0 takes what the model was made for.
    pub context: usize,
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
    decoder: &'m Decoder,
    tokenizer: &'m Tokenizer,
    session: Session,
    context: usize,
    cache: Cache,
    /// Tokens whose keys and values are in the cache.
    seen: Vec<u32>,
}

impl<'m> Generator<'m> {
    /// Prepares a model.
    ///
    /// # Errors
    /// For encoders, and when the model contradicts itself.
    pub fn new(model: &'m LanguageModel, options: &GeneratorOptions) -> Result<Generator<'m>> {
        let decoder = model.decoder()?;
        let session = Session::new(&model.graph(State::Cache)?, &options.session)?;
        let context = match options.context {
            0 => decoder.context,
            n if decoder.learned_positions => n.min(decoder.context),
            n => n,
        };
        let (tokenizer, cache) = (model.tokenizer(), Cache::new(decoder));
        Ok(Generator { decoder, tokenizer, session, context, cache, seen: Vec::new() })
    }

    /// Longest text in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The prepared graph.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Logits of the token after `tokens`, which is the whole text so far.
    ///
    /// # Errors
    /// When the text is empty or longer than the context, or a token is not in the vocabulary.
    pub fn logits(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        if tokens.is_empty() {
            return Err(Error::usage("there is nothing to continue").code("FB-2602"));
        }
        if tokens.len() > self.context {
            let what = format!("{} tokens; the context holds {}", tokens.len(), self.context);
            return Err(Error::usage(what).code("FB-2603").hint("shorten the prompt"));
        }
        if let Some(&token) = tokens.iter().find(|&&t| t as usize >= self.decoder.vocabulary) {
            let what = format!("token {token} is not among the {}", self.decoder.vocabulary);
            return Err(Error::bad_input(what).code("FB-3707"));
        }
        let common = self.seen.iter().zip(tokens).take_while(|(a, b)| a == b).count();
        self.seen.truncate(common.min(tokens.len() - 1));
        let mut logits = Vec::new();
        while self.seen.len() < tokens.len() {
            let end = tokens.len().min(self.seen.len() + CHUNK);
            logits = self.step(&tokens[self.seen.len()..end])?;
        }
        Ok(logits)
    }

    /// Runs new tokens at the end of those seen.
    fn step(&mut self, new: &[u32]) -> Result<Vec<f32>> {
        let start = self.seen.len();
        let end = start + new.len();
        if let Err(error) = self.cache.reserve(end, start) {
            self.seen.clear();
            return Err(error);
        }
        let row = |values: Vec<i64>| Tensor::from_slice(vec![1, new.len()], &values);
        let past = self.cache.take();
        let mut inputs = vec![
            (names::TOKENS, row(new.iter().map(|&t| i64::from(t)).collect())?),
            (names::POSITIONS, row((start..end).map(|p| p as i64).collect())?),
            (names::ROWS, Tensor::vector(&[new.len() as i64 - 1])),
        ];
        let (past_names, tensors): (Vec<String>, Vec<Tensor>) = past.into_iter().unzip();
        inputs.extend(past_names.iter().map(String::as_str).zip(tensors));
        // A run that fails takes the cache with it.
        let seen = std::mem::take(&mut self.seen);
        let mut outputs =
            self.session.run_owned(inputs).at(|| format!("token {start}"))?.into_iter();
        let Some((_, logits)) = outputs.next() else {
            return Err(Error::internal("a decoder without logits"));
        };
        self.cache.put_back(outputs.map(|(_, tensor)| tensor));
        self.seen = seen;
        self.seen.extend_from_slice(new);
        logits.to_f32()
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
        let mut text = prompt.to_vec();
        let tokenizer = self.tokenizer;
        let mut out = Outlet::new(tokenizer.stream(), &limits.stop, listener);
        let finish = loop {
            let token = sampler.pick(&mut logits, &text);
            if tokenizer.ends().contains(&token) && !limits.ignore_end {
                break out.finish(Finish::End);
            }
            text.push(token);
            if let Some(finish) = out.push(token)? {
                break finish;
            }
            if limits.max_tokens != 0 && text.len() - prompt.len() >= limits.max_tokens {
                break out.finish(Finish::Length);
            }
            if text.len() >= self.context {
                break out.finish(Finish::Context);
            }
            logits = self.logits(&text)?;
        };
        let new = text.split_off(prompt.len());
        (speed.tokens, speed.seconds) = (new.len(), began.elapsed().as_secs_f64());
        Ok((new, finish, speed))
    }
}

/// Text on its way out: what may be the beginning of a stop text is held back.
struct Outlet<'o, 't> {
    stream: crate::tokenizer::TextStream<'t>,
    stop: &'o [String],
    held: String,
    listener: &'o mut dyn FnMut(&str) -> bool,
}

impl<'o, 't> Outlet<'o, 't> {
    fn new(
        stream: crate::tokenizer::TextStream<'t>,
        stop: &'o [String],
        listener: &'o mut dyn FnMut(&str) -> bool,
    ) -> Self {
        Outlet { stream, stop, held: String::new(), listener }
    }

    fn push(&mut self, token: u32) -> Result<Option<Finish>> {
        self.held += &self.stream.push(token)?;
        let found = self
            .stop
            .iter()
            .filter(|s| !s.is_empty())
            .filter_map(|s| self.held.find(s.as_str()))
            .min();
        if let Some(at) = found {
            self.held.truncate(at);
            return Ok(Some(self.finish(Finish::Stop)));
        }
        let keep = self.stop.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        let piece = std::mem::replace(&mut self.held, rest);
        let wanted = piece.is_empty() || (self.listener)(&piece);
        Ok((!wanted).then_some(Finish::Cancelled))
    }

    fn finish(&mut self, finish: Finish) -> Finish {
        let rest = std::mem::take(&mut self.held);
        if !rest.is_empty() {
            (self.listener)(&rest);
        }
        finish
    }
}

/// Bytes at the end of `text` that may be the beginning of `stop`.
fn overlap(text: &str, stop: &str) -> usize {
    let starts = stop.char_indices().map(|(at, _)| at).skip(1);
    starts.filter(|&len| text.ends_with(&stop[..len])).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn what_may_become_a_stop_text_is_held_back() {
        assert_eq!(overlap("hello\nUs", "\nUser:"), 3);
        assert_eq!(overlap("hello", "\nUser:"), 0);
        assert_eq!(overlap("é", "éé"), 2);
        assert_eq!(overlap("x", ""), 0);
    }
}
