//! `Integer` mode: groups of DQ, operator and Q become one step on codes.
//!
//! [`lower`] looks at one node. Dequantization before it and quantization after it are read by
//! [`codes`]; [`product`] makes convolutions and matrix products, [`pointwise`] tables and
//! arithmetic of two operands, [`composite`] tables for functions of several operators, [`movement`] everything that only moves or selects codes. [`sign`]
//! comes before all of them: it chooses between signed and unsigned codes.

pub(crate) mod codes;
mod composite;
pub(crate) mod finish;
mod movement;
pub(crate) mod operands;
mod pointwise;
pub(crate) mod product;
pub(crate) mod scaled;
pub(crate) mod sign;

use super::lower::{Lowered, Lowering};
use crate::def::Role;
use crate::ops;
use codes::{Coded, Target, Why};
use fewbit_core::{Node, NodeId, Result};

/// The outcome for one node.
pub(crate) enum Outcome {
    /// One step on codes.
    Step(Box<Lowered>),
    /// Float, for this reason.
    Float(Option<Why>),
}

/// Tries to compute a node on codes.
///
/// # Errors
/// When the node contradicts its weight.
pub(crate) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Outcome> {
    if !matches!(node.domain.as_str(), "" | "ai.onnx") {
        return Ok(Outcome::Float(None));
    }
    if let Some(step) = composite::lower(lowering, id, node) {
        return Ok(Outcome::Step(Box::new(step)));
    }
    let found = match node.op.as_str() {
        "Conv" | "ConvTranspose" => ops::conv::lower_integer(lowering, id, node)?,
        "MatMul" | "Gemm" => ops::matmul::lower_integer(lowering, id, node)?,
        "Add" | "Sub" | "Mul" | "Div" | "Min" | "Max" | "Pow" | "PRelu" => {
            pointwise::lower_binary(lowering, id, node)
        }
        "QuantizeLinear" => pointwise::lower_requantize(lowering, id, node),
        "Concat" => movement::lower_concat(lowering, id, node),
        "AveragePool" | "GlobalAveragePool" => ops::pool::lower_integer(lowering, id, node)?,
        "ReduceMean" => ops::reduce::lower_integer(lowering, id, node),
        _ if pointwise::is_unary(node) => pointwise::lower_unary(lowering, id, node),
        _ if movement::moves(node) => movement::lower_move(lowering, id, node)?,
        _ => return Ok(Outcome::Float(no_kernel(lowering, node))),
    };
    Ok(match found {
        Ok(step) => Outcome::Step(Box::new(step)),
        // What never was quantized needs no excuse.
        Err(_) if !touches_codes(lowering, node) => Outcome::Float(None),
        Err(why) => Outcome::Float(Some(why)),
    })
}

/// The codes that a node of one input and one output reads, and those it writes.
///
/// # Errors
/// What stands in the way.
pub(crate) fn around(lowering: &Lowering, node: &Node) -> Result<(Coded, Target), Why> {
    let input = codes::coded(lowering, node.input(0).ok_or("an input is missing")?)?;
    if node.outputs.iter().flatten().count() != 1 {
        return Err("it has several outputs".to_string());
    }
    Ok((input, codes::target(lowering, node)?))
}

/// Whether an input of the node is dequantized.
fn touches_codes(lowering: &Lowering, node: &Node) -> bool {
    node.is("QuantizeLinear") || node.inputs.iter().flatten().any(|&v| is_dequantized(lowering, v))
}

fn is_dequantized(lowering: &Lowering, value: fewbit_core::ValueId) -> bool {
    let producer = lowering.uses.producer(value).map(|id| lowering.graph.node(id));
    producer.is_some_and(|node| node.is("DequantizeLinear"))
}

fn no_kernel(lowering: &Lowering, node: &Node) -> Option<Why> {
    let quantizer = matches!(node.op.as_str(), "DequantizeLinear" | "QuantizeLinear");
    let computes = match lowering.scope.def(node).ok()?.role {
        Role::FloatOnly | Role::Weighted(_) | Role::Elementwise | Role::Clamp => true,
        Role::SameScale | Role::JointScale => true,
    };
    (computes && !quantizer && touches_codes(lowering, node))
        .then(|| format!("{} has no integer kernel", node.op))
}
