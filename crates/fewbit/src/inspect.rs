//! What a model is: ports, operators, weights, and how it would run here.

use crate::load::Source;
use crate::weights;
use fewbit_core::{Attr, Error, Graph, Model, ValueId};
use fewbit_exec::{Mode, OpTable, Role, Session, SessionOptions};
use fewbit_formats::mmap::shown;
use serde::Serialize;
use std::collections::BTreeMap;

/// Facts about a model.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Path as given.
    pub path: String,
    /// Format by content.
    pub format: String,
    /// Size of all files together.
    pub bytes: u64,
    /// All files: the model first, then external data.
    pub files: Vec<String>,
    /// ONNX IR version.
    pub ir_version: i64,
    /// Version of each operator domain; `ai.onnx` is the default one.
    pub opsets: BTreeMap<String, i64>,
    /// Program that wrote the file.
    pub producer: String,
    /// Inputs the caller must give.
    pub inputs: Vec<PortFacts>,
    /// Outputs.
    pub outputs: Vec<PortFacts>,
    /// Number of nodes, subgraphs included.
    pub nodes: usize,
    /// Weights: number of elements.
    pub parameters: u64,
    /// Bytes of all constants.
    pub parameter_bytes: u64,
    /// Operators with their counts, most frequent first.
    pub operators: Vec<OperatorFacts>,
    /// Operators that fewbit cannot run; they pass from file to file untouched.
    pub unknown_operators: Vec<String>,
    /// What is quantized already.
    pub quantization: QuantizationFacts,
    /// Whether it can be run here.
    pub runnable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
    /// How each node runs in integer mode.
    pub plan: Vec<PlanFacts>,
    /// Things a user should know.
    pub warnings: Vec<String>,
}

/// An input or output.
#[derive(Clone, Debug, Serialize)]
pub struct PortFacts {
    /// Name in the graph.
    pub name: String,
    /// Element type, `?` when the file does not say.
    pub dtype: String,
    /// Dimensions; names and `?` where they are open. None when the rank is open.
    pub shape: Option<Vec<String>>,
}

/// One operator of the model.
#[derive(Clone, Debug, Serialize)]
pub struct OperatorFacts {
    /// Name.
    pub op: String,
    /// Domain; `ai.onnx` is the default one.
    pub domain: String,
    /// Number of nodes.
    pub count: usize,
    /// Whether fewbit runs it.
    pub known: bool,
    /// What quantization does with it: `weighted`, `elementwise`, `clamp`, `moves`, `float`.
    pub role: String,
}

impl OperatorFacts {
    /// Whether the operator takes codes itself: `QLinearConv`, `QGemm`, `MatMulInteger`, ...
    pub fn computes_on_codes(&self) -> bool {
        computes_on_codes(&self.op)
    }
}

/// What of a model is in low bits.
#[derive(Clone, Debug, Default, Serialize)]
pub struct QuantizationFacts {
    /// Whether anything is.
    pub quantized: bool,
    /// `QuantizeLinear` and `DynamicQuantizeLinear` nodes.
    pub quantize_nodes: usize,
    /// `DequantizeLinear` nodes.
    pub dequantize_nodes: usize,
    /// Nodes that compute on codes themselves: `QLinearConv`, `MatMulInteger`, ...
    pub integer_nodes: usize,
    /// Bytes of constants with 8 or fewer bits for each element.
    pub low_bit_bytes: u64,
}

/// How one node runs.
#[derive(Clone, Debug, Serialize)]
pub struct PlanFacts {
    /// Node name.
    pub node: String,
    /// Operator.
    pub op: String,
    /// Kernel, or the step it is fused into.
    pub kernel: String,
    /// Whether it computes on integers.
    pub integer: bool,
    /// Why it runs in float although its operator could be integer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Looks at a model; also at one that cannot be run, and then says why.
pub fn inspect(source: &Source) -> Inspection {
    let model = &source.model;
    let constants = weights::count(&model.graph);
    let operators = operators(model);
    let unknown = operators.iter().filter(|o| !o.known).map(|o| o.full_name()).collect();
    let session = Session::new(model, &SessionOptions::new(Mode::Integer).threads(1));
    let graph = &model.graph;
    Inspection {
        path: shown(&source.path),
        format: "onnx".to_string(),
        bytes: source.bytes,
        files: source.files.iter().map(|f| shown(f)).collect(),
        ir_version: model.ir_version,
        opsets: model.opsets.iter().map(|(d, v)| (domain(d).to_string(), *v)).collect(),
        producer: format!("{} {}", model.producer.0, model.producer.1).trim().to_string(),
        inputs: graph.required_inputs().map(|v| port(graph, v)).collect(),
        outputs: graph.outputs().iter().map(|&v| port(graph, v)).collect(),
        nodes: operators.iter().map(|o| o.count).sum(),
        parameters: constants.parameters,
        parameter_bytes: constants.bytes,
        quantization: quantization(&operators, constants.low_bit_bytes),
        operators,
        unknown_operators: unknown,
        runnable: session.is_ok(),
        why_not: session.as_ref().err().map(Error::to_string),
        plan: session.as_ref().map(plan).unwrap_or_default(),
        warnings: weights::unsound(graph),
    }
}

impl OperatorFacts {
    fn full_name(&self) -> String {
        if self.domain == "ai.onnx" {
            self.op.clone()
        } else {
            format!("{}.{}", self.domain, self.op)
        }
    }
}

fn domain(name: &str) -> &str {
    if name.is_empty() { "ai.onnx" } else { name }
}

fn port(graph: &Graph, id: ValueId) -> PortFacts {
    let value = graph.value(id);
    let dims = value.ty.shape.as_ref();
    PortFacts {
        name: value.name.clone(),
        dtype: value.ty.dtype.map_or("?".to_string(), |d| d.to_string()),
        shape: dims.map(|dims| dims.iter().map(|d| d.to_string()).collect()),
    }
}

fn operators(model: &Model) -> Vec<OperatorFacts> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    count_nodes(&model.graph, &mut counts);
    let table = OpTable::standard();
    let facts = |((name, op), count): ((String, String), usize)| {
        let def = table.get(&name, &op);
        OperatorFacts {
            known: def.is_some(),
            role: def.map_or("unknown", |d| role_name(&d.role)).to_string(),
            domain: domain(&name).to_string(),
            op,
            count,
        }
    };
    let mut list: Vec<OperatorFacts> = counts.into_iter().map(facts).collect();
    list.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.op.cmp(&b.op)));
    list
}

fn count_nodes(graph: &Graph, counts: &mut BTreeMap<(String, String), usize>) {
    for (_, node) in graph.nodes() {
        let name = if node.domain == "ai.onnx" { "" } else { &node.domain };
        *counts.entry((name.to_string(), node.op.clone())).or_default() += 1;
        let attrs = node.attrs.iter().map(|(_, attr)| attr);
        attrs.flat_map(Attr::graphs).for_each(|inner| count_nodes(inner, counts));
    }
}

fn role_name(role: &Role) -> &'static str {
    match role {
        Role::Weighted(_) => "weighted",
        Role::Elementwise => "elementwise",
        Role::Clamp => "clamp",
        Role::SameScale | Role::JointScale => "moves",
        Role::FloatOnly => "float",
    }
}

/// As [`OperatorFacts::computes_on_codes`].
pub(crate) fn computes_on_codes(op: &str) -> bool {
    op.starts_with("QLinear") || op == "QGemm" || op.ends_with("Integer")
}

fn quantization(operators: &[OperatorFacts], low_bit_bytes: u64) -> QuantizationFacts {
    let sum = |fits: &dyn Fn(&str) -> bool| {
        operators.iter().filter(|o| fits(&o.op)).map(|o| o.count).sum::<usize>()
    };
    let mut facts = QuantizationFacts {
        quantized: false,
        quantize_nodes: sum(&|op| matches!(op, "QuantizeLinear" | "DynamicQuantizeLinear")),
        dequantize_nodes: sum(&|op| op == "DequantizeLinear"),
        integer_nodes: sum(&|op| computes_on_codes(op) || op.starts_with("MatMulNBits")),
        low_bit_bytes,
    };
    facts.quantized = facts.quantize_nodes + facts.dequantize_nodes + facts.integer_nodes > 0;
    facts
}

fn plan(session: &Session) -> Vec<PlanFacts> {
    let facts = |line: &fewbit_exec::NodePlan| PlanFacts {
        node: line.node.clone(),
        op: line.op.clone(),
        kernel: line.kernel.clone(),
        integer: line.integer,
        reason: line.reason.clone(),
    };
    session.plan().iter().map(facts).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_take_codes_are_counted() {
        let facts = |op: &str| OperatorFacts {
            op: op.to_string(),
            domain: "com.microsoft".to_string(),
            count: 2,
            known: true,
            role: "float".to_string(),
        };
        let operators = ["QGemm", "QLinearAdd", "ConvInteger", "Gemm"].map(facts);
        assert_eq!(quantization(&operators, 0).integer_nodes, 6);
    }
}
