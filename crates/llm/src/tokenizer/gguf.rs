//! The tokenizer inside a GGUF file, brought into the form of `tokenizer.json`.

use super::pre;
use crate::source::Settings;
use fewbit_core::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::HashMap;

/// Token kinds of GGUF (`tokenizer.ggml.token_type`).
pub(crate) mod kind {
    pub const NORMAL: i64 = 1;
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER: i64 = 4;
    pub const UNUSED: i64 = 5;
    pub const BYTE: i64 = 6;
}

/// Longer tokens are not looked at for merges: there would be too many ways to cut them.
const MAX_MERGED_BYTES: usize = 256;

/// What stands for a space in SentencePiece.
pub(crate) const SPACE: char = '\u{2581}';

/// What a GGUF file says of its tokenizer.
#[derive(Debug, Default)]
pub(crate) struct Vocabulary {
    /// `gpt2` (byte-level BPE), `llama` (SentencePiece) or `bert` (WordPiece).
    pub model: String,
    /// How text is cut before BPE.
    pub pre: String,
    pub tokens: Vec<String>,
    pub scores: Vec<f32>,
    pub kinds: Vec<i64>,
    pub merges: Vec<String>,
    pub bos: Option<u32>,
    pub eos: Option<u32>,
    pub unknown: Option<u32>,
    pub padding: Option<u32>,
    pub class: Option<u32>,
    pub separator: Option<u32>,
    pub add_bos: Option<bool>,
    pub add_eos: Option<bool>,
    pub add_space: Option<bool>,
    pub template: Option<String>,
    /// Whether WordPiece looks at small letters only.
    pub lowercase: Option<bool>,
}

impl Vocabulary {
    /// The fields of `tokenizer.json` and of `tokenizer_config.json`.
    ///
    /// # Errors
    /// When the kind of tokenizer is not known, or its parts contradict each other.
    pub fn describe(&self) -> Result<(Map<String, Value>, Settings)> {
        self.check()?;
        let fields = match self.model.as_str() {
            "gpt2" => self.byte_level()?,
            "llama" => self.sentence_piece(),
            "bert" => self.word_piece(),
            other => {
                return Err(Error::unsupported(format!("a tokenizer of the kind `{other}`"))
                    .code("FB-4710")
                    .hint("known are gpt2 (BPE), llama (SentencePiece) and bert (WordPiece)"));
            }
        };
        let Value::Object(fields) = fields else {
            return Err(Error::internal("a tokenizer that is no object"));
        };
        let mut config = Settings::default();
        for (name, id) in [
            ("bos_token", self.bos),
            ("eos_token", self.eos),
            ("unk_token", self.unknown),
            ("pad_token", self.padding),
        ] {
            if let Some(text) = self.spelled(id) {
                config.set(name, text);
            }
        }
        if let Some(template) = &self.template {
            config.set("chat_template", template.as_str());
        }
        Ok((fields, config))
    }

    fn check(&self) -> Result<()> {
        let tokens = self.tokens.len();
        let fits = |list: usize| list == 0 || list == tokens;
        if tokens == 0 || !fits(self.scores.len()) || !fits(self.kinds.len()) {
            let (scores, kinds) = (self.scores.len(), self.kinds.len());
            let what = format!("{tokens} tokens with {scores} scores and {kinds} kinds");
            return Err(Error::bad_input(what).code("FB-3710"));
        }
        Ok(())
    }

    fn spelled(&self, id: Option<u32>) -> Option<&str> {
        self.tokens.get(id? as usize).map(String::as_str)
    }

    fn kind(&self, index: usize) -> i64 {
        self.kinds.get(index).copied().unwrap_or(kind::NORMAL)
    }

    /// Whether a token is one that steers rather than text.
    pub fn is_control(&self, index: usize) -> bool {
        self.kind(index) == kind::CONTROL
    }

    /// Tokens that are never made of letters: they stand in the text as they are.
    fn added(&self) -> Vec<Value> {
        let chosen = |&(index, _): &(usize, &String)| {
            matches!(self.kind(index), kind::CONTROL | kind::USER | kind::UNKNOWN)
        };
        let entry = |(index, text): (usize, &String)| {
            let special = self.kind(index) != kind::USER;
            json!({
                "id": index, "content": text, "special": special, "single_word": false,
                "lstrip": false, "rstrip": false, "normalized": false,
            })
        };
        let named = |(_, text): &(usize, &String)| !text.is_empty();
        self.tokens.iter().enumerate().filter(chosen).filter(named).map(entry).collect()
    }

    fn vocab(&self) -> Map<String, Value> {
        self.tokens.iter().enumerate().map(|(id, text)| (text.clone(), json!(id))).collect()
    }

    /// The tokens around every text.
    fn template_processing(&self, first: Option<u32>, last: Option<u32>) -> Value {
        let mut specials = Map::new();
        let mut part = |id: Option<u32>| -> Option<String> {
            let text = self.spelled(id)?.to_string();
            specials.insert(text.clone(), json!({"id": text, "ids": [id], "tokens": [text]}));
            Some(text)
        };
        let (first, last) = (part(first), part(last));
        let special = |text: &String| json!({"SpecialToken": {"id": text, "type_id": 0}});
        let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        let around = |inner: Vec<Value>| -> Vec<Value> {
            let begin = first.iter().map(special);
            begin.chain(inner).chain(last.iter().map(special)).collect()
        };
        json!({
            "type": "TemplateProcessing",
            "single": around(vec![sequence("A")]),
            "pair": around(vec![sequence("A"), sequence("B")]),
            "special_tokens": specials,
        })
    }

    fn byte_level(&self) -> Result<Value> {
        let rule = pre::rule(&self.pre)?;
        let bytes = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
        });
        let mut steps: Vec<Value> = rule.patterns.iter().map(|p| split(p)).collect();
        steps.push(bytes.clone());
        let first = self.bos.filter(|_| self.add_bos.unwrap_or(rule.add_bos));
        let last = self.eos.filter(|_| self.add_eos.unwrap_or(false));
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added(),
            "normalizer": if rule.nfc { json!({"type": "NFC"}) } else { Value::Null },
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
            "post_processor": self.template_processing(first, last),
            "decoder": bytes,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": false, "byte_fallback": false, "ignore_merges": rule.ignore_merges,
                "vocab": self.vocab(), "merges": self.merges,
            },
        }))
    }

    fn sentence_piece(&self) -> Value {
        let prefix = self.add_space.unwrap_or(true);
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let back = json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "});
        let mut normalizers = vec![spaces];
        let mut decoders = vec![back, json!({"type": "ByteFallback"}), json!({"type": "Fuse"})];
        if prefix {
            normalizers.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
            decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        let first = self.bos.filter(|_| self.add_bos.unwrap_or(true));
        let last = self.eos.filter(|_| self.add_eos.unwrap_or(false));
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added(),
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null,
            "post_processor": self.template_processing(first, last),
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE", "dropout": null, "unk_token": self.spelled(self.unknown),
                "continuing_subword_prefix": null, "end_of_word_suffix": null,
                "fuse_unk": true, "byte_fallback": true, "ignore_merges": false,
                "vocab": self.vocab(), "merges": self.merges_by_score(),
            },
        })
    }

    /// SentencePiece joins the pair whose token has the best score; in BPE that is a list of
    /// pairs in the order of the scores of what they make.
    fn merges_by_score(&self) -> Vec<String> {
        let ids: HashMap<&str, usize> =
            self.tokens.iter().enumerate().map(|(i, t)| (t.as_str(), i)).collect();
        let mut found = Vec::new();
        for (index, token) in self.tokens.iter().enumerate() {
            let plain = !matches!(
                self.kind(index),
                kind::CONTROL | kind::UNKNOWN | kind::UNUSED | kind::BYTE
            );
            if !plain || token.len() > MAX_MERGED_BYTES {
                continue;
            }
            let cuts = token.char_indices().skip(1).map(|(at, _)| token.split_at(at));
            let mut pairs: Vec<(usize, usize)> =
                cuts.filter_map(|(l, r)| Some((*ids.get(l)?, *ids.get(r)?))).collect();
            pairs.sort_unstable();
            let score = self.scores.get(index).copied().unwrap_or(0.0);
            found.extend(pairs.into_iter().map(|(l, r)| (score, l, r)));
        }
        let length = |id: usize| self.tokens[id].chars().count();
        found.sort_by(|&(a, al, ar), &(b, bl, br)| {
            let lengths = (length(bl), length(br)).cmp(&(length(al), length(ar)));
            b.total_cmp(&a).then(lengths)
        });
        found
            .into_iter()
            .map(|(_, l, r)| format!("{} {}", self.tokens[l], self.tokens[r]))
            .collect()
    }

    /// GGUF marks the beginnings of words, WordPiece what follows them.
    fn word_piece(&self) -> Value {
        let special =
            |index: usize| self.kind(index) == kind::CONTROL || self.kind(index) == kind::UNKNOWN;
        let piece = |(id, text): (usize, &String)| {
            let text = match text.strip_prefix(SPACE) {
                Some(word) => word.to_string(),
                None if special(id) || text.starts_with('[') => text.clone(),
                None => format!("##{text}"),
            };
            (text, json!(id))
        };
        let vocab: Map<String, Value> = self.tokens.iter().enumerate().map(piece).collect();
        let find = |text: &str| {
            let at = self.tokens.iter().position(|t| t == text)?;
            u32::try_from(at).ok()
        };
        let first = self.class.or_else(|| find("[CLS]")).or(self.bos);
        let last = self.separator.or_else(|| find("[SEP]")).or(self.eos);
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added(),
            "normalizer": {
                "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": self.lowercase.unwrap_or(true),
            },
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": self.template_processing(first, last),
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {
                "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocab,
            },
        })
    }
}

fn split(pattern: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;

    fn tokenizer(vocabulary: &Vocabulary) -> Tokenizer {
        let (fields, config) = vocabulary.describe().unwrap();
        Tokenizer::from_json(fields, &config, &[]).unwrap()
    }

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|t| t.to_string()).collect()
    }

    #[test]
    fn sentence_piece_joins_the_best_score_first() {
        let tokens = words(&[
            "<unk>",
            "<s>",
            "</s>",
            "<0x0A>",
            "\u{2581}",
            "a",
            "b",
            "ab",
            "\u{2581}a",
            "\u{2581}ab",
        ]);
        let t = tokenizer(&Vocabulary {
            model: "llama".into(),
            scores: vec![0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -1.0, -2.0, -3.0],
            kinds: vec![2, 3, 3, 6, 1, 1, 1, 1, 1, 1],
            bos: Some(1),
            eos: Some(2),
            unknown: Some(0),
            tokens,
            ..Vocabulary::default()
        });
        assert_eq!(t.encode("ab a", true).unwrap(), [1, 9, 8]);
        assert_eq!(t.encode("ab\na", false).unwrap(), [9, 3, 5]);
        assert_eq!(t.decode(&[1, 9, 8, 2]).unwrap(), "ab a");
        assert_eq!((t.bos(), t.ends(), t.adds_bos()), (Some(1), &[2][..], true));
        let mut stream = t.stream();
        let pieces: String = [9, 8].iter().map(|&id| stream.push(id).unwrap()).collect();
        assert_eq!(pieces, "ab a");
        // Behind other tokens, a space is a space.
        for (before, expected) in [(&[1, 9][..], " a"), (&[1], "a"), (&[9, 3], " a")] {
            let mut stream = t.stream_behind(before).unwrap();
            assert_eq!(stream.push(8).unwrap(), expected, "{before:?}");
        }
        let specials = t.specials().iter().map(|(name, text)| (*name, text.as_str()));
        let expected = [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")];
        assert_eq!(specials.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn bytes_that_are_no_text_do_not_end_it() {
        let tokens = words(&["<unk>", "<0xE2>", "<0x82>", "<0xAC>", "<0xFF>", "a"]);
        let t = tokenizer(&Vocabulary {
            model: "llama".into(),
            scores: vec![0.0; 6],
            kinds: vec![2, 6, 6, 6, 6, 1],
            unknown: Some(0),
            tokens,
            ..Vocabulary::default()
        });
        let mut stream = t.stream();
        let pieces = [1, 2, 3, 4, 5, 5].map(|id| stream.push(id).unwrap());
        assert_eq!(pieces, ["", "", "€", "", "\u{fffd}a", "a"]);
    }

    #[test]
    fn byte_level_merges_within_words() {
        let tokens = words(&["<|end|>", "a", "b", "\u{120}", "ab", "\u{120}ab", "1", "2", "12"]);
        let t = tokenizer(&Vocabulary {
            model: "gpt2".into(),
            pre: "smollm".into(),
            kinds: vec![3, 1, 1, 1, 1, 1, 1, 1, 1],
            merges: words(&["a b", "\u{120} ab", "1 2"]),
            eos: Some(0),
            tokens,
            ..Vocabulary::default()
        });
        // The digits stay apart: they are cut before they can merge.
        assert_eq!(t.encode("ab ab12<|end|>", true).unwrap(), [4, 5, 6, 7, 0]);
        assert_eq!(t.decode(&[4, 5, 6]).unwrap(), "ab ab1");
    }

    #[test]
    fn word_piece_takes_the_longest_piece() {
        let tokens =
            words(&["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u{2581}un", "able", "\u{2581}able", "!"]);
        let t = tokenizer(&Vocabulary {
            model: "bert".into(),
            kinds: vec![3, 2, 3, 3, 1, 1, 1, 1],
            tokens,
            ..Vocabulary::default()
        });
        assert_eq!(t.encode("Unable able x", true).unwrap(), [2, 4, 5, 6, 1, 3]);
    }

    #[test]
    fn damaged_vocabularies_are_refused() {
        let empty = Vocabulary { model: "gpt2".into(), ..Vocabulary::default() };
        assert_eq!(empty.describe().unwrap_err().stable_code(), "FB-3710");
        let odd =
            Vocabulary { model: "rwkv".into(), tokens: words(&["a"]), ..Vocabulary::default() };
        assert_eq!(odd.describe().unwrap_err().stable_code(), "FB-4710");
        let short = Vocabulary {
            model: "llama".into(),
            tokens: words(&["a", "b"]),
            scores: vec![0.0],
            ..Vocabulary::default()
        };
        assert_eq!(short.describe().unwrap_err().stable_code(), "FB-3710");
    }
}
