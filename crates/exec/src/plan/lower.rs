//! From nodes to kernels: each node, or group of nodes, becomes one prepared step.

use super::analyze::{MAX_FOLDED_BYTES, evaluate};
use super::build::{Captured, build};
use super::integer::{self, Outcome};
use super::kernel::{EvalKernel, Kernel};
use super::layout::{Rule, rule_of};
use super::scope::Scope;
use super::weights::deferred;
use crate::ops;
use crate::ops::control::required_graphs;
use crate::session::{Mode, NodePlan};
use fewbit_core::{
    Error, Graph, Node, NodeId, Result, ResultExt, Tensor, Uses, ValueId, ValueType,
};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

/// A kernel, or how to make it.
pub(crate) enum Prepared {
    Ready(Box<dyn Kernel>),
    /// Weights are packed when all steps are known: side by side, and none that nothing needs.
    Later(Packing),
}

/// Packs the weights of a step.
type Packing = Box<dyn FnOnce() -> Result<Box<dyn Kernel>> + Send>;

impl Prepared {
    fn finish(self) -> Result<Box<dyn Kernel>> {
        match self {
            Prepared::Ready(kernel) => Ok(kernel),
            Prepared::Later(pack) => pack(),
        }
    }
}

/// A step before layouts and slots are chosen.
pub(crate) struct Lowered<K = Prepared> {
    /// The nodes it computes, in order; the last one says where the step stands.
    pub nodes: Vec<NodeId>,
    pub kernel: K,
    pub inputs: Vec<Option<ValueId>>,
    pub outputs: Vec<Option<ValueId>>,
    pub rule: Rule,
    pub integer: bool,
    /// Why it is not integer, where it could have been.
    pub reason: Option<String>,
    /// A value that is known already, instead of a step.
    pub known: Option<Tensor>,
}

/// A step with its kernel.
pub(crate) type Made = Lowered<Box<dyn Kernel>>;

impl Lowered {
    /// A float step.
    pub fn new(
        nodes: Vec<NodeId>,
        kernel: Box<dyn Kernel>,
        inputs: Vec<Option<ValueId>>,
        output: ValueId,
        rule: Rule,
    ) -> Self {
        Self::prepared(nodes, Prepared::Ready(kernel), inputs, output, rule)
    }

    /// A float step with weights, which `pack` prepares.
    pub fn packed<K: Kernel + 'static>(
        nodes: Vec<NodeId>,
        pack: impl FnOnce() -> Result<K> + Send + 'static,
        inputs: Vec<Option<ValueId>>,
        output: ValueId,
        rule: Rule,
    ) -> Self {
        let pack = || pack().map(|kernel| Box::new(kernel) as Box<dyn Kernel>);
        Self::prepared(nodes, Prepared::Later(Box::new(pack)), inputs, output, rule)
    }

    /// The same, packed now: weights that were computed for this step alone go away with it, so
    /// that there is one of them at a time.
    ///
    /// # Errors
    /// When the weights contradict the node.
    pub fn at_once(self) -> Result<Self> {
        Ok(Lowered { kernel: Prepared::Ready(self.kernel.finish()?), ..self })
    }

    fn prepared(
        nodes: Vec<NodeId>,
        kernel: Prepared,
        inputs: Vec<Option<ValueId>>,
        output: ValueId,
        rule: Rule,
    ) -> Self {
        let outputs = vec![Some(output)];
        Lowered { nodes, kernel, inputs, outputs, rule, integer: false, reason: None, known: None }
    }

    fn finish(self) -> Result<Made> {
        let Lowered { nodes, kernel, inputs, outputs, rule, integer, reason, known } = self;
        let kernel = kernel.finish()?;
        Ok(Lowered { nodes, kernel, inputs, outputs, rule, integer, reason, known })
    }
}

/// A step on its way to a kernel.
enum Making {
    Planned(Lowered),
    Made(Result<Made>),
    /// Only while it is being made.
    Between,
}

impl Making {
    fn make(&mut self) {
        *self = match std::mem::replace(self, Making::Between) {
            Making::Planned(step) => Making::Made(step.finish()),
            other => other,
        };
    }
}

/// The state of one walk over a graph.
pub(crate) struct Lowering<'a> {
    pub graph: &'a Graph,
    pub types: &'a [ValueType],
    pub scope: &'a Scope<'a>,
    pub uses: Uses,
    /// Nodes that turn stored weights into operands of products.
    pub deferred: HashSet<NodeId>,
    position: HashMap<NodeId, usize>,
    taken: HashSet<NodeId>,
    steps: Vec<Lowered>,
    dequantized: RefCell<HashMap<ValueId, Tensor>>,
}

impl<'a> Lowering<'a> {
    pub fn new(graph: &'a Graph, types: &'a [ValueType], scope: &'a Scope<'a>) -> Self {
        Lowering {
            graph,
            types,
            scope,
            uses: graph.uses(),
            deferred: deferred(graph),
            position: graph.nodes().enumerate().map(|(place, (id, _))| (id, place)).collect(),
            taken: HashSet::new(),
            steps: Vec::new(),
            dequantized: RefCell::default(),
        }
    }

    /// Lowers every node.
    ///
    /// # Errors
    /// When a weight contradicts its node.
    pub fn lower_all(&mut self) -> Result<()> {
        for (id, node) in self.graph.nodes() {
            if self.taken.contains(&id) {
                continue;
            }
            let step = self.lower(id, node).at(|| self.graph.label(id))?;
            self.taken.extend(step.nodes.iter().copied());
            self.steps.push(step);
        }
        Ok(())
    }

    /// Steps that an output depends on, in order, and the plan of all nodes.
    ///
    /// # Errors
    /// When a weight contradicts its node.
    pub fn finish(mut self) -> Result<(Vec<Made>, Vec<NodePlan>)> {
        let place = |step: &Lowered| step.nodes.last().map(|id| self.position[id]);
        let mut steps = std::mem::take(&mut self.steps);
        steps.sort_by_key(place);
        self.keep_live(&mut steps);
        let mut steps = self.pack(steps)?;
        let plan = self.plan(&steps);
        for step in &mut steps {
            self.settle(step);
        }
        Ok((steps, plan))
    }

    /// Packs the weights of all steps, on all threads.
    fn pack(&self, steps: Vec<Lowered>) -> Result<Vec<Made>> {
        let anchors: Vec<Option<NodeId>> = steps.iter().map(|s| s.nodes.first().copied()).collect();
        let mut steps: Vec<Making> = steps.into_iter().map(Making::Planned).collect();
        let pool = self.scope.kernels.pool;
        pool.for_each_chunk(&mut steps, 1, |_, step| step.iter_mut().for_each(Making::make));
        let made = steps.into_iter().zip(anchors).map(|(step, anchor)| match step {
            Making::Made(step) => {
                step.at(|| anchor.map_or_else(String::new, |id| self.graph.label(id)))
            }
            Making::Planned(_) | Making::Between => Err(Error::internal("a step was not prepared")),
        });
        made.collect()
    }

    fn lower(&self, id: NodeId, node: &Node) -> Result<Lowered> {
        let reason = match self.scope.mode {
            Mode::Integer => match integer::lower(self, id, node)? {
                Outcome::Step(step) => return Ok(*step),
                Outcome::Float(reason) => reason,
            },
            Mode::Float | Mode::Simulate => None,
        };
        Ok(Lowered { reason, ..self.lower_float(id, node)? })
    }

    fn lower_float(&self, id: NodeId, node: &Node) -> Result<Lowered> {
        let special = match node.op.as_str() {
            "DynamicQuantizeLSTM" if node.domain == "com.microsoft" => {
                ops::recurrent::lower(self, id, node)?
            }
            _ if !matches!(node.domain.as_str(), "" | "ai.onnx") => None,
            "Attention" => ops::attention::lower(self, id, node),
            "Conv" | "ConvTranspose" => ops::conv::lower(self, id, node)?,
            "ConvInteger" => ops::conv::lower_accumulated(self, id, node)?,
            "MatMul" | "Gemm" => ops::matmul::lower(self, id, node)?,
            "MatMulInteger" => ops::matmul::lower_accumulated(self, id, node)?,
            "LSTM" | "GRU" | "RNN" => ops::recurrent::lower(self, id, node)?,
            "MaxPool" | "AveragePool" | "GlobalAveragePool" | "GlobalMaxPool" | "LpPool"
            | "GlobalLpPool" => ops::pool::lower(self, id, node)?,
            _ => super::chain::lower(self, id, node),
        };
        match special {
            Some(step) => Ok(step),
            None => self.lower_plainly(id, node),
        }
    }

    /// The operator's own evaluation.
    fn lower_plainly(&self, id: NodeId, node: &Node) -> Result<Lowered> {
        let kernel = EvalKernel::new(node.clone(), *self.scope.def(node)?, self.scope.opset(node));
        let (kernel, captures) = self.prepare_subgraphs(kernel, node)?;
        let mut inputs = node.inputs.clone();
        inputs.extend(captures.into_iter().map(Some));
        Ok(Lowered {
            nodes: vec![id],
            kernel: Prepared::Ready(Box::new(kernel)),
            inputs,
            outputs: node.outputs.clone(),
            rule: rule_of(self, node),
            integer: false,
            reason: None,
            known: None,
        })
    }

    /// Builds the subgraphs of a node; returns the values they capture.
    fn prepare_subgraphs(
        &self,
        kernel: EvalKernel,
        node: &Node,
    ) -> Result<(EvalKernel, Vec<ValueId>)> {
        for attr in required_graphs(&node.op) {
            if node.graph(attr)?.is_none() {
                let what = format!("attribute `{attr}` with a graph is missing");
                return Err(Error::bad_input(what).code("FB-3201"));
            }
        }
        let mut names: Vec<String> = Vec::new();
        let mut programs = Vec::new();
        for (attr, value) in &node.attrs {
            for inner in value.graphs() {
                let captured = self.captured(inner);
                let built = build(inner.clone(), self.scope, &HashSet::new(), &captured)
                    .at(|| format!("attribute `{attr}`"))?;
                let dynamic = captured.into_iter().filter(|c| c.constant.is_none());
                let reads: Vec<usize> = dynamic.map(|c| index_of(&mut names, c.name)).collect();
                programs.push((attr.clone(), built.program, reads));
            }
        }
        let values = names.iter().filter_map(|name| self.graph.find_value(name)).collect();
        Ok((kernel.with_subgraphs(programs, names.len()), values))
    }

    fn captured(&self, inner: &Graph) -> Vec<Captured> {
        let outer = inner.captures().into_iter().filter_map(|name| {
            let id = self.graph.find_value(name)?;
            Some(Captured {
                name: name.to_string(),
                ty: self.types[id.index()].clone(),
                constant: self.graph.constant(id).cloned(),
            })
        });
        outer.collect()
    }

    /// The tensor of a constant, or of dequantized constants.
    pub fn constant(&self, value: ValueId) -> Option<Tensor> {
        if let Some(tensor) = self.graph.constant(value) {
            return Some(tensor.clone());
        }
        if let Some(tensor) = self.dequantized.borrow().get(&value) {
            return Some(tensor.clone());
        }
        let tensor = self.dequantize(self.graph.node(self.uses.producer(value)?))?;
        self.dequantized.borrow_mut().insert(value, tensor.clone());
        Some(tensor)
    }

    fn dequantize(&self, node: &Node) -> Option<Tensor> {
        let constant = |v: &Option<ValueId>| match v {
            None => Some(None),
            Some(v) => self.graph.constant(*v).cloned().map(Some),
        };
        if !node.is("DequantizeLinear") {
            return None;
        }
        let inputs = node.inputs.iter().map(constant).collect::<Option<Vec<_>>>()?;
        evaluate(node, self.scope, inputs).ok()?.into_iter().next()
    }

    /// The only reader of a node's only output that nobody else observes.
    pub fn sole_reader(&self, node: &Node) -> Option<(NodeId, &'a Node)> {
        if node.outputs.iter().flatten().count() != 1 {
            return None;
        }
        let reader = self.uses.sole_consumer(node.output(0)?)?;
        (!self.taken.contains(&reader)).then(|| (reader, self.graph.node(reader)))
    }

    /// Whether a node is part of a step already.
    pub fn is_taken(&self, node: NodeId) -> bool {
        self.taken.contains(&node)
    }

    /// Where a node stands in the order of execution.
    pub fn place(&self, node: NodeId) -> usize {
        self.position[&node]
    }

    /// Whether a value depends on the inputs: it is no constant, nor a dequantized one.
    pub fn is_computed(&self, value: ValueId) -> bool {
        let Some(producer) = self.uses.producer(value) else {
            return self.graph.constant(value).is_none();
        };
        let node = self.graph.node(producer);
        let codes = node.input(0).and_then(|v| self.graph.constant(v));
        !(node.is("DequantizeLinear") && codes.is_some())
    }

    /// Type of a value.
    pub fn ty(&self, value: ValueId) -> &ValueType {
        &self.types[value.index()]
    }

    /// Channels of the output `[N,C,...]` of a node, if known.
    pub fn channels(&self, node: &Node) -> Option<usize> {
        self.ty(node.output(0)?).shape.as_ref()?.get(1)?.known()
    }

    fn keep_live(&self, steps: &mut Vec<Lowered>) {
        let mut live: HashSet<ValueId> = self.graph.outputs().iter().copied().collect();
        let mut kept = Vec::with_capacity(steps.len());
        for step in std::mem::take(steps).into_iter().rev() {
            if step.outputs.iter().flatten().any(|v| live.contains(v)) {
                live.extend(step.inputs.iter().flatten());
                kept.push(step);
            }
        }
        kept.reverse();
        *steps = kept;
    }

    /// Weights that no kernel took are computed now rather than on each run, unless they are
    /// larger than what may be folded.
    fn settle(&self, step: &mut Made) {
        if let ([id], [Some(output)]) = (step.nodes.as_slice(), step.outputs.as_slice())
            && self.deferred.contains(id)
        {
            step.known = self.stored(*output).filter(|t| t.bytes().len() <= MAX_FOLDED_BYTES);
        }
        if let ([id], [Some(output)]) = (step.nodes.as_slice(), step.outputs.as_slice())
            && self.graph.node(*id).is("DequantizeLinear")
        {
            step.known = self.constant(*output);
        }
    }

    fn plan(&self, steps: &[Made]) -> Vec<NodePlan> {
        let mut plan: Vec<(usize, NodePlan)> = Vec::new();
        for step in steps {
            for (index, id) in step.nodes.iter().enumerate() {
                let node = self.graph.node(*id);
                let anchor = self.graph.node(step.nodes[0]);
                let kernel = match index {
                    0 => step.kernel.name(),
                    _ => format!("in {} \"{}\"", anchor.op, anchor.name),
                };
                plan.push((
                    self.position[id],
                    NodePlan {
                        node: node.name.clone(),
                        op: node.op.clone(),
                        kernel,
                        integer: step.integer,
                        reason: step.reason.clone(),
                    },
                ));
            }
        }
        plan.sort_by_key(|(place, _)| *place);
        plan.into_iter().map(|(_, line)| line).collect()
    }
}

fn index_of(names: &mut Vec<String>, name: String) -> usize {
    names.iter().position(|n| *n == name).unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    })
}
