//! Per-layer loss: the same samples through two models, value by value.

use crate::calibrate::for_each_sample;
use crate::metric::Likeness;
use crate::progress::Progress;
use crate::samples::{Samples, bind};
use fewbit_core::{Model, Result};
use fewbit_exec::{Mode, OpTable, Role, Session, SessionOptions, TapEvent};
use serde::Serialize;
use std::collections::HashMap;

/// How far one layer's output is from the original's.
#[derive(Clone, Debug, Serialize)]
pub struct LayerLoss {
    /// Node name.
    pub name: String,
    /// Operator.
    pub op: String,
    /// Value that was compared.
    pub value: String,
    /// Signal-to-quantization-noise ratio at this point in decibels, noise of earlier layers
    /// included; `None` when the values are equal, and, with a cosine of NaN, when some are not
    /// finite.
    pub sqnr_db: Option<f64>,
    /// Cosine between both outputs.
    pub cosine: f64,
}

/// Compares the outputs of all computing layers that both models have under one name, in the
/// order of the first model.
///
/// Memory: the compared activations of one sample.
///
/// # Errors
/// When a sample does not fit one of the models.
pub fn layer_losses(
    original: (&Model, Mode),
    changed: (&Model, Mode),
    samples: &dyn Samples,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<LayerLoss>> {
    let layers = shared_layers(original.0, changed.0);
    let names: Vec<&str> = layers.iter().map(|l| l.value.as_str()).collect();
    let (a, b) = (tapped(original, &names, threads)?, tapped(changed, &names, threads)?);
    let mut likeness: HashMap<String, Likeness> = HashMap::new();
    progress.start("compare layers", samples.len());
    for_each_sample(samples, threads, |_, sample| {
        let mut seen: HashMap<String, Vec<f32>> = HashMap::new();
        a.run_tapped(&bind(&sample, a.inputs())?, &mut |event: &TapEvent| {
            seen.insert(event.name.to_string(), event.to_onnx_layout()?.to_f32()?);
            Ok(())
        })?;
        b.run_tapped(&bind(&sample, b.inputs())?, &mut |event: &TapEvent| {
            if let Some(original) = seen.remove(event.name) {
                let changed = event.to_onnx_layout()?.to_f32()?;
                likeness.entry(event.name.to_string()).or_default().add(&original, &changed);
            }
            Ok(())
        })?;
        progress.step();
        Ok(())
    })?;
    progress.finish();
    let found = layers.into_iter().filter_map(|l| Some((likeness.get(&l.value)?, l)));
    Ok(found.map(|(likeness, layer)| layer.measured(likeness)).collect())
}

impl LayerLoss {
    fn measured(mut self, likeness: &Likeness) -> Self {
        let sqnr = likeness.sqnr_db();
        self.sqnr_db = sqnr.is_finite().then_some(sqnr);
        self.cosine = likeness.cosine();
        self
    }
}

/// Layers that compute (not merely move data) and whose output both models name alike.
fn shared_layers(original: &Model, changed: &Model) -> Vec<LayerLoss> {
    let table = OpTable::standard();
    let mut layers = Vec::new();
    for (_, node) in original.graph.nodes() {
        let computes =
            table.of(node).is_some_and(|d| !matches!(d.role, Role::SameScale | Role::JointScale));
        let Some(output) = node.output(0).filter(|_| computes) else {
            continue;
        };
        let value = original.graph.name_of(output).to_string();
        if changed.graph.find_value(&value).is_some() {
            layers.push(LayerLoss {
                name: node.name.clone(),
                op: node.op.clone(),
                value,
                sqnr_db: None,
                cosine: 1.0,
            });
        }
    }
    layers
}

fn tapped((model, mode): (&Model, Mode), names: &[&str], threads: usize) -> Result<Session> {
    let mut options = SessionOptions::new(mode);
    options.threads = threads;
    options.taps = names.iter().map(|n| n.to_string()).collect();
    Session::new(model, &options)
}
