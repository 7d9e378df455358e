//! Encoders of the BERT class: every token sees every other.

use super::attention::{HeadShape, Scores, attend, project};
use super::builder::{Builder, Size, dims};
use super::feed_forward::FeedForward;
use super::names;
use super::norm::Norm;
use super::portable::BlockForm;
use crate::source::Weights;
use fewbit_core::{DType, Model, Result, ResultExt, ValueId};

/// An encoder (Devlin et al. 2018, "BERT").
#[derive(Clone, Debug, PartialEq)]
pub struct Encoder {
    /// Length of hidden states.
    pub hidden: usize,
    /// Longest text, in tokens.
    pub context: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number and size of heads.
    pub heads: HeadShape,
    /// Normalization behind each part of a layer.
    pub norm: Norm,
    /// The feed-forward part.
    pub feed_forward: FeedForward,
}

impl Encoder {
    /// The graph: [`names::TOKENS`], [`names::POSITIONS`] and [`names::TOKEN_TYPES`] in,
    /// [`names::HIDDEN`] out. The texts of a batch must be of one length.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than the configuration says.
    pub fn graph(&self, name: &str, weights: &dyn Weights) -> Result<Model> {
        self.graph_in(name, weights, BlockForm::Stored)
    }

    /// As [`graph`](Encoder::graph), with weights in blocks in another form.
    ///
    /// # Errors
    /// As `graph`, and when a type of blocks has no such form.
    pub fn graph_in(&self, name: &str, weights: &dyn Weights, form: BlockForm) -> Result<Model> {
        let mut b = Builder::new(name, weights);
        b.form = form;
        let mut x = self.embed(&mut b)?;
        for index in 0..self.layers {
            x = self.layer(&mut b, &format!("blk.{index}"), x).at(|| format!("layer {index}"))?;
        }
        let out = b.simple("Identity", names::HIDDEN.to_string(), &[x])?;
        b.graph.add_output(out);
        let model = super::model(b.graph, b.form);
        model.graph.verify(None)?;
        Ok(model)
    }

    fn embed(&self, b: &mut Builder) -> Result<ValueId> {
        let text = [Size::Named(dims::BATCH), Size::Named(dims::SEQUENCE)];
        let tokens = b.input(names::TOKENS, DType::I64, &text)?;
        let positions = b.input(names::POSITIONS, DType::I64, &text)?;
        let types = b.input(names::TOKEN_TYPES, DType::I64, &text)?;
        let word = b.rows("token_embd.weight", tokens, self.hidden)?;
        let place = b.rows("position_embd.weight", positions, self.hidden)?;
        let kind = b.rows("token_types.weight", types, self.hidden)?;
        let x = b.simple("Add", "embedding.typed".to_string(), &[word, kind])?;
        let x = b.simple("Add", "embedding.placed".to_string(), &[x, place])?;
        self.norm.apply(b, "token_embd_norm", x, self.hidden)
    }

    fn layer(&self, b: &mut Builder, prefix: &str, x: ValueId) -> Result<ValueId> {
        let name = |part: &str| format!("{prefix}.{part}");
        let p = project(b, prefix, x, self.hidden, self.heads)?;
        let scores = Scores {
            heads: self.heads,
            scale: 1.0 / (self.heads.size as f32).sqrt(),
            cap: None,
            causal: false,
            mask: None,
            valid: None,
        };
        let y = attend(b, name("attention"), [p.q, p.k, p.v], scores)?;
        let width = self.heads.queries * self.heads.size;
        let (y, _) = b.linear(&name("attn_output"), y, width)?;
        let x = b.simple("Add", name("attn_residual"), &[y, x])?;
        let x = self.norm.apply(b, &name("attn_output_norm"), x, self.hidden)?;
        let y = self.feed_forward.apply(b, prefix, x, self.hidden)?;
        let x = b.simple("Add", name("ffn_residual"), &[y, x])?;
        self.norm.apply(b, &name("layer_output_norm"), x, self.hidden)
    }
}
