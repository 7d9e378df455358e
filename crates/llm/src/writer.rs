//! One text as it is written: from logits to the next token, its text, and the end.

use crate::generate::{Finish, Generation};
use crate::perplexity::check_logits;
use crate::sample::Sampler;
use crate::tokenizer::{TextStream, Tokenizer};
use fewbit_core::Result;

/// A text and what ends it.
pub(crate) struct Writer<'t> {
    tokenizer: &'t Tokenizer,
    limits: Generation,
    /// Longest text in tokens.
    context: usize,
    /// Tokens of the prompt.
    prompt: usize,
    text: Vec<u32>,
    stream: TextStream<'t>,
    /// What may be the beginning of a stop text.
    held: String,
}

impl<'t> Writer<'t> {
    /// # Errors
    /// When tokens of the prompt have no text.
    pub fn new(
        tokenizer: &'t Tokenizer,
        prompt: &[u32],
        limits: Generation,
        context: usize,
    ) -> Result<Writer<'t>> {
        let (text, held) = (prompt.to_vec(), String::new());
        let stream = tokenizer.stream_behind(prompt)?;
        Ok(Writer { tokenizer, limits, context, prompt: prompt.len(), text, stream, held })
    }

    /// All tokens, with those of the prompt.
    pub fn text(&self) -> &[u32] {
        &self.text
    }

    /// The tokens behind the prompt.
    pub fn into_new(mut self) -> Vec<u32> {
        self.text.split_off(self.prompt)
    }

    /// Chooses the next token; gives what of the text is certain now, and why it ends here.
    ///
    /// # Errors
    /// When a token has no text, or a logit is not finite.
    pub fn advance(
        &mut self,
        logits: &mut [f32],
        sampler: &mut Sampler,
    ) -> Result<(String, Option<Finish>)> {
        check_logits(logits, self.text.len().saturating_sub(1))?;
        let token = sampler.pick(logits, &self.text);
        if self.tokenizer.ends().contains(&token) && !self.limits.ignore_end {
            return Ok((std::mem::take(&mut self.held), Some(Finish::End)));
        }
        self.text.push(token);
        self.held += &self.stream.push(token)?;
        let found = self.stops().filter_map(|stop| self.held.find(stop)).min();
        if let Some(at) = found {
            self.held.truncate(at);
            return Ok((std::mem::take(&mut self.held), Some(Finish::Stop)));
        }
        let finish = self.limit();
        let keep = match finish {
            Some(_) => 0,
            None => self.stops().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0),
        };
        let rest = self.held.split_off(self.held.len() - keep);
        Ok((std::mem::replace(&mut self.held, rest), finish))
    }

    fn stops(&self) -> impl Iterator<Item = &str> {
        self.limits.stop.iter().map(String::as_str).filter(|stop| !stop.is_empty())
    }

    fn limit(&self) -> Option<Finish> {
        let new = self.text.len() - self.prompt;
        match self.limits.max_tokens {
            most if most != 0 && new >= most => Some(Finish::Length),
            _ if self.text.len() >= self.context => Some(Finish::Context),
            _ => None,
        }
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
