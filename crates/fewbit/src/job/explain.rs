//! The part of a report that costs runs of its own: layers, distributions, latency.

use super::restored::RestoredWeights;
use super::{Built, QuantizeJob};
use crate::bench::{BenchOptions, bench};
use crate::data::First;
use fewbit_core::{DType, Graph, Model, Node, Result, ResultExt};
use fewbit_exec::Mode;
use fewbit_quant::explain::{activation_bars, layer_losses, weight_bars};
use fewbit_quant::metric::Likeness;
use fewbit_quant::observer::Range;
use fewbit_quant::report::{Latency, LayerCard, Report};
use fewbit_quant::{Calibration, Plan, Progress, Recipe, Samples, calibrate};
use std::collections::HashMap;

/// Samples that per-layer figures are taken from.
const SAMPLES: usize = 16;
/// Seconds of latency measurement for each model.
const BENCH_SECONDS: f64 = 0.5;

/// One card for each node, without measurements.
pub(super) fn cards(plan: &Plan) -> Vec<LayerCard> {
    let card = |line: &fewbit_quant::NodeLine| LayerCard {
        name: line.name.clone(),
        op: line.op.clone(),
        quantized: line.quantize,
        reason: line.reason.clone(),
        weights: line.weights.clone(),
        sqnr_db: None,
        weight_sqnr_db: None,
        weight_bars: None,
        activation_bars: None,
        range: None,
    };
    plan.nodes.iter().map(card).collect()
}

/// Fills the report with what is measured for people.
pub(super) fn explain(
    job: &QuantizeJob,
    built: &Built,
    report: &mut Report,
    progress: &dyn Progress,
) -> Result<()> {
    report.layers = cards(&built.plan);
    add_weights(built, &mut report.layers)?;
    if let Some(samples) = job.evaluation.or(job.calibration) {
        let few = First { all: samples, count: SAMPLES };
        add_losses(job, built, &few, &mut report.layers, progress)?;
        add_distributions(job, built, &few, &mut report.layers, progress)?;
    }
    report.latency = latency(job, &built.model, progress).ok();
    Ok(())
}

fn add_weights(built: &Built, layers: &mut [LayerCard]) -> Result<()> {
    let graph = &built.prepared.graph;
    let restored = RestoredWeights::of(&built.model.graph);
    for ((_, node), card) in graph.nodes().zip(layers) {
        let weight = node.input(1).and_then(|v| graph.constant(v));
        if let (Some(weight), Some(_)) = (weight, &card.weights) {
            let restored = restored.weight(node);
            card.weight_bars = weight_bars(weight)?;
            if let Some(bars) = &mut card.weight_bars {
                bars.chosen = restored.as_deref().and_then(extent);
            }
            card.weight_sqnr_db = restored.and_then(|r| likeness(&weight.to_f32().ok()?, &r));
        }
    }
    Ok(())
}

/// Smallest and largest value; `None` for nothing.
fn extent(values: &[f32]) -> Option<(f32, f32)> {
    let (first, rest) = values.split_first()?;
    Some(rest.iter().fold((*first, *first), |(low, high), &v| (low.min(v), high.max(v))))
}

/// Decibels between a weight and what its codes mean; `None` when both are equal.
fn likeness(weight: &[f32], restored: &[f32]) -> Option<f64> {
    let mut likeness = Likeness::default();
    likeness.add(weight, restored);
    Some(likeness.sqnr_db()).filter(|db| db.is_finite() && weight.len() == restored.len())
}

fn add_losses(
    job: &QuantizeJob,
    built: &Built,
    samples: &dyn Samples,
    layers: &mut [LayerCard],
    progress: &dyn Progress,
) -> Result<()> {
    let losses = layer_losses(
        (&built.prepared, Mode::Float),
        (&built.model, Mode::Simulate),
        samples,
        job.threads,
        progress,
    )
    .at(|| "per-layer comparison")?;
    let by_name: HashMap<&str, Option<f64>> =
        losses.iter().map(|l| (l.name.as_str(), l.sqnr_db)).collect();
    for card in layers {
        card.sqnr_db = by_name.get(card.name.as_str()).copied().flatten();
    }
    Ok(())
}

fn add_distributions(
    job: &QuantizeJob,
    built: &Built,
    samples: &dyn Samples,
    layers: &mut [LayerCard],
    progress: &dyn Progress,
) -> Result<()> {
    let ranges = chosen_ranges(&built.model.graph);
    if ranges.is_empty() {
        return Ok(());
    }
    // Percentile observers keep histograms.
    let recipe =
        Recipe { calibration: Calibration::named("percentile")?, ..built.plan.recipe.clone() };
    let placement = built.plan.placement(&built.prepared)?;
    let statistics =
        calibrate(&built.prepared, &placement, &recipe, samples, job.threads, progress)?;
    let graph = &built.prepared.graph;
    for ((_, node), card) in graph.nodes().zip(layers) {
        let name = node.output(0).map(|v| graph.name_of(v)).unwrap_or_default();
        if let (Some(&range), Ok(seen)) = (ranges.get(name), statistics.of(name)) {
            card.range = Some((range.low, range.high));
            card.activation_bars = activation_bars(seen, range);
        }
    }
    Ok(())
}

/// Real ranges of all quantized activations, read from the quantized graph itself.
fn chosen_ranges(graph: &Graph) -> HashMap<String, Range> {
    let range = |node: &Node| {
        let scalar = |i: usize| {
            let tensor = graph.constant(node.input(i)?)?;
            Some((tensor.dtype(), *tensor.to_f64().ok()?.first()?))
        };
        let (_, scale) = scalar(1)?;
        let (codes, zero) = scalar(2).unwrap_or((DType::U8, 0.0));
        let (low, high) = codes.int_range()?;
        let real = |code: i128| ((code as f64 - zero) * scale) as f32;
        let name = graph.name_of(node.input(0)?).to_string();
        Some((name, Range { low: real(low), high: real(high) }))
    };
    graph.nodes().filter(|(_, n)| n.is("QuantizeLinear")).filter_map(|(_, n)| range(n)).collect()
}

fn latency(job: &QuantizeJob, quantized: &Model, progress: &dyn Progress) -> Result<Latency> {
    let options = BenchOptions {
        threads: job.threads,
        seconds: BENCH_SECONDS,
        seed: job.seed,
        ..BenchOptions::default()
    };
    let timed = bench(quantized, Some((&job.source.model, Mode::Float)), &options, progress)?;
    let float_ms = timed.against.map_or(f64::NAN, |r| r.against_median_ms);
    Ok(Latency {
        float_ms,
        quantized_ms: timed.median_ms,
        threads: timed.threads,
        runs: timed.runs,
    })
}
