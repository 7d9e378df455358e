//! What an operator on codes means: which operator on numbers, between which scales.

use super::site::{Coding, Operand, Site};
use crate::ops::quantize::MICROSOFT;
use crate::plan::scope::Scope;
use crate::session::Mode;
use fewbit_core::{Attr, Graph, Node, Tensor, ValueType};

/// An operator on numbers, with the codes that it reads and writes.
pub(super) struct Meaning {
    pub op: &'static str,
    pub attrs: Vec<(String, Attr)>,
    pub operands: Vec<Operand>,
    /// How the result becomes codes; without it the output is numbers.
    pub coding: Option<Coding>,
}

/// How the node of an operator is read; `None` where its own evaluation is needed.
type Reader = fn(&Site, &Around) -> Option<Meaning>;

/// What a reader may ask for besides the node.
struct Around {
    mode: Mode,
    /// Operator set of the operators on numbers.
    opset: i64,
}

/// Whether a node is an operator on codes that may be written as three.
pub(crate) fn is_qoperator(node: &Node) -> bool {
    reader(node).is_some()
}

fn reader(node: &Node) -> Option<Reader> {
    if node.is("QLinearConv") {
        return Some(convolution);
    }
    if node.is("QLinearMatMul") {
        return Some(product);
    }
    if node.domain != MICROSOFT {
        return None;
    }
    Some(match node.op.as_str() {
        "QLinearConv" => convolution,
        "QGemm" => gemm,
        "QLinearAdd" => |site, _| pair(site, "Add"),
        "QLinearMul" => |site, _| pair(site, "Mul"),
        "QLinearSigmoid" => |site, _| single(site, "Sigmoid"),
        "QLinearLeakyRelu" => |site, _| single(site, "LeakyRelu"),
        "QLinearSoftmax" => softmax,
        "QLinearAveragePool" => |site, _| pool(site, "AveragePool"),
        "QLinearGlobalAveragePool" => |site, _| pool(site, "GlobalAveragePool"),
        "QLinearConcat" => concat,
        _ => return None,
    })
}

impl Meaning {
    /// What a node means; `None` where it must stay.
    pub fn of(graph: &Graph, types: &[ValueType], scope: &Scope, node: &Node) -> Option<Meaning> {
        let reader = reader(node)?;
        let around = Around { mode: scope.mode, opset: scope.opset(&Node::default()) };
        // Before operator set 7 the operators on numbers broadcast by an attribute.
        (around.opset >= 7).then(|| reader(&Site { graph, types, node }, &around)).flatten()
    }

    fn new(
        site: &Site,
        op: &'static str,
        operands: Vec<Operand>,
        coding: Option<Coding>,
    ) -> Option<Meaning> {
        let kept = |(name, _): &&(String, Attr)| name != "channels_last";
        let attrs = site.node.attrs.iter().filter(kept).cloned().collect();
        (!site.is_set("channels_last")?).then_some(Meaning { op, attrs, operands, coding })
    }
}

/// `QLinearConv` with a constant weight. Over volumes it stays: those have no kernel on codes.
fn convolution(site: &Site, _: &Around) -> Option<Meaning> {
    let shape = site.constant(3)?.shape();
    if site.ty(0)?.rank() != Some(shape.len()) || !(3..=4).contains(&shape.len()) {
        return None;
    }
    let (x, w) = (site.operand(0)?, site.per_channel(3, 0, shape[0])?);
    let bias = match site.node.input(8) {
        None => None,
        Some(_) => Some(site.bias(8, &x, &w, shape[0])?),
    };
    let operands = [x, w].into_iter().chain(bias).collect();
    Meaning::new(site, "Conv", operands, Some(site.result(6, 7, site.dtype(0)?)?))
}

/// `QLinearMatMul` with a constant matrix, or of two tensors that are computed.
fn product(site: &Site, around: &Around) -> Option<Meaning> {
    let a = site.operand(0)?;
    let b = match site.constant(3).map(Tensor::shape) {
        Some(&[rows, columns]) if rows > 0 && columns > 0 => {
            site.ty(0)?.rank().filter(|&rank| rank >= 2)?;
            site.per_channel(3, 1, columns)?
        }
        Some(_) => return None,
        // Sums of codes are exact, sums of numbers are not.
        None if around.mode != Mode::Integer => return None,
        None => match site.ty(3)?.shape.as_deref()? {
            [_, .., columns] if columns.known().is_some() => site.operand(3)?,
            _ => return None,
        },
    };
    Meaning::new(site, "MatMul", vec![a, b], Some(site.result(6, 7, site.dtype(0)?)?))
}

/// `QGemm` with a constant matrix and a row as bias.
fn gemm(site: &Site, _: &Around) -> Option<Meaning> {
    let &[rows, columns] = site.constant(3)?.shape() else { return None };
    let alpha = site.node.float("alpha").ok()?.unwrap_or(1.0);
    let is_matrix = site.ty(0)?.rank() == Some(2);
    if !is_matrix || rows == 0 || columns == 0 || alpha != 1.0 || site.is_set("transA")? {
        return None;
    }
    let (axis, channels) = if site.is_set("transB")? { (0, rows) } else { (1, columns) };
    let (a, b) = (site.operand(0)?, site.per_channel(3, axis, channels)?);
    let bias = match site.node.input(6) {
        None => None,
        Some(_) => Some(site.bias(6, &a, &b, channels)?),
    };
    let coding = match site.node.input(7) {
        None => None,
        Some(_) => Some(site.result(7, 8, site.dtype(0)?)?),
    };
    Meaning::new(site, "Gemm", [a, b].into_iter().chain(bias).collect(), coding)
}

/// Codes and their scale, then the scale of the output.
fn single(site: &Site, op: &'static str) -> Option<Meaning> {
    let coding = site.coding(3, 4, site.dtype(0)?, 1)?;
    Meaning::new(site, op, vec![site.operand(0)?], Some(coding))
}

/// Two codes with their scales, then the scale of the output.
fn pair(site: &Site, op: &'static str) -> Option<Meaning> {
    let dtype = site.dtype(0).filter(|&dtype| site.dtype(3) == Some(dtype))?;
    let operands = vec![site.operand(0)?, site.operand(3)?];
    Meaning::new(site, op, operands, Some(site.coding(6, 7, dtype, 1)?))
}

/// `QLinearSoftmax`, which says itself whether it flattens, as operator sets before 13 did.
fn softmax(site: &Site, around: &Around) -> Option<Meaning> {
    let own = site.node.int("opset").ok()?.unwrap_or(13);
    let axis = site.node.int("axis").ok()?.unwrap_or(-1);
    let meaning = single(site, "Softmax").filter(|_| (own >= 13) == (around.opset >= 13))?;
    Some(Meaning { attrs: vec![("axis".to_string(), Attr::Int(axis))], ..meaning })
}

fn pool(site: &Site, op: &'static str) -> Option<Meaning> {
    site.ty(0)?.rank().filter(|&rank| rank >= 3)?;
    single(site, op)
}

/// `QLinearConcat`: the scale of the output, then codes with a scale each.
fn concat(site: &Site, _: &Around) -> Option<Meaning> {
    let dtype = site.dtype(2)?;
    let operand = |first: usize| site.operand(first).filter(|_| site.dtype(first) == Some(dtype));
    let operands = (2..site.node.inputs.len()).step_by(3).map(operand).collect::<Option<_>>()?;
    Meaning::new(site, "Concat", operands, Some(site.coding(0, 1, dtype, 1)?))
}
