//! One case of the suite: a model, its inputs and the outputs it must give.

use super::compare::compare;
use fewbit_core::{DType, ErrorKind, Graph, Model, Tensor, ValueId};
use fewbit_exec::kernels::Pool;
use fewbit_exec::{Mode, OpTable, Session, SessionOptions};
use fewbit_formats::onnx;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// What became of a case.
pub enum Outcome {
    Passed,
    /// Refused by name, before or while it ran.
    Unsupported(String),
    /// An error, or an output that differs.
    Failed(String),
    /// A panic.
    Crashed,
}

/// The result of a case, and what it counts for.
pub struct Report {
    pub name: String,
    /// The operator of the last node.
    pub operator: String,
    /// Whether the case stands for an operator itself (not for its expansion), on tensors of
    /// numbers, in the default domain.
    pub primary: bool,
    pub outcome: Outcome,
}

/// Runs the case in `folder`.
pub fn run(folder: &Path, table: &OpTable, pool: &Arc<Pool>) -> Report {
    let name = folder.file_name().unwrap().to_string_lossy().into_owned();
    let report = |operator: &str, primary, outcome| Report {
        name: name.clone(),
        operator: operator.to_string(),
        primary,
        outcome,
    };
    let model = match catch_unwind(|| onnx::read(&folder.join("model.onnx"))) {
        Ok(Ok(model)) => model,
        Ok(Err(error)) => return report("(unreadable)", false, outcome_of(&error)),
        Err(_) => return report("(unreadable)", false, Outcome::Crashed),
    };
    let operator = model.graph.nodes().last().map_or("(none)", |(_, node)| &node.op);
    let primary = !name.contains("_expanded") && on_tensors(&model) && default_domain(&model);
    let result = catch_unwind(AssertUnwindSafe(|| run_sets(folder, &model, table, pool)));
    let outcome = match result {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(outcome)) => outcome,
        Err(_) => Outcome::Crashed,
    };
    report(operator, primary, outcome)
}

fn on_tensors(model: &Model) -> bool {
    let graph = &model.graph;
    graph.inputs().iter().chain(graph.outputs()).all(|&id| {
        let ty = &graph.value(id).ty;
        ty.opaque.is_none() && ty.dtype != Some(DType::String)
    })
}

fn default_domain(model: &Model) -> bool {
    let default = |domain: &str| domain.is_empty() || domain == "ai.onnx";
    model.opsets.iter().all(|(domain, _)| default(domain))
}

fn outcome_of(error: &fewbit_core::Error) -> Outcome {
    match error.kind() {
        ErrorKind::Unsupported => Outcome::Unsupported(error.to_string()),
        _ => Outcome::Failed(error.to_string()),
    }
}

fn run_sets(
    folder: &Path,
    model: &Model,
    table: &OpTable,
    pool: &Arc<Pool>,
) -> Result<(), Outcome> {
    let options = SessionOptions::new(Mode::Float).threads(1);
    let session = Session::with_pool(model, &options, table, pool.clone())
        .map_err(|error| outcome_of(&error))?;
    for set in 0.. {
        let set = folder.join(format!("test_data_set_{set}"));
        if !set.is_dir() {
            break;
        }
        let inputs = tensors(&set, "input", &formal_inputs(&model.graph, &set), &model.graph)?;
        let inputs: Vec<(&str, Tensor)> =
            inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect();
        let expected = tensors(&set, "output", model.graph.outputs(), &model.graph)?;
        let found = session.run(&inputs).map_err(|error| outcome_of(&error))?;
        for ((name, found), (_, expected)) in found.iter().zip(&expected) {
            compare(found, expected)
                .map_err(|why| Outcome::Failed(format!("output {name}: {why}")))?;
        }
    }
    Ok(())
}

/// Some cases give values for inputs that have a default, most do not.
fn formal_inputs(graph: &Graph, set: &Path) -> Vec<ValueId> {
    let required: Vec<ValueId> = graph.required_inputs().collect();
    match set.join(format!("input_{}.pb", required.len())).exists() {
        true => graph.inputs().to_vec(),
        false => required,
    }
}

fn tensors(
    set: &Path,
    kind: &str,
    values: &[ValueId],
    graph: &Graph,
) -> Result<Vec<(String, Tensor)>, Outcome> {
    let mut found = Vec::new();
    for (index, &id) in values.iter().enumerate() {
        let value = graph.value(id);
        if value.ty.opaque.is_some() {
            return Err(Outcome::Unsupported(format!("`{}` is no tensor", value.name)));
        }
        let path = set.join(format!("{kind}_{index}.pb"));
        let tensor = onnx::read_tensor(&path).map_err(|error| outcome_of(&error))?;
        if graph.constant(id).is_none() || kind == "output" {
            found.push((value.name.clone(), tensor));
        }
    }
    Ok(found)
}
