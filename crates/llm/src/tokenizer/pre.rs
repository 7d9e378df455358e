//! How text is cut before byte-level BPE, by the names that GGUF has for it
//! (`tokenizer.ggml.pre`).

use fewbit_core::{Error, Result};

/// What tokenizer.json has for [`TEKKEN`].
const TEKKEN_JSON: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// One way to cut.
#[derive(Debug)]
pub(super) struct Rule {
    /// Names in GGUF.
    names: &'static [&'static str],
    /// Applied one after another; what each finds is cut out.
    pub patterns: &'static [&'static str],
    /// Whether a word that is a token stays one, whatever the merges.
    pub ignore_merges: bool,
    /// Whether texts begin with the token for that, unless the file says otherwise.
    pub add_bos: bool,
    /// Whether text is brought into the composed form of Unicode first.
    pub nfc: bool,
}

/// How GPT-2 cuts; what `ByteLevel` of tokenizer.json does unless told otherwise.
pub(crate) const GPT2: &str =
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))*((?=[\p{L}])([^A-Z]))+|[^\r\n\p{L}\p{N}]?((?=[\p{L}])([^a-z]))+((?=[\p{L}])([^A-Z]))*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const PLAIN: Rule =
    Rule { names: &[], patterns: &[], ignore_merges: false, add_bos: false, nfc: false };

const RULES: &[Rule] = &[
    Rule {
        names: &["gpt-2", "phi-2", "gpt2", "mpt", "olmo", "jais", "roberta-bpe", "exaone4"],
        patterns: &[GPT2],
        ..PLAIN
    },
    Rule {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Rule { names: &["dbrx", "smaug-bpe"], patterns: &[LLAMA3], ..PLAIN },
    Rule {
        names: &["qwen2", "deepseek-r1-qwen", "megrez"],
        patterns: &[QWEN2],
        nfc: true,
        ..PLAIN
    },
    Rule {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell"],
        patterns: &[r"\p{N}", GPT2],
        ..PLAIN
    },
    Rule { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true, ..PLAIN },
    Rule {
        names: &["default", ""],
        patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]"],
        ..PLAIN
    },
];

/// The rule of that name.
///
/// # Errors
/// When there is none.
pub(super) fn rule(name: &str) -> Result<&'static Rule> {
    RULES.iter().find(|rule| rule.names.contains(&name)).ok_or_else(|| {
        let known: Vec<&str> = RULES.iter().flat_map(|r| r.names).copied().collect();
        Error::unsupported(format!("texts that are cut as `{name}` says"))
            .code("FB-4710")
            .hint(format!("known are: {}", known.join(", ")))
    })
}

/// The name in GGUF of the rule with these patterns; of two, the one that agrees about composing.
///
/// # Errors
/// When there is none.
pub(crate) fn name_of(patterns: &[String], nfc: bool) -> Result<&'static str> {
    let fits = |rule: &&Rule| {
        let same = rule.patterns.iter().eq(patterns);
        same || (rule.patterns == [TEKKEN] && patterns == [TEKKEN_JSON])
    };
    let agrees = |rule: &&Rule| rule.nfc == nfc;
    let found = RULES.iter().filter(fits).find(agrees).or_else(|| RULES.iter().find(fits));
    found.map(|rule| rule.names[0]).ok_or_else(|| {
        Error::unsupported(format!(
            "a tokenizer that cuts text by {patterns:?} has no name in GGUF"
        ))
        .code("FB-4711")
        .hint("llama.cpp knows only the rules of published models")
    })
}
