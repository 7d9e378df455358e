//! A tokenizer as metadata of a GGUF file, under the keys of llama.cpp's converter.

use crate::model::LanguageModel;
use crate::source::{Settings, hugging_face};
use crate::tokenizer::gguf::{SPACE, kind};
use crate::tokenizer::{Tokenizer, pre, token_text};
use fewbit_core::{Error, Result};
use fewbit_formats::gguf::Metadata;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Score of tokens that no merge makes.
const NO_MERGE: f32 = -1e9;

/// Tokens with a key of their own: in tokenizer_config.json, in config.json, in GGUF.
const SPECIAL: &[(&str, &str, &str)] = &[
    ("bos_token", "bos_token_id", "bos"),
    ("eos_token", "eos_token_id", "eos"),
    ("unk_token", "unk_token_id", "unknown"),
    // Misspelled in the format itself.
    ("sep_token", "sep_token_id", "seperator"),
    ("pad_token", "pad_token_id", "padding"),
    ("cls_token", "cls_token_id", "cls"),
    ("mask_token", "mask_token_id", "mask"),
];

/// Adds the tokenizer of a model whose embedding has `rows` rows.
///
/// # Errors
/// When GGUF has no name for what the tokenizer does.
pub(super) fn add(metadata: &mut Metadata, model: &LanguageModel, rows: usize) -> Result<()> {
    let tokenizer = model.tokenizer();
    let fields: Map<String, Value> = serde_json::from_str(&tokenizer.to_json()?)
        .map_err(|e| Error::internal(format!("a tokenizer that is no object: {e}")))?;
    let folder = &model.checkpoint().path;
    let config =
        Settings::new(hugging_face::optional(folder, "tokenizer_config.json", &mut Vec::new())?);
    let vocabulary = Vocabulary {
        settings: &model.checkpoint().settings,
        fields: Settings::new(fields),
        config,
        tokenizer,
        rows,
    };
    vocabulary.write(metadata)
}

struct Vocabulary<'m> {
    tokenizer: &'m Tokenizer,
    /// Of tokenizer.json.
    fields: Settings,
    /// Of tokenizer_config.json.
    config: Settings,
    /// Of config.json.
    settings: &'m Settings,
    rows: usize,
}

/// The kinds of tokenizer that GGUF has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Model {
    ByteLevel,
    SentencePiece,
    WordPiece,
}

impl Vocabulary<'_> {
    fn write(&self, metadata: &mut Metadata) -> Result<()> {
        let model = self.model()?;
        let mut set = |key: &str, value: fewbit_formats::gguf::Value| {
            metadata.set(format!("tokenizer.ggml.{key}"), value);
        };
        let (tokens, kinds) = self.tokens(model)?;
        match model {
            Model::ByteLevel => {
                set("model", "gpt2".into());
                set("pre", pre::name_of(&self.cuts()?, self.composes())?.into());
            }
            Model::SentencePiece => {
                set("model", "llama".into());
                set("pre", "default".into());
                set("scores", self.scores(&tokens)?.into());
                set("add_space_prefix", self.adds_space()?.into());
            }
            Model::WordPiece => {
                set("model", "bert".into());
                set("pre", "default".into());
                let normalizer = self.fields.object("normalizer").unwrap_or_default();
                if normalizer.get("lowercase").is_some() {
                    set("normalizer.lowercase", normalizer.flag("lowercase").into());
                }
            }
        }
        set("token_type", kinds.into());
        set("tokens", tokens.into());
        if model == Model::ByteLevel {
            set(
                "merges",
                self.merges()?.iter().map(|[a, b]| format!("{a} {b}")).collect::<Vec<_>>().into(),
            );
        }
        for (name, id) in self.special_ids() {
            set(&format!("{name}_token_id"), id.into());
        }
        let (first, last) = self.around()?;
        set("add_bos_token", first.into());
        set("add_eos_token", last.into());
        if let Some(template) = self.tokenizer.template() {
            metadata.set("tokenizer.chat_template", template);
        }
        Ok(())
    }

    fn inner(&self) -> Settings {
        self.fields.object("model").unwrap_or_default()
    }

    fn model(&self) -> Result<Model> {
        let inner = self.inner();
        match inner.text("type").unwrap_or_default() {
            "BPE" if inner.flag("byte_fallback") => Ok(Model::SentencePiece),
            "BPE" => Ok(Model::ByteLevel),
            "WordPiece" => Ok(Model::WordPiece),
            other => Err(Error::unsupported(format!("tokenizers of the kind `{other}` in GGUF"))
                .code("FB-4711")
                .hint("BPE and WordPiece can be written")),
        }
    }

    /// Spelling and kind of every token; rows of the embedding without one are filled up.
    fn tokens(&self, model: Model) -> Result<(Vec<String>, Vec<i32>)> {
        let count = self.rows.max(self.tokenizer.len());
        let unknown = self.unknown();
        let added = self.added();
        let mut tokens = Vec::with_capacity(count);
        let mut kinds = Vec::with_capacity(count);
        for id in 0..count {
            let id = u32::try_from(id).map_err(|_| Error::internal("too many tokens"))?;
            let (text, kind) = match (self.tokenizer.spelling(id), added.get(&id)) {
                (None, _) => (format!("[PAD{id}]"), kind::UNUSED),
                (Some(text), _) if unknown == Some(id) && model != Model::ByteLevel => {
                    (text, kind::UNKNOWN)
                }
                (Some(text), Some(true)) => (text, kind::CONTROL),
                (Some(text), Some(false)) if looks_special(&text) => (text, kind::CONTROL),
                (Some(text), Some(false)) => (text.replace(SPACE, " "), kind::USER),
                (Some(text), None) if model == Model::SentencePiece && is_byte(&text) => {
                    (text, kind::BYTE)
                }
                (Some(text), None) => (text, kind::NORMAL),
            };
            tokens.push(if model == Model::WordPiece { word_piece(text, kind) } else { text });
            kinds.push(kind as i32);
        }
        Ok((tokens, kinds))
    }

    /// Ids of tokens that stand in the text as they are, with whether they steer.
    fn added(&self) -> HashMap<u32, bool> {
        let list = self.fields.get("added_tokens").and_then(Value::as_array);
        let entry = |token: &Value| {
            let id = u32::try_from(token.get("id")?.as_u64()?).ok()?;
            Some((id, token.get("special")?.as_bool()?))
        };
        list.into_iter().flatten().filter_map(entry).collect()
    }

    fn unknown(&self) -> Option<u32> {
        let inner = self.inner();
        let text = inner.text("unk_token").or_else(|| token_text(&self.config, "unk_token"))?;
        self.tokenizer.id(text)
    }

    fn special_ids(&self) -> Vec<(&'static str, u32)> {
        let mut found: Vec<(&str, u32)> = Vec::new();
        for (token, id, name) in SPECIAL {
            let spelled = token_text(&self.config, token).and_then(|text| self.tokenizer.id(text));
            let id = spelled.or_else(|| self.settings.ids(id).first().copied());
            found.extend(id.map(|id| (*name, id)));
        }
        let has =
            |found: &[(&str, u32)], name: &str| found.iter().find(|f| f.0 == name).map(|f| f.1);
        if let (None, Some(unknown)) = (has(&found, "unknown"), self.unknown()) {
            found.push(("unknown", unknown));
        }
        // Encoders begin and end texts with tokens of other names.
        for (name, other) in [("bos", "cls"), ("eos", "seperator")] {
            if let (None, Some(id)) = (has(&found, name), has(&found, other)) {
                found.push((name, id));
            }
        }
        found
    }

    /// Whether a token is added in front of every text, and behind it.
    fn around(&self) -> Result<(bool, bool)> {
        let bare = self.tokenizer.encode("a", false)?;
        let whole = self.tokenizer.encode("a", true)?;
        if whole.len() <= bare.len() {
            return Ok((false, false));
        }
        Ok((whole.first() != bare.first(), whole.last() != bare.last()))
    }

    fn adds_space(&self) -> Result<bool> {
        let first = self.tokenizer.encode("a", false)?.first().copied();
        let text = first.and_then(|id| self.tokenizer.spelling(id));
        Ok(text.is_some_and(|text| text.starts_with(SPACE)))
    }

    fn composes(&self) -> bool {
        self.fields.get("normalizer").is_some_and(|value| value.to_string().contains("\"NFC\""))
    }

    /// The patterns that cut a text, in order.
    fn cuts(&self) -> Result<Vec<String>> {
        let Some(step) = self.fields.get("pre_tokenizer") else { return Ok(Vec::new()) };
        let steps = match step.get("pretokenizers").and_then(Value::as_array) {
            Some(steps) => steps.iter().collect(),
            None => vec![step],
        };
        let mut cuts = Vec::new();
        for step in steps {
            cuts.extend(cut(step)?);
        }
        Ok(cuts)
    }

    fn merges(&self) -> Result<Vec<[String; 2]>> {
        let inner = self.inner();
        let list = inner.get("merges").and_then(Value::as_array);
        let bad = || Error::bad_input("a merge that is no pair").code("FB-3710");
        let pair = |merge: &Value| -> Result<[String; 2]> {
            let parts: Vec<&str> = match merge {
                Value::String(text) => text.split_once(' ').map(|(a, b)| vec![a, b]),
                Value::Array(parts) => parts.iter().map(Value::as_str).collect(),
                _ => None,
            }
            .ok_or_else(bad)?;
            let [a, b] = parts[..] else { return Err(bad()) };
            // A space would end the first part; this letter stands for it in byte-level BPE.
            Ok([a, b].map(|part| part.replace(' ', "\u{120}")))
        };
        list.into_iter().flatten().map(pair).collect()
    }

    /// SentencePiece joins the pair whose token has the best score: the earlier the merge, the
    /// better.
    fn scores(&self, tokens: &[String]) -> Result<Vec<f32>> {
        let mut ranks: HashMap<String, f32> = HashMap::new();
        for [a, b] in self.merges()? {
            let rank = -(ranks.len() as f32);
            ranks.entry(format!("{a}{b}")).or_insert(rank);
        }
        Ok(tokens.iter().map(|text| ranks.get(text).copied().unwrap_or(NO_MERGE)).collect())
    }
}

/// The pattern of one step, if it cuts at all.
fn cut(step: &Value) -> Result<Option<String>> {
    let flag = |name: &str| step.get(name).and_then(Value::as_bool);
    match step.get("type").and_then(Value::as_str).unwrap_or_default() {
        "ByteLevel" if flag("use_regex") == Some(false) => Ok(None),
        "ByteLevel" => Ok(Some(pre::GPT2.to_string())),
        "Digits" if flag("individual_digits") == Some(true) => Ok(Some(r"\p{N}".to_string())),
        "Digits" => Ok(Some(r"\p{N}+".to_string())),
        "Split" => match step.pointer("/pattern/Regex").and_then(Value::as_str) {
            Some(pattern) => Ok(Some(pattern.to_string())),
            None => Err(unnamed("a text")),
        },
        other => Err(unnamed(other)),
    }
}

fn unnamed(what: &str) -> Error {
    Error::unsupported(format!("a tokenizer that cuts text by {what} has no name in GGUF"))
        .code("FB-4711")
}

/// As llama.cpp's converter decides.
fn looks_special(text: &str) -> bool {
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || (text.starts_with("<|") && text.ends_with("|>"))
        || (text.starts_with("<\u{ff5c}") && text.ends_with("\u{ff5c}>"))
        || (text.starts_with("<unused") && text.ends_with('>'))
}

fn is_byte(text: &str) -> bool {
    let code = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    code.is_some_and(|code| code.len() == 2 && code.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// WordPiece marks what follows the beginnings of words, GGUF the beginnings.
fn word_piece(text: String, token: i64) -> String {
    match text.strip_prefix("##") {
        _ if matches!(token, kind::CONTROL | kind::UNKNOWN | kind::UNUSED) => text,
        Some(rest) => rest.to_string(),
        None => format!("{SPACE}{text}"),
    }
}
