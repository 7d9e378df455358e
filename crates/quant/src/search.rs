//! Holding the bound: start from the cheapest scheme, measure, and climb until the measured
//! drop fits.
//!
//! The ladder: the recipe as it is; bias correction; channel equalization; other calibration
//! methods; then leaving the layers that hurt most in float, worst first. Every rung is
//! measured, kept only if it helps, and written down with what it gained and cost.

use crate::calibrate::calibrate;
use crate::evaluate::Reference;
use crate::metric::Comparison;
use crate::plan::Plan;
use crate::prepare::equalize;
use crate::progress::Progress;
use crate::quantize::quantize_static;
use crate::recipe::{Calibration, Method, Recipe, Rounding};
use crate::samples::Samples;
use crate::sensitivity;
use crate::target::Target;
use fewbit_core::{Error, Model, Result};
use fewbit_exec::Mode;
use serde::Serialize;

/// What the search works with.
pub struct Search<'a> {
    /// The prepared float model.
    pub model: &'a Model,
    /// What it will run on.
    pub target: &'a Target,
    /// Samples that set activation ranges and rank layers.
    pub calibration: &'a dyn Samples,
    /// Samples that decide, with the float model's scores.
    pub reference: &'a Reference<'a>,
    /// Largest drop that is accepted, in percentage points.
    pub max_drop: f64,
    /// Threads; 0 takes all cores.
    pub threads: usize,
    /// Who hears about it.
    pub progress: &'a dyn Progress,
}

/// One rung of the ladder.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// What was changed against the best attempt before.
    pub change: String,
    /// The measured outcome.
    pub comparison: Comparison,
    /// Bytes of all constants.
    pub constant_bytes: usize,
    /// Nodes computed in float that could be integer.
    pub float_layers: usize,
    /// Whether it became the new best.
    pub kept: bool,
    /// Wall time.
    pub seconds: f64,
}

/// The end of a search.
pub struct Outcome {
    /// The best model found.
    pub model: Model,
    /// The prepared (and possibly equalized) float model it was made from.
    pub prepared: Model,
    /// How it was made.
    pub plan: Plan,
    /// Its measured drop.
    pub comparison: Comparison,
    /// Everything that was tried, in order.
    pub attempts: Vec<Attempt>,
    /// Whether the drop fits the bound.
    pub met: bool,
    /// What calibration warns of.
    pub warnings: Vec<String>,
}

struct Candidate {
    recipe: Recipe,
    float_layers: Vec<String>,
    prepared: Model,
    plan: Plan,
    model: Model,
    comparison: Comparison,
    warnings: Vec<String>,
}

/// A quantized model and what it was made from.
struct Built {
    prepared: Model,
    plan: Plan,
    model: Model,
    warnings: Vec<String>,
}

impl Search<'_> {
    /// Climbs from `recipe` until the bound holds or the ladder ends.
    ///
    /// # Errors
    /// When a step fails for another reason than accuracy.
    pub fn run(&self, recipe: &Recipe) -> Result<Outcome> {
        if recipe.method != Method::Static {
            return Err(Error::usage("the search climbs from static recipes only"));
        }
        let mut climb = Climb { search: self, attempts: Vec::new(), best: None };
        climb.attempt("the recipe as it is".to_string(), recipe.clone(), Vec::new())?;
        for step in ladder(recipe) {
            if climb.fits() {
                break;
            }
            climb.try_change(&step)?;
        }
        if !climb.fits() {
            climb.leave_layers_in_float()?;
        }
        climb.finish()
    }

    fn build(&self, recipe: &Recipe, float_layers: &[String]) -> Result<Built> {
        let prepared = if recipe.equalize { equalize(self.model)? } else { self.model.clone() };
        let mut plan = Plan::resolve(&prepared, recipe, self.target)?;
        plan.leave_in_float(
            &prepared,
            self.target,
            float_layers,
            "costs too much accuracy (measured)",
        )?;
        let placement = plan.placement(&prepared)?;
        let statistics = calibrate(
            &prepared,
            &placement,
            recipe,
            self.calibration,
            self.threads,
            self.progress,
        )?;
        let model = quantize_static(&prepared, &plan, self.target, &statistics)?;
        Ok(Built { prepared, plan, model, warnings: statistics.warnings() })
    }
}

/// A change to the recipe, with its name.
struct Step {
    name: String,
    apply: Box<dyn Fn(&mut Recipe)>,
}

fn step(name: impl Into<String>, apply: impl Fn(&mut Recipe) + 'static) -> Step {
    Step { name: name.into(), apply: Box::new(apply) }
}

/// Changes that cost nothing at run time, cheapest to find first.
fn ladder(recipe: &Recipe) -> Vec<Step> {
    let mut steps = Vec::new();
    if !recipe.bias_correction {
        steps.push(step("bias correction", |r| r.bias_correction = true));
    }
    if !recipe.equalize {
        steps.push(step("channel equalization", |r| r.equalize = true));
    }
    if recipe.rounding == Rounding::Nearest {
        steps.push(step("weight scales of least squared error", |r| r.rounding = Rounding::Mse));
    }
    for name in ["mse", "percentile", "entropy", "minmax"] {
        if let (true, Ok(method)) = (recipe.calibration.name() != name, Calibration::named(name)) {
            steps.push(step(format!("{name} calibration"), move |r| r.calibration = method));
        }
    }
    steps
}

struct Climb<'a> {
    search: &'a Search<'a>,
    attempts: Vec<Attempt>,
    best: Option<Candidate>,
}

impl Climb<'_> {
    fn fits(&self) -> bool {
        self.best.as_ref().is_some_and(|b| b.comparison.within(self.search.max_drop))
    }

    fn try_change(&mut self, step: &Step) -> Result<()> {
        let Some(best) = &self.best else {
            return Ok(());
        };
        let mut recipe = best.recipe.clone();
        (step.apply)(&mut recipe);
        let layers = best.float_layers.clone();
        self.attempt(step.name.clone(), recipe, layers)
    }

    /// Builds and measures one candidate; it becomes the best if it loses less.
    fn attempt(&mut self, change: String, recipe: Recipe, float_layers: Vec<String>) -> Result<()> {
        let started = std::time::Instant::now();
        let Built { prepared, plan, model, warnings } =
            self.search.build(&recipe, &float_layers)?;
        let comparison =
            self.search.reference.compare(&model, Mode::Integer, self.search.progress)?;
        let kept = self.best.as_ref().is_none_or(|b| loses_less(&comparison, &b.comparison));
        let attempt = Attempt {
            change,
            comparison: comparison.clone(),
            constant_bytes: constant_bytes(&model),
            float_layers: float_layers.len(),
            kept,
            seconds: started.elapsed().as_secs_f64(),
        };
        self.search.progress.note(&format!("tried {}", attempt.line()));
        self.attempts.push(attempt);
        if kept {
            self.best = Some(Candidate {
                recipe,
                float_layers,
                prepared,
                plan,
                model,
                comparison,
                warnings,
            });
        }
        Ok(())
    }

    /// Leaves 1, 2, 4, ... of the most sensitive layers in float, up to half of them.
    fn leave_layers_in_float(&mut self) -> Result<()> {
        let Some(best) = &self.best else {
            return Ok(());
        };
        let (prepared, model) = (best.prepared.clone(), best.model.clone());
        let recipe = best.recipe.clone();
        let ranked = sensitivity::rank(
            &prepared,
            &model,
            self.search.calibration,
            self.search.threads,
            self.search.progress,
        )?;
        let mut count = 1;
        while count <= ranked.len().div_ceil(2) && !self.fits() {
            let layers: Vec<String> = ranked.iter().take(count).map(|r| r.layer.clone()).collect();
            let change = format!("float: {}", layers.join(", "));
            self.attempt(change, recipe.clone(), layers)?;
            count *= 2;
        }
        Ok(())
    }

    fn finish(self) -> Result<Outcome> {
        let met = self.fits();
        let best = self.best.ok_or_else(|| Error::internal("the search tried nothing"))?;
        Ok(Outcome {
            model: best.model,
            prepared: best.prepared,
            plan: best.plan,
            comparison: best.comparison,
            attempts: self.attempts,
            met,
            warnings: best.warnings,
        })
    }
}

impl Attempt {
    /// One line for people.
    pub fn line(&self) -> String {
        let c = &self.comparison;
        let verdict = if self.kept { "kept" } else { "dropped" };
        format!(
            "{}: drop {:.2} ± {:.2} points, {} of {} predictions changed, {:.1} s, {verdict}",
            self.change, c.drop_points, c.interval_points, c.flips, c.samples, self.seconds
        )
    }
}

/// Less drop; among equal drops, fewer changed predictions. A drop that cannot be computed is
/// the greatest.
fn loses_less(a: &Comparison, b: &Comparison) -> bool {
    let drop = |c: &Comparison| if c.drop_points.is_nan() { f64::INFINITY } else { c.drop_points };
    (drop(a), a.flips) < (drop(b), b.flips)
}

/// Bytes of all constants of a model.
pub fn constant_bytes(model: &Model) -> usize {
    let graph = &model.graph;
    graph.value_ids().filter_map(|v| graph.constant(v)).map(|t| t.bytes().len()).sum()
}
