//! Decoders: one token after another, each seeing those before it.

use super::attention::{HeadShape, Scores, attend, norm_heads, project};
use super::builder::{Builder, Size, dims};
use super::cache::{Cache, CacheTypes};
use super::feed_forward::FeedForward;
use super::names;
use super::norm::Norm;
use super::portable::BlockForm;
use super::rotary::{Angles, Rotary, angles, turn};
use crate::source::Weights;
use fewbit_core::{Attr, DType, Error, Model, Node, Result, ResultExt, Tensor, ValueId};

/// A decoder in the terms that all architectures share.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoder {
    /// Length of hidden states.
    pub hidden: usize,
    /// Number of tokens.
    pub vocabulary: usize,
    /// Longest text the model was made for, in tokens.
    pub context: usize,
    /// Number and size of heads, the same in all layers.
    pub heads: HeadShape,
    /// One entry for each layer.
    pub layers: Vec<Layer>,
    /// Kinds of rotation that layers choose from.
    pub rotaries: Vec<Rotary>,
    /// Normalization of hidden states.
    pub norm: Norm,
    /// Whether the outputs of attention and feed-forward are normalized too (Gemma).
    pub post_norms: bool,
    /// Normalization of each head of queries and keys.
    pub head_norm: Option<Norm>,
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Bound of the scores, by a hyperbolic tangent.
    pub score_cap: Option<f32>,
    /// Bound of the logits.
    pub logit_cap: Option<f32>,
    /// Factor of the embeddings.
    pub embedding_scale: Option<f32>,
    /// Whether a learned vector for each position is added to the embeddings (GPT-2).
    pub learned_positions: bool,
    /// The feed-forward part.
    pub feed_forward: FeedForward,
}

/// How a layer differs from the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// Index into [`Decoder::rotaries`]; `None` for layers without rotation.
    pub rotary: Option<usize>,
    /// Number of last tokens it sees; `None` for all.
    pub window: Option<usize>,
}

/// Where keys and values of earlier tokens come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There are none: whole texts at once, in parallel.
    None,
    /// From inputs `past_key_values.*`, which come out as `present.*` with the new tokens
    /// written in, in the form that they are kept in.
    Cache(CacheTypes),
    /// As `Cache`, but the rows of each head lie in one piece, `[batch, heads, cache, size]`, and
    /// layers with a window have rows for it alone: [`names::first`] says where they begin. It must
    /// be a multiple of 16, so that sums are taken in the order of a text that is computed at once.
    Windowed(CacheTypes),
}

impl Decoder {
    /// Elements of keys (and of values) that one layer keeps for each token.
    pub fn cache_width(&self) -> usize {
        self.heads.keys * self.heads.size
    }

    /// The same for texts of at most `longest` tokens: some models turn long ones in another way.
    /// Graphs of a decoder itself are for those that are not long.
    #[must_use]
    pub fn for_texts(&self, longest: usize) -> Decoder {
        let rotaries = self.rotaries.iter().map(|rotary| rotary.for_texts(longest)).collect();
        Decoder { rotaries, ..self.clone() }
    }

    /// The graph. Inputs, outputs and their shapes: [`names`].
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than the configuration says.
    pub fn graph(&self, name: &str, weights: &dyn Weights, state: State) -> Result<Model> {
        self.graph_in(name, weights, state, BlockForm::Stored)
    }

    /// As [`graph`](Decoder::graph), with weights in blocks in another form.
    ///
    /// # Errors
    /// As `graph`, and when a type of blocks has no such form.
    pub fn graph_in(
        &self,
        name: &str,
        weights: &dyn Weights,
        state: State,
        form: BlockForm,
    ) -> Result<Model> {
        let mut b = Builder::new(name, weights);
        b.form = form;
        let x = self.hidden(&mut b, state)?;
        let logits = self.logits(&mut b, x)?;
        b.graph.add_output(logits);
        self.state_outputs(&mut b, state)?;
        finished(b)
    }

    fn state_outputs(&self, b: &mut Builder, state: State) -> Result<()> {
        let layers = if state == State::None { 0 } else { self.layers.len() };
        for index in 0..layers {
            for what in ["key", "value"] {
                let present = b.graph.value_named_or_new(&names::present(index, what))?;
                b.graph.add_output(present);
            }
        }
        Ok(())
    }

    /// The graph up to the hidden states of the wanted rows, [`names::HIDDEN`];
    /// [`head`](Decoder::head) does the rest. Logits of many rows are large.
    ///
    /// # Errors
    /// As [`graph`](Decoder::graph).
    pub fn body(&self, name: &str, weights: &dyn Weights, state: State) -> Result<Model> {
        let mut b = Builder::new(name, weights);
        let x = self.hidden(&mut b, state)?;
        let out = b.simple("Identity", names::HIDDEN.to_string(), &[x])?;
        b.graph.add_output(out);
        self.state_outputs(&mut b, state)?;
        finished(b)
    }

    /// The graph from hidden states, [`names::HIDDEN`], to [`names::LOGITS`].
    ///
    /// # Errors
    /// As [`graph`](Decoder::graph).
    pub fn head(&self, name: &str, weights: &dyn Weights) -> Result<Model> {
        let mut b = Builder::new(name, weights);
        let shape = [Size::Named(dims::BATCH), Size::Named(dims::ROWS), Size::Fixed(self.hidden)];
        let x = b.input(names::HIDDEN, DType::F32, &shape)?;
        let logits = self.logits(&mut b, x)?;
        b.graph.add_output(logits);
        finished(b)
    }

    /// The graph from tokens and positions to what goes into the first layer,
    /// [`names::HIDDEN`].
    ///
    /// # Errors
    /// As [`graph`](Decoder::graph).
    pub fn embedding(&self, name: &str, weights: &dyn Weights) -> Result<Model> {
        let mut b = Builder::new(name, weights);
        let tokens = text_input(&mut b, names::TOKENS)?;
        let positions = match self.learned_positions {
            true => Some(text_input(&mut b, names::POSITIONS)?),
            false => None,
        };
        let x = self.embed(&mut b, tokens, positions)?;
        let out = b.simple("Identity", names::HIDDEN.to_string(), &[x])?;
        b.graph.add_output(out);
        finished(b)
    }

    /// One layer alone, without a cache: from [`names::HIDDEN`], `f32[batch, sequence, hidden]`,
    /// and [`names::POSITIONS`] to [`names::LAYER`], of the same shape, or what the matrix
    /// `until` is multiplied with; and for each weight matrix in it that value, in order.
    ///
    /// # Errors
    /// As [`graph`](Decoder::graph); an internal error when there is no such layer or matrix.
    pub fn layer_graph(
        &self,
        name: &str,
        weights: &dyn Weights,
        index: usize,
        until: Option<&str>,
    ) -> Result<(Model, Vec<(String, String)>)> {
        let layer = self.layers.get(index).ok_or_else(|| Error::internal("no such layer"))?;
        let mut b = Builder::new(name, weights);
        let [batch, sequence] = [Size::Named(dims::BATCH), Size::Named(dims::SEQUENCE)];
        let x = b.input(names::HIDDEN, DType::F32, &[batch, sequence, Size::Fixed(self.hidden)])?;
        let positions = text_input(&mut b, names::POSITIONS)?;
        let run = Run::new(&mut b, self, positions, State::None)?;
        let y = self.layer(&mut b, x, index, layer, &run).at(|| format!("layer {index}"))?;
        let products = std::mem::take(&mut b.products);
        let end = match until {
            None => Some(y),
            Some(name) => products.iter().find(|(matrix, _)| matrix == name).map(|(_, x)| *x),
        };
        let end = end.ok_or_else(|| Error::internal("no such matrix in the layer"))?;
        let out = b.simple("Identity", names::LAYER.to_string(), &[end])?;
        b.graph.add_output(out);
        let named = |(matrix, x): (String, ValueId)| (matrix, b.graph.name_of(x).to_string());
        let products = products.into_iter().map(named).collect();
        Ok((finished(b)?, products))
    }

    /// Hidden states of the wanted rows behind all layers.
    fn hidden(&self, b: &mut Builder, state: State) -> Result<ValueId> {
        let tokens = text_input(b, names::TOKENS)?;
        let positions = text_input(b, names::POSITIONS)?;
        let rows = b.input(names::ROWS, DType::I64, &[Size::Named(dims::ROWS)])?;
        let run = Run::new(b, self, positions, state)?;
        let mut x = self.embed(b, tokens, Some(positions))?;
        for (index, layer) in self.layers.iter().enumerate() {
            x = self.layer(b, x, index, layer, &run).at(|| format!("layer {index}"))?;
        }
        let x = self.norm.apply(b, "output_norm", x, self.hidden)?;
        let pick = Node::new("Gather", "output_rows", &[x, rows], &[]);
        b.op(pick.with("axis", Attr::Int(1)))
    }

    fn embed(
        &self,
        b: &mut Builder,
        tokens: ValueId,
        positions: Option<ValueId>,
    ) -> Result<ValueId> {
        let mut x = b.rows("token_embd.weight", tokens, self.hidden)?;
        if let Some(scale) = self.embedding_scale {
            let factor = b.number("embedding.factor", scale)?;
            x = b.simple("Mul", "embedding.scaled".to_string(), &[x, factor])?;
        }
        if let (true, Some(positions)) = (self.learned_positions, positions) {
            let at = b.rows("position_embd.weight", positions, self.hidden)?;
            x = b.simple("Add", "embedding.placed".to_string(), &[x, at])?;
        }
        Ok(x)
    }

    fn layer(
        &self,
        b: &mut Builder,
        x: ValueId,
        index: usize,
        layer: &Layer,
        run: &Run,
    ) -> Result<ValueId> {
        let prefix = format!("blk.{index}");
        let name = |part: &str| format!("{prefix}.{part}");
        let normed = self.norm.apply(b, &name("attn_norm"), x, self.hidden)?;
        let mut y = self.attention(b, &prefix, normed, (index, layer), run)?;
        if self.post_norms {
            y = self.norm.apply(b, &name("post_attention_norm"), y, self.hidden)?;
        }
        let x = b.simple("Add", name("attn_residual"), &[x, y])?;
        let normed = self.norm.apply(b, &name("ffn_norm"), x, self.hidden)?;
        let mut y = self.feed_forward.apply(b, &prefix, normed, self.hidden)?;
        if self.post_norms {
            y = self.norm.apply(b, &name("post_ffw_norm"), y, self.hidden)?;
        }
        b.simple("Add", name("ffn_residual"), &[x, y])
    }

    fn attention(
        &self,
        b: &mut Builder,
        prefix: &str,
        x: ValueId,
        (index, layer): (usize, &Layer),
        run: &Run,
    ) -> Result<ValueId> {
        let heads = self.heads;
        let mut p = project(b, prefix, x, self.hidden, heads)?;
        let (of_q, of_k) = ([heads.queries, heads.size], [heads.keys, heads.size]);
        if let Some(norm) = self.head_norm {
            p.q = norm_heads(b, &format!("{prefix}.attn_q_norm"), p.q, norm, of_q)?;
            p.k = norm_heads(b, &format!("{prefix}.attn_k_norm"), p.k, norm, of_k)?;
        }
        if let Some((rotary, &angles)) = layer.rotary.map(|i| (&self.rotaries[i], &run.angles[i])) {
            p.q = turn(b, format!("{prefix}.attn_q_turned"), p.q, angles, rotary, of_q)?;
            p.k = turn(b, format!("{prefix}.attn_k_turned"), p.k, angles, rotary, of_k)?;
        }
        if let Some(cache) = &run.cache {
            p = cache.write(b, prefix, (index, layer.window), p)?;
        }
        let group = run.cache.as_ref().map(|cache| cache.group(layer.window)).transpose()?;
        let scores = Scores {
            heads,
            scale: self.scale,
            cap: self.score_cap,
            causal: run.cache.is_none(),
            mask: run.mask(layer.window),
            valid: group.map(|group| group.valid),
        };
        let mut y = attend(b, format!("{prefix}.attention"), [p.q, p.k, p.v], scores)?;
        if let Some(cache) = &run.cache {
            y = cache.turn_back(b, prefix, y)?;
        }
        let width = heads.queries * heads.size;
        Ok(b.linear(&format!("{prefix}.attn_output"), y, width)?.0)
    }

    /// Logits; the embedding is the matrix where there is no other.
    fn logits(&self, b: &mut Builder, x: ValueId) -> Result<ValueId> {
        let own = b.has("output.weight")?;
        let mut y = b.linear(if own { "output" } else { "token_embd" }, x, self.hidden)?.0;
        if let Some(cap) = self.logit_cap {
            let cap = b.number("output.cap", cap)?;
            y = b.simple("Div", "output.small".to_string(), &[y, cap])?;
            y = b.simple("Tanh", "output.bounded".to_string(), &[y])?;
            y = b.simple("Mul", "output.capped".to_string(), &[y, cap])?;
        }
        b.simple("Identity", names::LOGITS.to_string(), &[y])
    }
}

/// An input with a number for each token.
fn text_input(b: &mut Builder, name: &str) -> Result<ValueId> {
    b.input(name, DType::I64, &[Size::Named(dims::BATCH), Size::Named(dims::SEQUENCE)])
}

fn finished(b: Builder) -> Result<Model> {
    let model = super::model(b.graph, b.form);
    model.graph.verify(None)?;
    Ok(model)
}

/// Values that all layers of one run share.
struct Run {
    positions: ValueId,
    /// For each of [`Decoder::rotaries`].
    angles: Vec<Angles>,
    cache: Option<Cache>,
    /// Masks by window.
    masks: Vec<(Option<usize>, ValueId)>,
}

impl Run {
    fn new(b: &mut Builder, decoder: &Decoder, positions: ValueId, state: State) -> Result<Run> {
        let rotaries = decoder.rotaries.iter().enumerate();
        let angles = rotaries
            .map(|(i, rotary)| angles(b, &format!("rotary.{i}"), rotary, positions))
            .collect::<Result<_>>()?;
        let cache = match state {
            State::None => None,
            State::Cache(types) => Some(Cache::new(b, decoder, types, positions, false)?),
            State::Windowed(types) => Some(Cache::new(b, decoder, types, positions, true)?),
        };
        let mut run = Run { positions, angles, cache, masks: Vec::new() };
        run.make_masks(b, decoder)?;
        Ok(run)
    }

    /// With a cache every layer needs a mask, since its keys are those of all positions; without
    /// one only layers with a window.
    fn make_masks(&mut self, b: &mut Builder, decoder: &Decoder) -> Result<()> {
        for window in decoder.layers.iter().map(|layer| layer.window) {
            let known = self.masks.iter().any(|(of, _)| *of == window);
            if !known && (self.cache.is_some() || window.is_some()) {
                let mask = self.make_mask(b, window)?;
                self.masks.push((window, mask));
            }
        }
        Ok(())
    }

    /// Whether each query sees each key: not those behind it, nor those before its window.
    fn make_mask(&self, b: &mut Builder, window: Option<usize>) -> Result<ValueId> {
        let name = match window {
            Some(window) => format!("mask.{window}"),
            None => "mask.all".to_string(),
        };
        let (keys, queries) = (self.keys(b, window)?, self.queries(b)?);
        let seen = b.simple("LessOrEqual", format!("{name}.before"), &[keys, queries])?;
        let Some(window) = window else { return Ok(seen) };
        let length = b.integers(&format!("{name}.length"), &[window as i64])?;
        let first = b.simple("Sub", format!("{name}.first"), &[queries, length])?;
        let near = b.simple("Greater", format!("{name}.near"), &[keys, first])?;
        b.simple("And", name, &[seen, near])
    }

    /// Positions of queries, `[batch, 1, sequence, 1]`.
    fn queries(&self, b: &mut Builder) -> Result<ValueId> {
        if let Some(queries) = b.graph.find_value("mask.queries") {
            return Ok(queries);
        }
        let axes = b.integers("mask.query_axes", &[1, 3])?;
        b.simple("Unsqueeze", "mask.queries".to_string(), &[self.positions, axes])
    }

    /// Positions of the keys of layers that see this window: `[keys]` where all texts have the
    /// same, else `[batch, 1, 1, keys]`.
    fn keys(&self, b: &mut Builder, window: Option<usize>) -> Result<ValueId> {
        let Some(cache) = &self.cache else {
            if let Some(keys) = b.graph.find_value("mask.keys") {
                return Ok(keys);
            }
            let axes = b.integers("mask.key_axes", &[1, 2])?;
            return b.simple("Unsqueeze", "mask.keys".to_string(), &[self.positions, axes]);
        };
        let group = cache.group(window)?;
        let Some((first, window)) = group.first.zip(window) else {
            return rows(b, "mask", group.keys);
        };
        let name = format!("mask.{window}");
        let rows = rows(b, &name, group.keys)?;
        let axes = b.integers("mask.first_axes", &[1, 2, 3])?;
        let first = b.simple("Unsqueeze", format!("{name}.begin"), &[first, axes])?;
        b.simple("Add", format!("{name}.places"), &[first, rows])
    }

    fn mask(&self, window: Option<usize>) -> Option<ValueId> {
        self.masks.iter().find(|(of, _)| *of == window).map(|(_, mask)| *mask)
    }
}

/// The numbers of the rows of a cache.
fn rows(b: &mut Builder, name: &str, cache: ValueId) -> Result<ValueId> {
    let name = |part: &str| format!("{name}.{part}");
    if let Some(rows) = b.graph.find_value(&name("keys")) {
        return Ok(rows);
    }
    let shape = Node::new("Shape", name("cache_shape"), &[cache], &[]);
    let length = b.op(shape.with("start", Attr::Int(-2)).with("end", Attr::Int(-1)))?;
    let length = b.reshape(&name("cache_length"), length, &[])?;
    let zero = b.constant("mask.zero", || Tensor::from_slice(vec![], &[0i64]))?;
    let one = b.constant("mask.one", || Tensor::from_slice(vec![], &[1i64]))?;
    b.simple("Range", name("keys"), &[zero, length, one])
}
