//! The way from a graph to a program.

use super::analyze::{Fold, analyze_but, fold_patch};
use super::factor::factor_scales;
use super::float::skip_activation_quantization;
use super::fused;
use super::identity::skip_identities;
use super::integer::sign::make_unsigned;
use super::layout::assign_layouts;
use super::lower::Lowering;
use super::padding::take_zeros;
use super::planes::hand_planes;
use super::program::Program;
use super::qoperator::{is_qoperator, spell_out};
use super::scope::Scope;
use super::sequence;
use super::weights::deferred;
use crate::session::{Mode, NodePlan};
use fewbit_core::{Error, Graph, Patch, Result, Tensor, ValueType};
use std::collections::HashSet;

/// What an outer graph tells a subgraph about a value that it captures.
pub(crate) struct Captured {
    pub name: String,
    pub ty: ValueType,
    pub constant: Option<Tensor>,
}

/// A program with what a person may want to know about it.
pub(crate) struct Built {
    pub program: Program,
    pub plan: Vec<NodePlan>,
}

/// Prepares a graph. `taps` names values that stay observable; `captured` describes the outer
/// values that a subgraph reads: those that are not constant become its last inputs.
///
/// # Errors
/// When a tap names no value, an operator is unknown, or a weight contradicts its node.
pub(crate) fn build(
    mut graph: Graph,
    scope: &Scope,
    taps: &HashSet<String>,
    captured: &[Captured],
) -> Result<Built> {
    let outputs = graph.outputs().len();
    declare_captures(&mut graph, captured)?;
    watch(&mut graph, taps)?;
    let types = rewrite(&mut graph, scope)?;
    let mut lowering = Lowering::new(&graph, &types, scope);
    lowering.lower_all()?;
    let (steps, plan) = lowering.finish()?;
    let mut program = assign_layouts(&graph, &types, steps, outputs, taps)?;
    hand_planes(&mut program);
    program.sequences = sequence::find(&program);
    Ok(Built { program, plan })
}

/// Writes the graph in the forms that steps are made of; returns the types of all values.
fn rewrite(graph: &mut Graph, scope: &Scope) -> Result<Vec<ValueType>> {
    let (float, integer) = (scope.mode == Mode::Float, scope.mode == Mode::Integer);
    fused::write_out(graph, scope)?;
    if float {
        skip_activation_quantization(graph)?;
    }
    skip_identities(graph)?;
    let on_codes = graph.nodes().any(|(_, node)| is_qoperator(node));
    let kept = if float && !on_codes { Fold::All } else { Fold::KeepDequantize };
    let mut types = fold(graph, scope, kept)?;
    if on_codes {
        spell_out(graph, &types, scope).apply(graph)?;
        types = fold(graph, scope, kept)?;
    }
    take_zeros(graph, &types, scope)?;
    // Sums of operators on codes are exact in every mode.
    if scope.mode == Mode::Simulate || (float && on_codes) {
        factor_scales(graph, &types, scope)?.apply(graph)?;
        types = fold(graph, scope, Fold::All)?;
    }
    if integer && make_unsigned(graph, &types, scope)? {
        types = fold(graph, scope, kept)?;
    }
    Ok(types)
}

fn declare_captures(graph: &mut Graph, captured: &[Captured]) -> Result<()> {
    for outer in captured {
        let id = graph.value_named_or_new(&outer.name)?;
        match &outer.constant {
            Some(tensor) => graph.set_constant(id, tensor.clone()),
            None => {
                graph.set_type(id, outer.ty.clone());
                graph.add_input(id);
            }
        }
    }
    Ok(())
}

/// Tapped values become outputs, so that no pass removes or fuses them.
fn watch(graph: &mut Graph, taps: &HashSet<String>) -> Result<()> {
    let mut names: Vec<&String> = taps.iter().collect();
    names.sort();
    for name in names {
        let Some(id) = graph.find_value(name) else {
            return Err(Error::usage(format!("a tap names `{name}`, which the graph has not")));
        };
        graph.add_output(id);
    }
    Ok(())
}

/// Replaces what is constant; returns the types of all values.
fn fold(graph: &mut Graph, scope: &Scope, fold: Fold) -> Result<Vec<ValueType>> {
    let analysis = analyze_but(graph, scope, fold, &deferred(graph));
    let patch = fold_patch(graph, &analysis);
    if !patch.is_empty() {
        patch.apply(graph)?;
    }
    Patch::remove_dead(graph)?;
    Ok(analysis.types)
}
