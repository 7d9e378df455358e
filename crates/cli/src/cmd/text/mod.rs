//! Commands of language models, and the flags they share.

pub mod chat;
pub mod embed;
pub mod generate;
mod prompts;

use crate::flags::{ModeFlag, Work};
use fewbit::SessionOptions;
use fewbit::llm::{
    CacheType, CacheTypes, Finish, Generation, GeneratorOptions, LanguageModel, Sampler, Sampling,
    Speed,
};

/// How a model writes.
#[derive(clap::Args)]
pub struct Writing {
    /// Most new tokens; 0 for as many as fit
    #[arg(
        short = 'n',
        long,
        default_value_t = 512,
        value_name = "N",
        allow_negative_numbers = true
    )]
    max_tokens: usize,
    /// 0 takes the most likely token always; higher is more varied
    #[arg(long, default_value_t = 0.8, value_name = "T", value_parser = not_negative, allow_negative_numbers = true)]
    temperature: f32,
    /// Only the K most likely tokens; 0 for all
    #[arg(long, default_value_t = 40, value_name = "K")]
    top_k: usize,
    /// Only the most likely tokens that together have this probability
    #[arg(long, default_value_t = 0.95, value_name = "P", value_parser = probability, allow_negative_numbers = true)]
    top_p: f32,
    /// Only tokens at least this probable, relative to the most likely one
    #[arg(long, default_value_t = 0.05, value_name = "P", value_parser = probability, allow_negative_numbers = true)]
    min_p: f32,
    /// Makes tokens of the last 64 less likely; 1 for no penalty
    #[arg(long, default_value_t = 1.0, value_name = "X", value_parser = positive, allow_negative_numbers = true)]
    repeat_penalty: f32,
    /// Where the pseudo-random numbers begin: equal seeds write alike
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Text that ends the writing; repeatable
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Longest text in tokens, prompt included; 0 takes what the model was made for
    #[arg(long, default_value_t = 0, value_name = "N")]
    context: usize,
    #[command(flatten)]
    cache: CacheFlags,
    /// How the model is run
    #[arg(long, value_enum, default_value = "integer")]
    mode: ModeFlag,
}

/// What keys and values of earlier tokens are kept in.
#[derive(clap::Args)]
pub struct CacheFlags {
    /// What keys and values of earlier tokens are kept in
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = cache_type)]
    cache_type: CacheType,
    /// The same for keys alone
    #[arg(long, value_name = "TYPE", value_parser = cache_type)]
    cache_type_k: Option<CacheType>,
    /// The same for values alone
    #[arg(long, value_name = "TYPE", value_parser = cache_type)]
    cache_type_v: Option<CacheType>,
}

impl CacheFlags {
    /// Keys and values by themselves, where they are given.
    pub fn types(&self) -> CacheTypes {
        CacheTypes {
            keys: self.cache_type_k.unwrap_or(self.cache_type),
            values: self.cache_type_v.unwrap_or(self.cache_type),
        }
    }
}

fn cache_type(text: &str) -> Result<CacheType, String> {
    let known = || CacheType::ALL.into_iter();
    known().find(|ty| ty.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
        let names: Vec<&str> = known().map(CacheType::name).collect();
        format!("expected one of {}", names.join(", "))
    })
}

impl Writing {
    fn sampler(&self) -> Sampler {
        Sampler::new(self.sampling())
    }

    fn sampling(&self) -> Sampling {
        Sampling {
            repeat_penalty: self.repeat_penalty,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            temperature: self.temperature,
            seed: self.seed,
            ..Sampling::default()
        }
    }

    fn limits(&self) -> Generation {
        Generation { max_tokens: self.max_tokens, stop: self.stop.clone(), ignore_end: false }
    }

    fn options(&self, work: &Work) -> GeneratorOptions {
        let session = SessionOptions::new(self.mode.into()).threads(work.threads);
        GeneratorOptions { session, context: self.context, cache: self.cache.types() }
    }

    /// The same for texts that are known to become no longer than `tokens`, if they are.
    fn options_for(
        &self,
        work: &Work,
        model: &LanguageModel,
        tokens: Option<usize>,
    ) -> GeneratorOptions {
        let mut options = self.options(work);
        if let (0, Some(tokens)) = (options.context, tokens) {
            options.context = model.context_for(tokens);
        }
        options
    }
}

/// Tokens of a text with a prompt of so many, if there is a bound.
fn longest(prompt: usize, limits: &Generation) -> Option<usize> {
    (limits.max_tokens > 0).then(|| prompt.saturating_add(limits.max_tokens))
}

/// `12 tokens in 0.5 s (24 per second)` for the prompt and for what was written.
fn speeds(speed: &Speed) -> String {
    let part = |tokens: usize, seconds: f64| {
        let rate = if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 };
        format!("{tokens} tokens in {seconds:.2} s ({rate:.1} per second)")
    };
    format!(
        "prompt {}, written {}",
        part(speed.prompt_tokens, speed.prompt_seconds),
        part(speed.tokens, speed.seconds)
    )
}

/// Word for the end of a text.
fn ending(finish: Finish) -> &'static str {
    match finish {
        Finish::End => "end",
        Finish::Stop => "stop",
        Finish::Length => "length",
        Finish::Context => "context",
        Finish::Cancelled => "cancelled",
    }
}

fn number(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "expected a number".to_string())?;
    if value.is_finite() { Ok(value) } else { Err("expected a finite number".to_string()) }
}

fn not_negative(text: &str) -> Result<f32, String> {
    number(text).and_then(|v| if v >= 0.0 { Ok(v) } else { Err("expected 0 or more".to_string()) })
}

fn positive(text: &str) -> Result<f32, String> {
    number(text).and_then(|v| if v > 0.0 { Ok(v) } else { Err("expected more than 0".to_string()) })
}

fn probability(text: &str) -> Result<f32, String> {
    let inside = |v: f32| (0.0..=1.0).contains(&v);
    number(text).and_then(|v| if inside(v) { Ok(v) } else { Err("expected 0 to 1".to_string()) })
}
