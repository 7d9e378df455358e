//! Plans: recipe x target x model, resolved. One line for each node and value, with the reason.

use crate::placement::{self, Decision, Placement};
use crate::recipe::{Method, Recipe, Selector};
use crate::target::Target;
use fewbit_core::{Error, Graph, Model, Node, NodeId, QuantScheme, Result};
use fewbit_exec::{OpTable, Role};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashMap};

/// What happens to one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeLine {
    /// Node name in the prepared model.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Whether it is quantized.
    pub quantize: bool,
    /// Scheme of its weight, if it has one that is quantized.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<String>,
    /// Why.
    pub reason: String,
}

/// What happens to one activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ValueLine {
    /// Value name in the prepared model.
    pub name: String,
    /// Its scheme.
    pub scheme: String,
    /// Another value whose scale it shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// Why.
    pub reason: String,
}

/// Everything that will be done to a model, before any number is computed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Name of the target.
    pub target: String,
    /// The recipe the plan comes from.
    pub recipe: Recipe,
    /// Nodes in topological order.
    #[serde(default, rename = "node")]
    pub nodes: Vec<NodeLine>,
    /// Quantized activations in topological order; derived from the nodes when a plan is run.
    #[serde(default, rename = "value")]
    pub values: Vec<ValueLine>,
}

impl Plan {
    /// Resolves a recipe for a prepared model (see [`prepare`](crate::prepare)).
    ///
    /// # Errors
    /// When recipe and target contradict each other, or a selector matches nothing.
    pub fn resolve(model: &Model, recipe: &Recipe, target: &Target) -> Result<Plan> {
        recipe.check()?;
        let kept = select(&model.graph, &recipe.keep_float)?;
        let context = Context { graph: &model.graph, table: OpTable::standard(), recipe, target };
        let mut nodes = Vec::new();
        for (id, node) in model.graph.nodes() {
            nodes.push(context.line(node, kept.contains(&id)));
        }
        let mut plan =
            Plan { target: target.name.clone(), recipe: recipe.clone(), nodes, values: Vec::new() };
        plan.settle(model, target)?;
        Ok(plan)
    }

    /// Reads a plan, possibly edited by hand.
    ///
    /// # Errors
    /// With line and column when the text is no plan.
    pub fn parse(text: &str) -> Result<Plan> {
        let plan: Plan = toml::from_str(text).map_err(|e| {
            Error::usage(e.to_string())
                .at("plan")
                .hint("`fewbit plan MODEL -o plan.toml` writes one")
        })?;
        plan.recipe.check()?;
        Ok(plan)
    }

    /// The plan as TOML.
    ///
    /// # Errors
    /// Never for a plan that was resolved or parsed.
    pub fn to_toml(&self) -> Result<String> {
        let body = toml::to_string(self).map_err(|e| Error::internal(e.to_string()))?;
        Ok(format!(
            "# fewbit plan. Edit `quantize` and `weights` of a node, then run it with\n# fewbit quantize MODEL -o OUT --plan THIS.toml; the values follow from the nodes.\n{body}"
        ))
    }

    /// Where Q/DQ pairs go for the node lines as they stand.
    ///
    /// # Errors
    /// When the plan was made for another model.
    pub fn placement(&self, model: &Model) -> Result<Placement> {
        let by_name: HashMap<&str, &NodeLine> =
            self.nodes.iter().map(|l| (l.name.as_str(), l)).collect();
        let mut decisions = HashMap::new();
        for (id, node) in model.graph.nodes() {
            let line = by_name.get(node.name.as_str()).ok_or_else(|| {
                Error::usage(format!("the plan has no line for node `{}`", node.name))
                    .hint("the plan belongs to another model, or to another version of this one")
            })?;
            if line.op != node.op {
                return Err(Error::usage(format!(
                    "node `{}` is a {}, the plan says {}",
                    node.name, node.op, line.op
                )));
            }
            decisions.insert(id, self.decision(line)?);
        }
        Ok(placement::place(&model.graph, &OpTable::standard(), &decisions))
    }

    /// Turns nodes to float, by name, and settles what follows from it.
    ///
    /// # Errors
    /// As [`placement`](Plan::placement).
    pub fn leave_in_float(
        &mut self,
        model: &Model,
        target: &Target,
        names: &[String],
        reason: &str,
    ) -> Result<()> {
        for line in self.nodes.iter_mut().filter(|l| names.contains(&l.name)) {
            line.quantize = false;
            line.weights = None;
            line.reason = reason.to_string();
        }
        if names.is_empty() { Ok(()) } else { self.settle(model, target) }
    }

    fn decision(&self, line: &NodeLine) -> Result<Decision> {
        let weights = line.weights.as_deref().map(str::parse::<QuantScheme>).transpose()?;
        Ok(Decision { quantize: line.quantize, weights })
    }

    /// The scheme of activations after the target's limits.
    ///
    /// # Errors
    /// When the target is unknown.
    pub fn activations(&self, target: &Target) -> Result<QuantScheme> {
        Ok(target.fit_activations(self.recipe.activations)?.0)
    }

    /// Writes down what placement makes of the node lines: passive nodes that end up in float,
    /// and the values that get a scale.
    fn settle(&mut self, model: &Model, target: &Target) -> Result<()> {
        if self.recipe.method != Method::Static {
            return Ok(());
        }
        let placement = self.placement(model)?;
        let (scheme, bent) = target.fit_activations(self.recipe.activations)?;
        for ((id, _), line) in model.graph.nodes().zip(&mut self.nodes) {
            if line.quantize && !placement.is_active(id) {
                line.quantize = false;
                line.weights = None;
                line.reason = placement.why_idle(id).to_string();
            }
        }
        let graph = &model.graph;
        self.values = placement
            .values()
            .map(|v| ValueLine {
                name: graph.name_of(v).to_string(),
                scheme: scheme.to_string(),
                same_as: placement
                    .leader(v)
                    .filter(|&l| l != v)
                    .map(|l| graph.name_of(l).to_string()),
                reason: if bent.is_empty() {
                    placement.reason(v).to_string()
                } else {
                    format!("{}; {bent}", placement.reason(v))
                },
            })
            .collect();
        Ok(())
    }
}

/// What decides a node line.
struct Context<'a> {
    graph: &'a Graph,
    table: OpTable,
    recipe: &'a Recipe,
    target: &'a Target,
}

impl Context<'_> {
    fn line(&self, node: &Node, kept: bool) -> NodeLine {
        let decided =
            if kept { Err("kept in float by the recipe".to_string()) } else { self.decide(node) };
        let (quantize, weights, reason) = match decided {
            Ok((weights, reason)) => (true, weights, reason),
            Err(reason) => (false, None, reason),
        };
        NodeLine {
            name: node.name.clone(),
            op: node.op.clone(),
            quantize,
            weights: weights.map(|w| w.to_string()),
            reason,
        }
    }

    /// The weight scheme and the reason, or why the node stays in float.
    fn decide(&self, node: &Node) -> Result<(Option<QuantScheme>, String), String> {
        match self.recipe.method {
            Method::Fp16 | Method::Bf16 => return Err(format!("stored as {}", self.recipe.name)),
            Method::Static if !self.target.runs(&node.op) => {
                return Err(format!("{} does not run {} on integers", self.target.name, node.op));
            }
            _ => {}
        }
        let Some(def) = self.table.of(node) else {
            return Err("unknown operator".to_string());
        };
        match def.role {
            Role::FloatOnly => Err("has no integer form".to_string()),
            Role::Weighted(axis) => self.weighted(node, axis(node)),
            _ if self.recipe.method != Method::Static => Err("has no weight".to_string()),
            Role::Elementwise => Ok((None, "computes on codes".to_string())),
            Role::Clamp => Ok((None, "folded into the range before it".to_string())),
            Role::SameScale | Role::JointScale => Ok((None, "moves codes".to_string())),
        }
    }

    fn weighted(&self, node: &Node, axis: i32) -> Result<(Option<QuantScheme>, String), String> {
        let constant = node.input(1).and_then(|v| self.graph.constant(v));
        if constant.is_some()
            && self.recipe.method == Method::Dynamic
            && node.op != "MatMul"
            && node.op != "Gemm"
        {
            return Err("dynamic quantization covers MatMul and Gemm".to_string());
        }
        match constant {
            Some(weight) => placement::weight_scheme(self.recipe, self.target, node, weight, axis),
            None if node.op == "MatMul" && self.recipe.method == Method::Static => {
                Ok((None, "both operands are activations".to_string()))
            }
            None => Err("its weight is not constant".to_string()),
        }
    }
}

/// Nodes that any of the selectors matches.
///
/// # Errors
/// When a selector is empty or matches nothing.
pub fn select(graph: &Graph, selectors: &[Selector]) -> Result<BTreeSet<NodeId>> {
    let mut chosen = BTreeSet::new();
    for selector in selectors {
        let found = matches(graph, selector);
        if found.is_empty() {
            return Err(Error::usage(format!("`{selector}` matches no node"))
                .at("keep_float")
                .hint("`fewbit plan MODEL` lists the nodes by name and type"));
        }
        chosen.extend(found);
    }
    Ok(chosen)
}

fn matches(graph: &Graph, selector: &Selector) -> Vec<NodeId> {
    let of_op: Vec<(NodeId, &Node)> =
        graph.nodes().filter(|(_, n)| selector.op.as_ref().is_none_or(|op| n.op == *op)).collect();
    let wanted = selector.index.map(|i| if i < 0 { i + of_op.len() as i64 } else { i });
    let by_index = |position: usize| wanted.is_none_or(|w| w == position as i64);
    let by_name = |node: &Node| selector.name.as_ref().is_none_or(|p| glob(p, &node.name));
    let hits = of_op.iter().enumerate().filter(|(i, (_, n))| by_index(*i) && by_name(n));
    hits.map(|(_, (id, _))| *id).collect()
}

/// Whether `text` matches a pattern in which `*` stands for any run of characters.
fn glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        assert!(glob("layer1.*", "layer1.conv"));
        assert!(glob("*conv*1", "a.conv.b1"));
        assert!(!glob("*conv*1", "a.conv.b2"));
        assert!(!glob("conv", "conv1"));
        assert!(!glob("ab*ba", "aba"));
    }
}
