//! The row an operator has in the table: everything fewbit knows about it.

use crate::eval::EvalCtx;
use crate::infer::InferCtx;
use fewbit_core::{Node, Result, Tensor, ValueType};
use std::collections::HashMap;

/// Computes the outputs of a node in float or on codes, exactly as the ONNX specification says.
pub type EvalFn = fn(&mut EvalCtx) -> Result<Vec<Tensor>>;

/// Derives output types from input types (and from inputs whose value is known).
pub type InferFn = fn(&InferCtx) -> Result<Vec<ValueType>>;

/// What quantization may do with an operator.
#[derive(Clone, Copy)]
pub enum Role {
    /// Multiply-accumulate with the weight at input 1 and an optional bias at input 2. The
    /// function gives the weight's output-channel axis for a node, for per-channel scales.
    Weighted(fn(&Node) -> i32),
    /// Computes on integers; every input and the output have scales of their own.
    Elementwise,
    /// Clamps its input: folded into the output range of the operator before it.
    Clamp,
    /// Moves or selects elements: the output has the scale of input 0.
    SameScale,
    /// Joins its inputs: all inputs and the output share one scale.
    JointScale,
    /// Stays in float.
    FloatOnly,
}

/// One row of the operator table.
#[derive(Clone, Copy)]
pub struct OpDef {
    /// Operator domain; empty for the default ONNX domain.
    pub domain: &'static str,
    /// Operator name.
    pub name: &'static str,
    /// Oldest operator-set version whose meaning `eval` implements.
    pub since: i64,
    /// Shape and type inference.
    pub infer: InferFn,
    /// Evaluation.
    pub eval: EvalFn,
    /// Role in quantization.
    pub role: Role,
}

impl OpDef {
    /// A row of the default domain that stays in float and is valid since opset 1.
    pub const fn new(name: &'static str, infer: InferFn, eval: EvalFn) -> Self {
        OpDef { domain: "", name, since: 1, infer, eval, role: Role::FloatOnly }
    }

    /// The same row with another role.
    pub const fn role(self, role: Role) -> Self {
        OpDef { role, ..self }
    }

    /// The same row, valid from a later operator set on.
    pub const fn since(self, since: i64) -> Self {
        OpDef { since, ..self }
    }

    /// The same row in another domain.
    pub const fn domain(self, domain: &'static str) -> Self {
        OpDef { domain, ..self }
    }
}

/// The operators a session knows: the standard ones, and any the caller adds.
#[derive(Clone)]
pub struct OpTable {
    rows: HashMap<(String, String), OpDef>,
}

impl OpTable {
    /// All operators of fewbit.
    pub fn standard() -> Self {
        let mut table = OpTable { rows: HashMap::new() };
        crate::ops::ALL.iter().copied().flatten().for_each(|def| table.add(*def));
        table
    }

    /// Adds a row, replacing one of the same domain and name.
    pub fn add(&mut self, def: OpDef) {
        self.rows.insert((def.domain.to_string(), def.name.to_string()), def);
    }

    /// The row of an operator; `ai.onnx` is the default domain's other spelling.
    pub fn get(&self, domain: &str, name: &str) -> Option<&OpDef> {
        let domain = if domain == "ai.onnx" { "" } else { domain };
        self.rows.get(&(domain.to_string(), name.to_string()))
    }

    /// The row of a node's operator.
    pub fn of(&self, node: &Node) -> Option<&OpDef> {
        self.get(&node.domain, &node.op)
    }

    /// All rows, sorted by domain and name.
    pub fn rows(&self) -> Vec<&OpDef> {
        let mut rows: Vec<&OpDef> = self.rows.values().collect();
        rows.sort_by_key(|d| (d.domain, d.name));
        rows
    }
}
