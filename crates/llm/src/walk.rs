//! A text through a decoder layer by layer, with a look at what each weight matrix multiplies.
//!
//! Only the hidden states between two layers are kept, and the weights of one layer.

use crate::graph::decoder::Decoder;
use crate::graph::names;
use crate::model::LanguageModel;
use crate::perplexity::check_tokens;
use crate::source::{Weight, Weights};
use fewbit_core::{Error, Model, Result, ResultExt, Tensor};
use fewbit_exec::kernels::{Ctx, Pool};
use fewbit_exec::{Mode, OpTable, Session, SessionOptions};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Called with a weight matrix and rows of its inputs, each as long as the matrix has columns.
pub type Look<'l> = dyn FnMut(&str, Ctx<'_>, &[f32]) -> Result<()> + 'l;

/// Weights of a checkpoint, some of them replaced.
pub struct Replaced<'w> {
    /// Where all others are.
    pub weights: &'w dyn Weights,
    /// By their names in GGUF.
    pub with: BTreeMap<String, Weight>,
}

impl Weights for Replaced<'_> {
    fn get(&self, name: &str) -> Result<Option<Weight>> {
        match self.with.get(name) {
            Some(weight) => Ok(Some(weight.clone())),
            None => self.weights.get(name),
        }
    }

    fn stored_name(&self, name: &str) -> String {
        self.weights.stored_name(name)
    }
}

/// The hidden states of texts before some layer, `[1, tokens, hidden]` each.
pub type States = Vec<Tensor>;

/// Runs layers of a model in float, one at a time.
pub struct Walk<'m> {
    model: &'m LanguageModel,
    decoder: &'m Decoder,
    options: SessionOptions,
    pool: Arc<Pool>,
}

impl<'m> Walk<'m> {
    /// A walk through a decoder; `options` say on how many threads.
    ///
    /// # Errors
    /// For encoders.
    pub fn new(model: &'m LanguageModel, options: &SessionOptions) -> Result<Walk<'m>> {
        let pool = Arc::new(Pool::new(options.threads));
        let options = SessionOptions { mode: Mode::Float, ..options.clone() };
        Ok(Walk { model, decoder: model.decoder()?, options, pool })
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.decoder.layers.len()
    }

    /// The threads.
    pub fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The weights of the model.
    pub fn weights(&self) -> &dyn Weights {
        &*self.model.checkpoint().weights
    }

    /// Names of the weight matrices of a layer, in the order in which they are multiplied with.
    /// Those on one line share their inputs.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than the settings say.
    pub fn matrices(&self, layer: usize) -> Result<Vec<Vec<String>>> {
        let (_, products) = self.layer_graph(layer, self.weights(), None)?;
        let mut found: Vec<(String, Vec<String>)> = Vec::new();
        for (matrix, input) in products {
            match found.iter_mut().find(|(known, _)| *known == input) {
                Some((_, matrices)) => matrices.push(matrix),
                None => found.push((input, vec![matrix])),
            }
        }
        Ok(found.into_iter().map(|(_, matrices)| matrices).collect())
    }

    /// What goes into the first layer.
    ///
    /// # Errors
    /// When a token is none of the model's, or a run fails.
    pub fn start(&self, windows: &[Vec<u32>]) -> Result<States> {
        let name = self.model.checkpoint().architecture.title;
        let graph = self.decoder.embedding(name, self.weights())?;
        let session = self.session(&graph, &self.options)?;
        let embed = |tokens: &Vec<u32>| {
            check_tokens(tokens, self.decoder.vocabulary)?;
            let ids: Vec<i64> = tokens.iter().map(|&t| i64::from(t)).collect();
            let mut inputs = vec![(names::TOKENS, row(ids)?)];
            if self.decoder.learned_positions {
                inputs.push((names::POSITIONS, positions(tokens.len())?));
            }
            only(session.run_owned(inputs)?)
        };
        windows.iter().map(embed).collect()
    }

    /// A layer with these weights, to be run; `matrices` are those whose inputs will be looked
    /// at.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape than the settings say.
    pub fn layer(
        &self,
        index: usize,
        weights: &dyn Weights,
        matrices: &[String],
    ) -> Result<LayerRun> {
        let (graph, products) = self.layer_graph(index, weights, None)?;
        let mut watched: BTreeMap<String, String> = BTreeMap::new();
        for (matrix, input) in products {
            if matrices.contains(&matrix) {
                watched.entry(input).or_insert(matrix);
            }
        }
        let taps: HashSet<String> = watched.keys().cloned().collect();
        let session = self.session(&graph, &SessionOptions { taps, ..self.options.clone() })?;
        Ok(LayerRun { index, session, watched })
    }

    /// A layer up to the inputs of one of its matrices, which it gives instead of the states.
    ///
    /// # Errors
    /// As [`layer`](Walk::layer).
    pub fn inputs(&self, index: usize, weights: &dyn Weights, matrix: &str) -> Result<LayerRun> {
        let (graph, _) = self.layer_graph(index, weights, Some(matrix))?;
        let session = self.session(&graph, &self.options)?;
        Ok(LayerRun { index, session, watched: BTreeMap::new() })
    }

    fn layer_graph(
        &self,
        index: usize,
        weights: &dyn Weights,
        until: Option<&str>,
    ) -> Result<(Model, Vec<(String, String)>)> {
        let checkpoint = self.model.checkpoint();
        let name = checkpoint.architecture.title;
        let graph = self.decoder.layer_graph(name, weights, index, until);
        graph.at(|| checkpoint.path.display().to_string())
    }

    fn session(&self, graph: &Model, options: &SessionOptions) -> Result<Session> {
        Session::with_pool(graph, options, &OpTable::standard(), Arc::clone(&self.pool))
    }
}

/// One layer, ready to run.
pub struct LayerRun {
    index: usize,
    session: Session,
    /// Matrices by the values that they are multiplied with.
    watched: BTreeMap<String, String>,
}

impl LayerRun {
    /// The states behind the layer. `look` sees the inputs of the matrices: of those that share
    /// them, the first.
    ///
    /// # Errors
    /// When the run or `look` fails.
    pub fn run(&self, state: &Tensor, look: &mut Look) -> Result<Tensor> {
        let length = state.shape().get(1).copied().unwrap_or(0);
        let mut run = || -> Result<Tensor> {
            let inputs =
                vec![(names::HIDDEN, state.clone()), (names::POSITIONS, positions(length)?)];
            if self.watched.is_empty() {
                return only(self.session.run_owned(inputs)?);
            }
            only(self.session.run_tapped(&inputs, &mut |event| {
                let Some(matrix) = self.watched.get(event.name) else { return Ok(()) };
                look(matrix, *event.kernels, &event.tensor.cow::<f32>()?)
            })?)
        };
        run().at(|| format!("layer {}", self.index))
    }
}

fn row(values: Vec<i64>) -> Result<Tensor> {
    Tensor::from_slice(vec![1, values.len()], &values)
}

fn positions(length: usize) -> Result<Tensor> {
    row((0..length as i64).collect())
}

fn only(outputs: Vec<(String, Tensor)>) -> Result<Tensor> {
    let first = outputs.into_iter().next().map(|(_, tensor)| tensor);
    first.ok_or_else(|| Error::internal("a graph without outputs"))
}
