//! A decoder with a cache, ready to run.

use crate::generate::GeneratorOptions;
use crate::graph::CacheTypes;
use crate::graph::decoder::{Decoder, State};
use crate::graph::names;
use crate::model::LanguageModel;
use crate::state::Cache;
use crate::tokenizer::Tokenizer;
use fewbit_core::{Error, Result, Tensor};
use fewbit_exec::Session;

/// Tokens of a prompt that run at once.
pub(crate) const CHUNK: usize = 512;

/// What runs the tokens of one or more texts.
pub(crate) struct Runner<'m> {
    pub tokenizer: &'m Tokenizer,
    pub session: Session,
    /// Longest text in tokens.
    pub context: usize,
    decoder: &'m Decoder,
    types: CacheTypes,
}

impl<'m> Runner<'m> {
    /// # Errors
    /// For encoders, when heads do not fit the type of the cache, and when the model contradicts
    /// itself.
    pub fn new(model: &'m LanguageModel, options: &GeneratorOptions) -> Result<Runner<'m>> {
        let (decoder, tokenizer) = (model.decoder()?, model.tokenizer());
        let context = match options.context {
            0 => decoder.context,
            n if decoder.learned_positions => n.min(decoder.context),
            n => n,
        };
        let graph = model.graph_for(State::Windowed(options.cache), context)?;
        let session = Session::new(&graph, &options.session)?;
        Ok(Runner { tokenizer, session, context, decoder, types: options.cache })
    }

    /// An empty cache.
    ///
    /// # Errors
    /// When heads do not fit its type.
    pub fn cache(&self) -> Result<Cache> {
        Cache::new(self.decoder, self.types, true)
    }

    /// Checks a text that is to be continued.
    ///
    /// # Errors
    /// When it is empty or longer than the context, or a token is not in the vocabulary.
    pub fn check(&self, tokens: &[u32]) -> Result<()> {
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
        Ok(())
    }

    /// Runs new tokens of the texts in the cache, in order: the position of the first, and equally
    /// many of each. Gives the logits behind the last of each, a row for each text.
    ///
    /// # Errors
    /// When a run fails; the cache is lost then.
    pub fn run(&self, cache: &mut Cache, texts: &[(usize, &[u32])]) -> Result<Vec<f32>> {
        let count = texts.first().map_or(0, |(_, tokens)| tokens.len());
        let shape = vec![texts.len(), count];
        let tokens = texts.iter().flat_map(|(_, tokens)| tokens.iter().map(|&t| i64::from(t)));
        let places = texts.iter().flat_map(|&(start, _)| start as i64..(start + count) as i64);
        let integers = |values: Vec<i64>| Tensor::from_slice(shape.clone(), &values);
        let mut inputs = vec![
            (names::TOKENS, integers(tokens.collect())?),
            (names::POSITIONS, integers(places.collect())?),
            (names::ROWS, Tensor::vector(&[count as i64 - 1])),
        ];
        let (past, tensors): (Vec<String>, Vec<Tensor>) = cache.take().into_iter().unzip();
        inputs.extend(past.iter().map(String::as_str).zip(tensors));
        let mut outputs = self.session.run_owned(inputs)?.into_iter();
        let Some((_, logits)) = outputs.next() else {
            return Err(Error::internal("a decoder without logits"));
        };
        cache.put_back(outputs.map(|(_, tensor)| tensor));
        logits.to_f32()
    }
}
