//! Which quantized layer hurts the result most, measured.

use crate::calibrate::for_each_sample;
use crate::metric::Likeness;
use crate::progress::Progress;
use crate::samples::{Samples, bind};
use fewbit_core::{Model, Node, Patch, Result, Tensor, ValueId};
use fewbit_exec::{Mode, OpTable, Role, Session, SessionOptions};

/// Samples that are enough to rank layers.
const SAMPLES: usize = 16;

/// One layer and what it costs.
#[derive(Clone, Debug)]
pub struct Sensitivity {
    /// Node name.
    pub layer: String,
    /// Noise at the model's output that goes away when this layer alone computes in float, as a
    /// share of the signal; negative when the noise grows.
    pub noise: f64,
}

/// Ranks weighted layers, most harmful first: each one in turn is put back to float inside the
/// quantized model, and the outputs are compared with the float model's.
///
/// # Errors
/// When a sample does not fit the models.
pub fn rank(
    float: &Model,
    quantized: &Model,
    samples: &dyn Samples,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Vec<Sensitivity>> {
    let table = OpTable::standard();
    let weighted = |n: &Node| table.of(n).is_some_and(|d| matches!(d.role, Role::Weighted(_)));
    let layers: Vec<String> =
        float.graph.nodes().filter(|(_, n)| weighted(n)).map(|(_, n)| n.name.clone()).collect();
    let outputs = outputs(float, Mode::Float, samples, threads)?;
    let noise = |model: &Model| -> Result<f64> {
        let mut likeness = Likeness::default();
        let candidate = self::outputs(model, Mode::Integer, samples, threads)?;
        outputs.iter().zip(&candidate).for_each(|(a, b)| likeness.add(a, b));
        Ok(10f64.powf(-likeness.sqnr_db() / 10.0))
    };
    let base = noise(quantized)?;
    progress.start("rank layers", layers.len());
    let mut ranked = Vec::new();
    for layer in layers {
        if let Some(relieved) = in_float(quantized, float, &layer)? {
            ranked.push(Sensitivity { layer, noise: base - noise(&relieved)? });
        }
        progress.step();
    }
    progress.finish();
    ranked.sort_by(|a, b| b.noise.total_cmp(&a.noise));
    Ok(ranked)
}

fn outputs(
    model: &Model,
    mode: Mode,
    samples: &dyn Samples,
    threads: usize,
) -> Result<Vec<Vec<f32>>> {
    let mut options = SessionOptions::new(mode);
    options.threads = threads;
    let session = Session::new(model, &options)?;
    let mut all = Vec::new();
    let few = Few(samples);
    for_each_sample(&few, threads, |_, sample| {
        let outputs = session.run(&bind(&sample, session.inputs())?)?;
        if let Some((_, tensor)) = outputs.first() {
            all.push(tensor.to_f32()?);
        }
        Ok(())
    })?;
    Ok(all)
}

/// The first samples of a set.
struct Few<'a>(&'a dyn Samples);

impl Samples for Few<'_> {
    fn len(&self) -> usize {
        self.0.len().min(SAMPLES)
    }

    fn task(&self) -> crate::samples::Task {
        self.0.task()
    }

    fn sample(&self, index: usize) -> Result<crate::samples::Sample> {
        self.0.sample(index)
    }

    fn name(&self) -> String {
        self.0.name()
    }

    fn fingerprint(&self) -> Result<String> {
        self.0.fingerprint()
    }
}

/// The quantized model with one layer's weight, bias and input in float again; `None` when the
/// layer is in float already.
fn in_float(quantized: &Model, float: &Model, layer: &str) -> Result<Option<Model>> {
    let find = |m: &Model| m.graph.nodes().find(|(_, n)| n.name == layer).map(|(id, _)| id);
    let (Some(id), Some(original)) = (find(quantized), find(float)) else {
        return Ok(None);
    };
    let (graph, source) = (&quantized.graph, &float.graph);
    let uses = graph.uses();
    let dequantized =
        |v: ValueId| uses.producer(v).filter(|&p| graph.node(p).is("DequantizeLinear"));
    let node = graph.node(id);
    if node.input(1).and_then(dequantized).is_none() {
        return Ok(None);
    }
    let mut patch = Patch::new(graph);
    for index in [1, 2] {
        let constant: Option<&Tensor> =
            source.node(original).input(index).and_then(|v| source.constant(v));
        if let Some(tensor) = constant {
            let value = patch.add_constant(&format!("{layer}.float{index}"), tensor.clone());
            patch.set_input(id, index, Some(value));
        }
    }
    // Read the value before its Q/DQ pair.
    let before = node.input(0).and_then(dequantized).and_then(|dq| graph.node(dq).input(0));
    let before = before.and_then(|codes| uses.producer(codes)).and_then(|q| graph.node(q).input(0));
    if let Some(value) = before {
        patch.set_input(id, 0, Some(value));
    }
    let mut model = quantized.clone();
    patch.apply(&mut model.graph)?;
    Patch::remove_dead(&mut model.graph)?;
    Ok(Some(model))
}
