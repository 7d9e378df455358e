//! Whether a GGUF file of a model says all that the model computes.
//!
//! GGUF has keys for some settings; others, such as nonlinearities, programs know of each family.
//! So what the written metadata mean is compared with the model itself: nothing is lost silently.

use super::piece::Pieces;
use super::seen::View;
use crate::arch::Network;
use crate::graph::attention::HeadShape;
use crate::graph::decoder::{Decoder, Layer};
use crate::graph::encoder::Encoder;
use crate::graph::{FeedForward, Norm, Rotary};
use crate::model::LanguageModel;
use crate::source::gguf;
use fewbit_core::{Error, Result};
use fewbit_formats::gguf::Metadata;

/// Numbers of a model are as near as that to those that follow from the metadata, which hold
/// fewer digits.
const NEAR: f32 = 1e-5;

/// Refuses what would be lost.
///
/// # Errors
/// When a program that reads the file would compute something else, with what.
pub(super) fn check(model: &LanguageModel, metadata: &Metadata, pieces: &Pieces) -> Result<()> {
    let (architecture, settings) = gguf::architecture(metadata)?;
    let weights = View { weights: &*model.checkpoint().weights, pieces };
    let lost = match (model.network(), &(architecture.network)(&settings, &weights)?) {
        (Network::Decoder(own), Network::Decoder(read)) => decoders(own, read),
        (Network::Encoder(own), Network::Encoder(read)) => encoders(own, read),
        _ => Some("the model is of another kind".to_string()),
    };
    let Some(what) = lost else { return Ok(()) };
    let what = format!("{what}, which is not what GGUF files of `{}` mean", architecture.gguf);
    Err(Error::unsupported(what)
        .code("FB-4712")
        .hint("GGUF has no key for it: another program would compute something else"))
}

/// What a decoder computes in another way than one that was read.
fn decoders(own: &Decoder, read: &Decoder) -> Option<String> {
    let shapes = own.heads == read.heads && own.layers.len() == read.layers.len();
    let same_norms = is_norm(own.norm, read.norm)
        && own.post_norms == read.post_norms
        && own.head_norm.is_some() == read.head_norm.is_some();
    unless(shapes, || heads(own.heads))
        .or_else(|| layers(own, read))
        .or_else(|| numbers(own, read))
        .or_else(|| unless(same_norms, norms))
        .or_else(|| feed_forward(own.feed_forward, read.feed_forward))
}

fn encoders(own: &Encoder, read: &Encoder) -> Option<String> {
    let shapes = own.heads == read.heads && own.layers == read.layers;
    unless(shapes, || heads(own.heads))
        .or_else(|| unless(is_norm(own.norm, read.norm), norms))
        .or_else(|| feed_forward(own.feed_forward, read.feed_forward))
}

fn heads(HeadShape { queries, keys, size }: HeadShape) -> String {
    format!("each layer has {queries} heads, {keys} of keys, of {size} elements")
}

fn norms() -> String {
    "hidden states are normalized in another way".to_string()
}

fn unless(same: bool, what: impl FnOnce() -> String) -> Option<String> {
    (!same).then(what)
}

fn feed_forward(own: FeedForward, read: FeedForward) -> Option<String> {
    unless(own == read, || format!("the nonlinearity is {:?}", own.activation))
}

/// Factors and bounds.
fn numbers(own: &Decoder, read: &Decoder) -> Option<String> {
    let numbers = [
        ("scores are multiplied by", Some(own.scale), Some(read.scale)),
        ("scores are bounded by", own.score_cap, read.score_cap),
        ("logits are bounded by", own.logit_cap, read.logit_cap),
        ("embeddings are multiplied by", own.embedding_scale, read.embedding_scale),
    ];
    numbers.into_iter().find_map(|(what, own, read)| {
        let same = match (own, read) {
            (Some(own), Some(read)) => near(own, read),
            (own, read) => own == read,
        };
        let own = own.map_or("nothing".to_string(), |own| own.to_string());
        unless(same, || format!("{what} {own}"))
    })
}

/// The first layer that differs.
fn layers(own: &Decoder, read: &Decoder) -> Option<String> {
    let mut pairs = own.layers.iter().zip(&read.layers).enumerate();
    pairs.find_map(|(index, (a, b))| {
        let what = layer((own, a), (read, b))?;
        Some(format!("layer {index} {what}"))
    })
}

/// What a layer does in another way.
fn layer(own: (&Decoder, &Layer), read: (&Decoder, &Layer)) -> Option<String> {
    if own.1.window != read.1.window {
        let seen = own.1.window.map_or("all".to_string(), |window| format!("the last {window}"));
        return Some(format!("sees {seen} of the tokens"));
    }
    let rotary = |(decoder, layer): (&Decoder, &Layer)| {
        layer.rotary.and_then(|index| decoder.rotaries.get(index)).cloned()
    };
    match (rotary(own), rotary(read)) {
        (None, None) => None,
        (Some(own), Some(read)) if is_rotary(&own, &read) => None,
        (None, _) => Some("is not rotated".to_string()),
        _ => Some("is rotated in another way".to_string()),
    }
}

/// Whether pairs are neighbours does not count: rows are brought in that order.
fn is_rotary(own: &Rotary, read: &Rotary) -> bool {
    let turns =
        |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| near(*a, *b));
    let long = match (&own.long, &read.long) {
        (None, None) => true,
        (Some(a), Some(b)) => a.beyond == b.beyond && turns(&a.frequencies, &b.frequencies),
        _ => false,
    };
    long && near(own.magnitude, read.magnitude) && turns(&own.frequencies, &read.frequencies)
}

/// What is added to stored scales does not count: it is added when they are written.
fn is_norm(own: Norm, read: Norm) -> bool {
    match (own, read) {
        (Norm::Rms { epsilon: a, .. }, Norm::Rms { epsilon: b, .. })
        | (Norm::Layer { epsilon: a }, Norm::Layer { epsilon: b }) => near(a, b),
        _ => false,
    }
}

fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= NEAR * a.abs().max(b.abs())
}
