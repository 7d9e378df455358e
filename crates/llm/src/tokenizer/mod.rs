//! Text to tokens and back, over the `tokenizers` library.
//!
//! Its `tokenizer.json` is the one form: what a GGUF file says is brought into it first.

pub(crate) mod gguf;
pub(crate) mod pre;

use crate::source::Settings;
use fewbit_core::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// More ids than this without a token are a slip in the file: no vocabulary has as many tokens.
const MOST_UNUSED: usize = 1 << 20;

/// A tokenizer with what is known of its special tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    ends: Vec<u32>,
    adds_bos: bool,
    /// Special tokens by what `tokenizer_config.json` calls them.
    specials: BTreeMap<&'static str, String>,
    templates: Templates,
}

/// Chat templates.
#[derive(Default)]
struct Templates {
    /// That of conversations.
    main: Option<String>,
    /// Names of several, where it is not clear which one that is.
    names: Vec<String>,
}

/// Tokens that tell how a text goes on: the last of them that has a text is among so many.
const BEFORE: usize = 16;

/// Special tokens that templates may ask for.
const SPECIALS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

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
        let spelled = |name: &&'static str| Some((*name, token_text(config, name)?.to_string()));
        let specials = SPECIALS.iter().filter_map(spelled).collect();
        let templates = templates(config);
        let mut tokenizer = Tokenizer { inner, bos, ends, adds_bos: false, specials, templates };
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
        TextStream { tokenizer: self, inner: self.inner.decode_stream(true), silent: Vec::new() }
    }

    /// As [`stream`](Tokenizer::stream), behind tokens that are written already: spaces are those
    /// of one text. (Decoders leave out the first one of a text.)
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn stream_behind(&self, before: &[u32]) -> Result<TextStream<'_>> {
        let mut stream = self.stream();
        for &id in &before[before.len().saturating_sub(BEFORE)..] {
            stream.push(id)?;
        }
        Ok(stream)
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

    /// The spellings of special tokens by their names, such as `eos_token`.
    pub fn specials(&self) -> &BTreeMap<&'static str, String> {
        &self.specials
    }

    /// The chat template, in Jinja.
    pub fn template(&self) -> Option<&str> {
        self.templates.main.as_deref()
    }

    /// The names of the chat templates where there are several, and none is that of
    /// [`template`](Tokenizer::template).
    pub fn templates(&self) -> &[String] {
        &self.templates.names
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
    tokenizer: &'t Tokenizer,
    inner: Inner<'t>,
    /// Tokens since the last piece.
    silent: Vec<u32>,
}

impl TextStream<'_> {
    /// The text that one more token completes; often empty.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.silent.push(id);
        let piece = match self.inner.step(id) {
            Ok(None) => return Ok(String::new()),
            Ok(Some(piece)) => piece,
            // Bytes that are no text, behind others that are: decoders spell them all anew.
            Err(_) => {
                self.inner = self.tokenizer.inner.decode_stream(true);
                self.inner.step(id).map_err(|e| failed(&e.to_string()))?;
                self.tokenizer.decode(&self.silent)?
            }
        };
        self.silent.clear();
        Ok(piece)
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
fn templates(config: &Settings) -> Templates {
    let list = match config.get("chat_template") {
        Some(Value::String(text)) => {
            return Templates { main: Some(text.clone()), names: Vec::new() };
        }
        Some(Value::Array(list)) => list.as_slice(),
        _ => &[],
    };
    let text = |template: &Value, field: &str| Some(template.get(field)?.as_str()?.to_string());
    let is_default = |t: &&Value| text(t, "name").as_deref() == Some("default");
    let only = if let [only] = list { Some(only) } else { None };
    match list.iter().find(is_default).or(only).and_then(|chosen| text(chosen, "template")) {
        None => {
            Templates { main: None, names: list.iter().filter_map(|t| text(t, "name")).collect() }
        }
        main => Templates { main, names: Vec::new() },
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
