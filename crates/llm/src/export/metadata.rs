//! The settings of a model as metadata of a GGUF file, under the keys and in the order of
//! llama.cpp's converter.

use super::piece::Piece;
use super::vocabulary;
use crate::arch::rope;
use crate::arch::{Architecture, Network};
use crate::graph::Norm;
use crate::graph::decoder::Decoder;
use crate::graph::encoder::Encoder;
use crate::model::LanguageModel;
use crate::source::Settings;
use fewbit_core::{Error, Result, ResultExt};
use fewbit_formats::gguf::{Metadata, Value};
use std::f64::consts::PI;

/// Ways of pooling in GGUF.
mod pooling {
    pub const MEAN: u32 = 1;
    pub const FIRST: u32 = 2;
}

/// All metadata but the type of the file.
pub(super) fn metadata(model: &LanguageModel, pieces: &[Piece]) -> Result<Metadata> {
    let checkpoint = model.checkpoint();
    let architecture = checkpoint.architecture;
    let mut keys = Keys { gguf: architecture.gguf, metadata: Metadata::default() };
    keys.metadata.set("general.architecture", architecture.gguf);
    keys.metadata.set("general.type", "model");
    if let Some(name) = checkpoint.path.file_name() {
        keys.metadata.set("general.name", name.to_string_lossy().as_ref());
    }
    match model.network() {
        Network::Decoder(decoder) => {
            keys.decoder(decoder, architecture, &checkpoint.settings, pieces)?;
        }
        Network::Encoder(encoder) => keys.encoder(encoder, model, pieces)?,
    }
    let rows = rows_of_embedding(pieces);
    vocabulary::add(&mut keys.metadata, model, rows).at(|| "tokenizer")?;
    Ok(keys.metadata)
}

fn rows_of_embedding(pieces: &[Piece]) -> usize {
    let embedding = pieces.iter().find(|p| p.info.name == "token_embd.weight");
    embedding.map_or(0, |piece| piece.info.rows())
}

/// Width of the hidden part of the feed-forward network.
fn inner_width(pieces: &[Piece]) -> usize {
    let down = pieces.iter().find(|p| p.info.name == "blk.0.ffn_down.weight");
    down.map_or(0, |piece| piece.info.row_elements())
}

struct Keys {
    gguf: &'static str,
    metadata: Metadata,
}

impl Keys {
    fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.metadata.set(format!("{}.{key}", self.gguf), value);
    }

    fn size(&mut self, key: &str, size: usize) -> Result<()> {
        let size = u32::try_from(size)
            .map_err(|_| Error::bad_input(format!("{key} is {size}")).code("FB-3705"))?;
        self.set(key, size);
        Ok(())
    }

    fn decoder(
        &mut self,
        decoder: &Decoder,
        architecture: &Architecture,
        settings: &Settings,
        pieces: &[Piece],
    ) -> Result<()> {
        let heads = decoder.heads;
        self.size("block_count", decoder.layers.len())?;
        self.size("context_length", decoder.context)?;
        self.size("embedding_length", decoder.hidden)?;
        self.size("feed_forward_length", inner_width(pieces))?;
        self.size("attention.head_count", heads.queries)?;
        if !decoder.learned_positions {
            self.size("attention.head_count_kv", heads.keys)?;
            self.rotation(decoder, settings)?;
        }
        self.norm(decoder.norm);
        if settings.get("head_dim").is_some() || architecture.gguf.starts_with("gemma") {
            self.size("attention.key_length", heads.size)?;
            self.size("attention.value_length", heads.size)?;
        }
        self.size("vocab_size", rows_of_embedding(pieces))?;
        self.windows(decoder)?;
        if let Some(cap) = decoder.score_cap {
            self.set("attn_logit_softcapping", cap);
        }
        if let Some(cap) = decoder.logit_cap {
            self.set("final_logit_softcapping", cap);
        }
        Ok(())
    }

    fn norm(&mut self, norm: Norm) {
        match norm {
            Norm::Rms { epsilon, .. } => self.set("attention.layer_norm_rms_epsilon", epsilon),
            Norm::Layer { epsilon } => self.set("attention.layer_norm_epsilon", epsilon),
        }
    }

    fn rotation(&mut self, decoder: &Decoder, settings: &Settings) -> Result<()> {
        if let Some(rotary) = decoder.rotaries.first() {
            self.size("rope.dimension_count", 2 * rotary.frequencies.len())?;
        }
        self.set("rope.freq_base", rope::base(settings)? as f32);
        let scaling = rope::scaling(settings);
        let numbers: &[(&str, &str)] = match rope::kind(&scaling) {
            "linear" => &[("factor", "factor")],
            "yarn" => &[
                ("factor", "factor"),
                ("attention_factor", "yarn_attn_factor"),
                ("beta_fast", "yarn_beta_fast"),
                ("beta_slow", "yarn_beta_slow"),
            ],
            "longrope" | "su" => &[],
            _ => return Ok(()),
        };
        let kind = if rope::kind(&scaling) == "su" { "longrope" } else { rope::kind(&scaling) };
        self.set("rope.scaling.type", kind);
        for (name, key) in numbers {
            if let Some(number) = scaling.opt_number(name)? {
                self.set(&format!("rope.scaling.{key}"), number as f32);
            }
        }
        if kind != "linear" {
            self.size("rope.scaling.original_context_length", original(settings, &scaling)?)?;
        }
        if kind == "longrope" {
            let magnitude = decoder.rotaries.first().map_or(1.0, |rotary| rotary.magnitude);
            self.set("rope.scaling.attn_factor", magnitude);
        }
        Ok(())
    }

    /// Only for families whose windows llama.cpp knows, and Mistral's, which it ignores.
    fn windows(&mut self, decoder: &Decoder) -> Result<()> {
        let window = decoder.layers.iter().find_map(|layer| layer.window);
        match (self.gguf, window) {
            ("gemma2" | "gemma3" | "phi3" | "llama", Some(window)) => {
                self.size("attention.sliding_window", window)
            }
            // Without the key, a default that is none of ours would apply.
            ("phi3", None) => self.size("attention.sliding_window", 0),
            _ => Ok(()),
        }
    }

    fn encoder(
        &mut self,
        encoder: &Encoder,
        model: &LanguageModel,
        pieces: &[Piece],
    ) -> Result<()> {
        self.size("block_count", encoder.layers)?;
        self.size("context_length", encoder.context)?;
        self.size("embedding_length", encoder.hidden)?;
        self.size("feed_forward_length", inner_width(pieces))?;
        self.size("attention.head_count", encoder.heads.queries)?;
        self.norm(encoder.norm);
        self.set("attention.causal", false);
        let mean = model.checkpoint().pooling.mean;
        self.set("pooling_type", if mean { pooling::MEAN } else { pooling::FIRST });
        let types = pieces.iter().find(|p| p.info.name == "token_types.weight");
        let types = types.map_or(1, |piece| piece.info.rows());
        self.metadata.set("tokenizer.ggml.token_type_count", types as u32);
        Ok(())
    }
}

/// The context that the model had before its rotation was stretched.
fn original(settings: &Settings, scaling: &Settings) -> Result<usize> {
    if let Some(original) = scaling.opt_size("original_max_position_embeddings")? {
        return Ok(original);
    }
    let context = settings.size_or("max_position_embeddings", 4096)?;
    settings.size_or("original_max_position_embeddings", context)
}

/// Divisors of frequencies, by the name of their tensor.
pub(super) fn rotation_factors(model: &LanguageModel) -> Result<Vec<(&'static str, Vec<f32>)>> {
    let settings = &model.checkpoint().settings;
    let Network::Decoder(decoder) = model.network() else { return Ok(Vec::new()) };
    let scaling = rope::scaling(settings);
    let list = |name: &str| -> Result<Vec<f32>> {
        let found = scaling.numbers(name)?.unwrap_or_default();
        Ok(found.into_iter().map(|v| v as f32).collect())
    };
    match (rope::kind(&scaling), decoder.rotaries.first()) {
        ("llama3", Some(rotary)) => {
            let base = rope::base(settings)?;
            let divisors = llama3_divisors(&scaling, base, rotary.frequencies.len())?;
            Ok(vec![("rope_freqs.weight", divisors)])
        }
        ("longrope" | "su", Some(_)) => Ok(vec![
            ("rope_factors_long.weight", list("long_factor")?),
            ("rope_factors_short.weight", list("short_factor")?),
        ]),
        _ => Ok(Vec::new()),
    }
}

/// What Llama 3.1 divides the frequencies of its pairs by.
pub(super) fn llama3_divisors(scaling: &Settings, base: f64, pairs: usize) -> Result<Vec<f32>> {
    let factor = scaling.positive("factor")?;
    let (low, high) = (scaling.positive("low_freq_factor")?, scaling.positive("high_freq_factor")?);
    let original = scaling.positive("original_max_position_embeddings")?;
    let divisor = |pair: usize| {
        let length = 2.0 * PI * base.powf(pair as f64 / pairs as f64);
        if length < original / high {
            1.0
        } else if length > original / low {
            factor
        } else {
            let smooth = (original / length - low) / (high - low);
            1.0 / ((1.0 - smooth) / factor + smooth)
        }
    };
    Ok((0..pairs).map(|pair| divisor(pair) as f32).collect())
}
