//! Text to tokens and back, over the `tokenizers` library.
//!
//! Its `tokenizer.json` is the one form: what a GGUF file says is brought into it first.

pub(crate) mod gguf;
pub(crate) mod pre;

use crate::source::Settings;
use fewbit_core::{Error, Result};
use serde_json::{Map, Value};

/// More ids than this without a token are a slip in the file: no vocabulary has as many tokens.
const MOST_UNUSED: usize = 1 << 20;

/// A tokenizer with what is known of its special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    ends: Vec<u32>,
    adds_bos: bool,
    template: Option<String>,
}

impl Tokenizer {
    /// From the fields of `tokenizer.json`, those of `tokenizer_config.json`, and settings that
    /// may name the tokens where a text begins and ends.
    ///
    /// # Errors
    /// `FB-3710` when the description is damaged or of a kind that is not known.
    pub fn from_json(
        main: Map<String, Value>,
        config: &Settings,
        others: &[&Settings],
    ) -> Result<Tokenizer> {
        let mut inner: tokenizers::Tokenizer =
            serde_json::from_value(Value::Object(main)).map_err(|e| damaged(&e.to_string()))?;
        // Cutting and filling are the caller's decision.
        inner.with_truncation(None).map_err(|e| damaged(&e.to_string()))?.with_padding(None);
        let named = |name: &str| inner.token_to_id(token_text(config, name)?);
        let ids = |name: &str| others.iter().flat_map(|s| s.ids(name)).collect::<Vec<u32>>();
        let bos = named("bos_token").or_else(|| ids("bos_token_id").first().copied());
        let mut ends: Vec<u32> = ids("eos_token_id");
        ends.extend(named("eos_token"));
        ends.sort_unstable();
        ends.dedup();
        let template = template(config);
        let mut tokenizer = Tokenizer { inner, bos, ends, adds_bos: false, template };
        tokenizer.adds_bos = bos.is_some() && tokenizer.encode("a", true)?.first() == bos.as_ref();
        Ok(tokenizer)
    }

    /// The tokens of a text. `special` adds what the model expects around every text (such as
    /// the token of its beginning).
    ///
    /// # Errors
    /// When the tokenizer cannot take the text.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, special).map_err(|e| failed(&e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of tokens, without the special ones.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        self.inner.decode(ids, true).map_err(|e| failed(&e.to_string()))
    }

    /// Text as tokens come in one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { inner: self.inner.decode_stream(true) }
    }

    /// The token of the beginning of a text.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Whether every text begins with [`bos`](Tokenizer::bos).
    pub fn adds_bos(&self) -> bool {
        self.adds_bos
    }

    /// Tokens that end a text or a turn.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The chat template, in Jinja.
    pub fn template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// The spelling of a token, `None` for ids without one.
    pub fn spelling(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Number of ids: one more than the highest.
    pub fn len(&self) -> usize {
        let highest = self.inner.get_vocab(true).into_values().max();
        highest.map_or(0, |id| id as usize + 1)
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The id of a token.
    pub fn id(&self, spelling: &str) -> Option<u32> {
        self.inner.token_to_id(spelling)
    }

    /// The whole as `tokenizer.json`.
    ///
    /// # Errors
    /// When ids lie far apart: the library holds a place for each between them.
    pub fn to_json(&self) -> Result<String> {
        let unused = self.len().saturating_sub(self.inner.get_vocab_size(true));
        if unused > MOST_UNUSED {
            let what = format!("{unused} ids below {} stand for no token", self.len());
            return Err(damaged(&what));
        }
        self.inner.to_string(false).map_err(|e| failed(&e.to_string()))
    }
}

type Inner<'t> = tokenizers::tokenizer::DecodeStream<
    't,
    tokenizers::ModelWrapper,
    tokenizers::NormalizerWrapper,
    tokenizers::PreTokenizerWrapper,
    tokenizers::PostProcessorWrapper,
    tokenizers::DecoderWrapper,
>;

/// Turns tokens into text piece by piece. A piece comes as soon as its characters are whole.
pub struct TextStream<'t> {
    inner: Inner<'t>,
}

impl TextStream<'_> {
    /// The text that one more token completes; often empty.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let piece = self.inner.step(id).map_err(|e| failed(&e.to_string()))?;
        Ok(piece.unwrap_or_default())
    }
}

/// `"<s>"` or `{"content": "<s>", ...}`.
pub(crate) fn token_text<'s>(config: &'s Settings, name: &str) -> Option<&'s str> {
    match config.get(name)? {
        Value::String(text) => Some(text),
        Value::Object(fields) => fields.get("content")?.as_str(),
        _ => None,
    }
}

/// One template, or the default of several.
fn template(config: &Settings) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(list) => {
            let is_default = |t: &&Value| t.get("name").and_then(Value::as_str) == Some("default");
            let chosen = list.iter().find(is_default).or(list.first())?;
            chosen.get("template")?.as_str().map(str::to_string)
        }
        _ => None,
    }
}

fn damaged(what: &str) -> Error {
    Error::bad_input(format!("no sound tokenizer: {what}")).code("FB-3710")
}

fn failed(what: &str) -> Error {
    Error::bad_input(format!("the tokenizer failed: {what}")).code("FB-3711")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_that_lie_far_apart_are_refused_before_they_take_memory() {
        let with = |id: u32| {
            let vocabulary = json!({"a": 0, "b": id});
            let model = json!({"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"});
            let main = json!({"version": "1.0", "added_tokens": [], "model": model});
            let none = Settings::new(Map::new());
            Tokenizer::from_json(main.as_object().unwrap().clone(), &none, &[]).unwrap().to_json()
        };
        assert!(with(1000).is_ok());
        assert_eq!(with(1_000_000_000).unwrap_err().stable_code(), "FB-3710");
    }
}
