//! Where Q/DQ pairs go: which nodes compute on integers, which activations get a scale,
//! and which of those share one.

use crate::recipe::{Method, Recipe};
use crate::target::Target;
use fewbit_core::{DType, Granularity, Graph, Node, NodeId, QuantScheme, Tensor, Uses, ValueId};
use fewbit_exec::{OpTable, Role};
use std::collections::HashMap;

/// What the plan says about one node.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// Quantize it, if its surroundings allow.
    pub quantize: bool,
    /// Scheme of its constant weight.
    pub weights: Option<QuantScheme>,
}

/// Where Q/DQ pairs go in one graph.
///
/// A pair sits on a value when an integer operator reads it. No pair goes between an operator
/// and the clamp (ReLU, Clip) or the bias addition behind it, nor on values only float operators
/// read: the integer operator then gives float output itself.
#[derive(Debug)]
pub struct Placement {
    active: Vec<bool>,
    idle_reason: HashMap<NodeId, &'static str>,
    values: Vec<ValueId>,
    reasons: HashMap<ValueId, &'static str>,
    group: HashMap<ValueId, ValueId>,
    weights: Vec<(NodeId, QuantScheme)>,
}

impl Placement {
    /// Whether the node computes on integers.
    pub fn is_active(&self, node: NodeId) -> bool {
        self.active[node.index()]
    }

    /// Why a node the plan would quantize stays in float.
    pub fn why_idle(&self, node: NodeId) -> &'static str {
        self.idle_reason.get(&node).copied().unwrap_or("stays in float")
    }

    /// Activations with a Q/DQ pair, in topological order.
    pub fn values(&self) -> impl Iterator<Item = ValueId> + '_ {
        self.values.iter().copied()
    }

    /// The value whose scale `value` has: itself, or the one it shares with.
    pub fn leader(&self, value: ValueId) -> Option<ValueId> {
        self.group.get(&value).copied()
    }

    /// Why a value has a scale.
    pub fn reason(&self, value: ValueId) -> &'static str {
        self.reasons.get(&value).copied().unwrap_or("")
    }

    /// Nodes with a quantized weight at input 1, and its scheme.
    pub fn weights(&self) -> &[(NodeId, QuantScheme)] {
        &self.weights
    }
}

/// Decides the placement.
pub fn place(graph: &Graph, table: &OpTable, decisions: &HashMap<NodeId, Decision>) -> Placement {
    let mut walk = Walk::new(graph, table, decisions);
    walk.find_sources();
    walk.find_wants();
    walk.finish()
}

/// The scheme of a weight, with the output-channel axis resolved, or why it stays in float.
pub(crate) fn weight_scheme(
    recipe: &Recipe,
    target: &Target,
    node: &Node,
    weight: &Tensor,
    channel_axis: i32,
) -> Result<(Option<QuantScheme>, String), String> {
    if weight.dtype() != DType::F32 {
        return Err(format!("its weight is {}, not f32", weight.dtype()));
    }
    let (mut scheme, why) = target.fit_weights(recipe.weights);
    let rank = weight.rank() as i32;
    match scheme.granularity {
        Granularity::Axis(_) if rank >= 2 => {
            scheme.granularity = Granularity::Axis(if channel_axis < 0 {
                channel_axis + rank
            } else {
                channel_axis
            });
        }
        Granularity::Axis(_) => scheme.granularity = Granularity::Tensor,
        Granularity::Block { size, .. } => {
            // Blocks run along the reduction axis of a matrix.
            if rank != 2 || recipe.method != Method::WeightOnly {
                return Err("blocked weights need a matrix".to_string());
            }
            let channel = if channel_axis < 0 { channel_axis + rank } else { channel_axis };
            let axis = 1 - channel;
            if !weight.shape()[axis as usize].is_multiple_of(size as usize) {
                return Err(format!(
                    "its {} inputs are not a multiple of the block size {size}",
                    weight.shape()[axis as usize]
                ));
            }
            scheme.granularity = Granularity::Block { axis, size };
        }
        Granularity::Tensor => {}
    }
    let reason = if why.is_empty() { format!("{} with a constant weight", node.op) } else { why };
    Ok((Some(scheme), reason))
}

struct Walk<'a> {
    graph: &'a Graph,
    uses: Uses,
    roles: HashMap<NodeId, Role>,
    decisions: &'a HashMap<NodeId, Decision>,
    can: Vec<bool>,
    active: Vec<bool>,
    source: Vec<bool>,
    wanted: Vec<Option<&'static str>>,
    idle: HashMap<NodeId, &'static str>,
}

impl<'a> Walk<'a> {
    fn new(graph: &'a Graph, table: &OpTable, decisions: &'a HashMap<NodeId, Decision>) -> Self {
        let nodes = graph.nodes().map(|(id, _)| id.index() + 1).max().unwrap_or(0);
        let values = graph.value_ids().count();
        let role = |n: &Node| table.of(n).map_or(Role::FloatOnly, |d| d.role);
        Walk {
            graph,
            uses: graph.uses(),
            roles: graph.nodes().map(|(id, n)| (id, role(n))).collect(),
            decisions,
            can: vec![false; nodes],
            active: vec![false; nodes],
            source: vec![false; values],
            wanted: vec![None; values],
            idle: HashMap::new(),
        }
    }

    fn chosen(&self, id: NodeId) -> bool {
        self.decisions.get(&id).is_some_and(|d| d.quantize)
    }

    /// Non-constant inputs of a node that carry activations.
    fn activations(&self, id: NodeId) -> Vec<ValueId> {
        let node = self.graph.node(id);
        // Only the first input of data-moving operators carries data; the rest are shapes and indices.
        let data = match self.roles[&id] {
            Role::SameScale | Role::Clamp => 1,
            Role::Weighted(_) if !node.is("MatMul") => 1,
            _ => node.inputs.len(),
        };
        let inputs = node.inputs.iter().take(data).flatten().copied();
        inputs.filter(|&v| self.graph.constant(v).is_none()).collect()
    }

    /// Forward: which values can be had as codes from where they come.
    fn find_sources(&mut self) {
        for &v in self.graph.inputs() {
            self.source[v.index()] = self.graph.value(v).ty.dtype == Some(DType::F32);
        }
        let order: Vec<NodeId> = self.graph.nodes().map(|(id, _)| id).collect();
        for id in order {
            self.can[id.index()] = self.chosen(id) && self.inputs_fit(id);
            let makes_codes = self.can[id.index()] || self.adds_bias(id).is_some();
            if makes_codes {
                for out in self.graph.node(id).outputs.iter().flatten() {
                    self.source[out.index()] = true;
                }
            }
        }
    }

    fn inputs_fit(&mut self, id: NodeId) -> bool {
        if matches!(self.roles[&id], Role::FloatOnly) {
            return false;
        }
        if let Role::Weighted(_) = self.roles[&id] {
            return true;
        }
        let inputs = self.activations(id);
        let fit = !inputs.is_empty() && inputs.iter().all(|v| self.source[v.index()]);
        if !fit {
            self.idle.insert(id, "an input comes from a float operator");
        }
        fit
    }

    /// Backward: who reads codes. A node is active when somebody wants its output, or when it
    /// multiplies weights (then its output may as well be float).
    fn find_wants(&mut self) {
        let order: Vec<NodeId> = self.graph.nodes().map(|(id, _)| id).collect();
        for &id in order.iter().rev() {
            if !self.can[id.index()] {
                continue;
            }
            let weighted = matches!(self.roles[&id], Role::Weighted(_));
            let mut outputs = self.graph.node(id).outputs.iter().flatten();
            let wanted = outputs.any(|&v| self.wanted[self.effective(v).index()].is_some());
            if !weighted && !wanted {
                self.idle.entry(id).or_insert("only float operators read its result");
                continue;
            }
            self.active[id.index()] = true;
            if !self.is_fused(id) {
                self.want_inputs(id);
            }
        }
    }

    fn want_inputs(&mut self, id: NodeId) {
        let reason = match self.roles[&id] {
            Role::Weighted(_) => "read by an integer multiplication",
            Role::JointScale => "joined with others of one scale",
            Role::SameScale => "moved as codes",
            _ => "read by an integer operator",
        };
        for v in self.activations(id) {
            self.wanted[v.index()].get_or_insert(reason);
        }
    }

    /// The value behind the clamp and bias addition that fuse with its producer.
    fn effective(&self, value: ValueId) -> ValueId {
        let next = self.uses.sole_consumer(value).filter(|&c| self.is_fused(c));
        match next.and_then(|c| self.graph.node(c).output(0)) {
            Some(out) => self.effective(out),
            None => value,
        }
    }

    /// Whether the node is computed inside the operator before it.
    fn is_fused(&self, id: NodeId) -> bool {
        self.adds_bias(id).is_some() || self.is_fused_clamp(id)
    }

    fn is_fused_clamp(&self, id: NodeId) -> bool {
        if !matches!(self.roles[&id], Role::Clamp) || !self.can[id.index()] {
            return false;
        }
        let input = self.graph.node(id).input(0);
        let alone = input.filter(|&v| self.uses.sole_consumer(v) == Some(id));
        let producer = alone.and_then(|v| self.uses.producer(v));
        producer.is_some_and(|p| {
            let computes = matches!(self.roles[&p], Role::Weighted(_) | Role::Elementwise);
            (computes && self.can[p.index()]) || self.adds_bias(p).is_some()
        })
    }

    /// For an `Add` of a constant vector right behind an integer `MatMul`: that MatMul.
    fn adds_bias(&self, id: NodeId) -> Option<NodeId> {
        let node = self.graph.node(id);
        if !node.is("Add") {
            return None;
        }
        let (a, b) = (node.input(0)?, node.input(1)?);
        let vector = |v: ValueId| self.graph.constant(v).is_some_and(|t| t.rank() <= 1);
        let data = if vector(b) {
            a
        } else if vector(a) {
            b
        } else {
            return None;
        };
        let producer = self.uses.producer(data)?;
        let fused = self.graph.node(producer).is("MatMul")
            && self.can[producer.index()]
            && self.decisions.get(&producer).is_some_and(|d| d.weights.is_some())
            && self.uses.sole_consumer(data) == Some(id);
        fused.then_some(producer)
    }

    fn finish(self) -> Placement {
        let mut values = Vec::new();
        let inputs = self.graph.inputs().iter().copied();
        let outputs = self.graph.nodes().flat_map(|(_, n)| n.outputs.iter().flatten().copied());
        for v in inputs.chain(outputs) {
            if self.wanted[v.index()].is_some() {
                values.push(v);
            }
        }
        let group = self.groups(&values);
        let reasons = values.iter().filter_map(|&v| Some((v, self.wanted[v.index()]?))).collect();
        let weights = self.graph.nodes().filter_map(|(id, _)| {
            let active = self.active[id.index()];
            self.decisions.get(&id).and_then(|d| d.weights).filter(|_| active).map(|s| (id, s))
        });
        let weights = weights.collect();
        Placement { active: self.active, idle_reason: self.idle, values, reasons, group, weights }
    }

    /// Union of values that must share a scale: through data movers and joins.
    fn groups(&self, values: &[ValueId]) -> HashMap<ValueId, ValueId> {
        let mut leader: HashMap<ValueId, ValueId> = values.iter().map(|&v| (v, v)).collect();
        for (id, node) in self.graph.nodes() {
            let shares = matches!(self.roles[&id], Role::SameScale | Role::JointScale);
            if !self.active[id.index()] || !shares {
                continue;
            }
            let mut members = self.activations(id);
            members.extend(node.outputs.iter().flatten());
            join(&mut leader, &members);
        }
        leader
    }
}

/// Makes all members that have a leader follow the first one's.
fn join(leader: &mut HashMap<ValueId, ValueId>, members: &[ValueId]) {
    let mut known = members.iter().filter_map(|v| leader.get(v).copied());
    let Some(first) = known.next() else {
        return;
    };
    let others: Vec<ValueId> = known.collect();
    for slot in leader.values_mut() {
        if others.contains(slot) {
            *slot = first;
        }
    }
}
