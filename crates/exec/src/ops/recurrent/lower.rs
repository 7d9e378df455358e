//! A layer with constant weights as a prepared step.

use super::layer::{Given, float, run};
use super::operands::{Operands, WEIGHTS, Weights};
use super::spec::Spec;
use crate::plan::kernel::{Inputs, Kernel, RunCtx, required};
use crate::plan::layout::Rule;
use crate::plan::lower::{Lowered, Lowering};
use fewbit_core::{Node, NodeId, Result, Tensor};
use fewbit_kernels::recurrent::CellKind;

/// The step for a layer with constant weights; `None` leaves it to the plain evaluation.
///
/// # Errors
/// When attributes or weights contradict each other.
pub(crate) fn lower(lowering: &Lowering, id: NodeId, node: &Node) -> Result<Option<Lowered>> {
    let known = WEIGHTS.map(|index| match node.input(index) {
        None => Some(None),
        Some(value) => lowering.constant(value).map(Some),
    });
    let [Some(Some(w)), Some(Some(r)), Some(b), Some(p), codes @ ..] = known else {
        return Ok(None);
    };
    let [Some(w_scale), Some(w_zero), Some(r_scale), Some(r_zero)] = codes else { return Ok(None) };
    let (Some(_), Some(&output)) = (node.input(0), node.outputs.iter().flatten().next()) else {
        return Ok(None);
    };
    let spec = Spec::of(node)?;
    let kernels = lowering.scope.kernels;
    let operands = Operands {
        w: float(w)?,
        r: float(r)?,
        b: b.map(float).transpose()?,
        p: p.map(float).transpose()?,
        codes: [w_scale, w_zero, r_scale, r_zero],
    };
    let inputs = [0, 4, 5, 6].map(|index| node.input(index)).to_vec();
    let (integer, isa, threads) = (spec.quantized, kernels.isa, kernels.pool.threads());
    let pack = move || {
        let weights = Weights::new(&spec, &operands, isa, threads)?;
        Ok(Recurrent { spec, weights })
    };
    let mut step = Lowered::packed(vec![id], pack, inputs, output, Rule::Default);
    (step.outputs, step.integer) = (node.outputs.clone(), integer);
    Ok(Some(step))
}

/// The prepared step: X, the lengths of the sequences, and the first states of units and cells.
struct Recurrent {
    spec: Spec,
    weights: Weights,
}

impl Kernel for Recurrent {
    fn name(&self) -> String {
        let kind = match self.spec.kind {
            CellKind::Rnn => "rnn",
            CellKind::Gru { .. } => "gru",
            CellKind::Lstm { .. } => "lstm",
        };
        format!("{kind}_{}", if self.spec.quantized { "i8" } else { "f32" })
    }

    fn run(&self, ctx: &RunCtx, inputs: &mut Inputs) -> Result<Vec<Tensor>> {
        let optional = |index: usize| inputs.get(index).and_then(Option::as_ref);
        let given = Given {
            x: required(inputs, 0)?,
            lengths: optional(1),
            h: optional(2),
            c: optional(3),
            kernels: ctx.kernels,
            arena: ctx.arena,
        };
        run(&self.spec, &self.weights, &given)
    }

    fn macs(&self, outputs: &[Tensor]) -> u64 {
        let states = outputs.first().map_or(0, Tensor::len);
        let each = self.spec.kind.gates() * (self.weights.input + self.weights.hidden);
        (states as u64).saturating_mul(each as u64)
    }
}
