//! The whole job: prepare, plan, calibrate, quantize, evaluate or search, explain.

mod advice;
mod clock;
mod explain;
mod restored;

use crate::load::{Source, sha256_of};
use crate::machine::{describe_machine, peak_rss_bytes};
use crate::plan::refuse_quantized;
use crate::weights;
use clock::StageClock;
use fewbit_core::{Error, Model, Result, ResultExt};
use fewbit_exec::Mode;
use fewbit_formats::mmap::shown;
use fewbit_formats::onnx::{self, WriteOptions};
use fewbit_quant::metric::Comparison;
use fewbit_quant::report::{DataFacts, FileFacts, Report, Reproduction, Seconds, Verdict};
use fewbit_quant::{
    Attempt, Method, Plan, Progress, Recipe, Reference, Samples, Search, Statistics, Target,
    calibrate, equalize, prepare, quantize_dynamic, quantize_static, quantize_weight_only,
    to_bf16_weights, to_fp16,
};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Version of the layout of [`Report`].
const REPORT_SCHEMA: u32 = 1;

/// One quantization, from a loaded model to a model with its report.
pub struct QuantizeJob<'a> {
    /// The float model.
    pub source: &'a Source,
    /// What to do.
    pub recipe: Recipe,
    /// What the result will run on.
    pub target: Target,
    /// A resolved plan, run as it is; `None` resolves the recipe.
    pub plan: Option<Plan>,
    /// Samples that set activation ranges; static recipes need them.
    pub calibration: Option<&'a dyn Samples>,
    /// Samples that measure accuracy.
    pub evaluation: Option<&'a dyn Samples>,
    /// Largest accepted drop in percentage points; the job climbs until it holds.
    pub max_drop: Option<f64>,
    /// Threads; 0 takes all cores.
    pub threads: usize,
    /// Random seed, kept in the report.
    pub seed: u64,
    /// The command line, kept in the report.
    pub command: Vec<String>,
    /// Also measure every layer, distributions and latency.
    pub explain: bool,
}

/// A quantized model with everything there is to say about it.
pub struct Quantized {
    /// The quantized model.
    pub model: Model,
    /// How it was made.
    pub plan: Plan,
    /// What came out.
    pub report: Report,
    inputs: Vec<PathBuf>,
    started: Instant,
}

/// What the steps before measuring have made.
struct Built {
    model: Model,
    prepared: Model,
    plan: Plan,
    comparison: Option<Comparison>,
    attempts: Vec<Attempt>,
    /// What calibration warns of.
    warnings: Vec<String>,
}

impl<'a> QuantizeJob<'a> {
    /// A job without data, for the built-in target `fewbit`.
    ///
    /// # Errors
    /// When the recipe contradicts itself.
    pub fn new(source: &'a Source, recipe: Recipe) -> Result<Self> {
        recipe.check()?;
        Ok(QuantizeJob {
            source,
            recipe,
            target: Target::built_in("fewbit")?,
            plan: None,
            calibration: None,
            evaluation: None,
            max_drop: None,
            threads: 0,
            seed: 0,
            command: Vec::new(),
            explain: false,
        })
    }

    /// Does all of it. A missed bound is no error: the report's verdict says so.
    ///
    /// # Errors
    /// When options contradict each other, data or model are damaged, or the model is quantized
    /// already.
    pub fn run(&self, progress: &dyn Progress) -> Result<Quantized> {
        let started = Instant::now();
        self.check()?;
        let clock = StageClock::new(progress);
        let mut warnings = self.warnings();
        let reference = self.reference(&clock)?;
        let measured = clock.seconds(&["evaluate"]);
        // One copy of the weights is in memory at a time where one is enough: the pages of the
        // file go when the float model is measured, and again when its weights are prepared.
        self.source.release_pages();
        let prepared = prepare(&self.source.model).at(|| shown(&self.source.path))?;
        self.source.release_pages();
        let mut seconds = Seconds {
            load: self.source.seconds + started.elapsed().as_secs_f64() - measured,
            ..Seconds::default()
        };
        let built = self.build(prepared, reference.as_ref(), &clock)?;
        seconds.calibrate = clock.seconds(&["calibrate"]);
        seconds.evaluate = clock.seconds(&["evaluate", "compare", "rank layers"]);
        let worked = started.elapsed().as_secs_f64() + self.source.seconds;
        seconds.quantize = (worked - seconds.load - seconds.calibrate - seconds.evaluate).max(0.0);
        warnings.extend(built.warnings.clone());
        if let Some(comparison) = &built.comparison {
            warnings.extend(comparison.not_finite("the float model", "the quantized model"));
        }
        let mut report = self.report(&built, seconds, warnings)?;
        if self.explain {
            explain::explain(self, &built, &mut report, &clock)?;
        } else {
            report.layers = explain::cards(&built.plan);
        }
        report.advice = advice::advice(self, &report);
        self.source.check_unchanged()?;
        Ok(Quantized {
            model: built.model,
            plan: built.plan,
            report,
            inputs: self.source.files.clone(),
            started,
        })
    }

    fn check(&self) -> Result<()> {
        let method = self.method();
        if method == Method::Static && self.calibration.is_none() {
            return Err(Error::usage("static quantization needs calibration data").hint(
                "add --calibrate DATA (a card, .npz or folder), or use --recipe int8-dynamic or int8-weights, which need none",
            ));
        }
        if self.max_drop.is_some() && self.evaluation.is_none() {
            return Err(Error::usage("a bound on the drop needs data to measure it")
                .hint("add --evaluate DATA, or leave out --max-drop"));
        }
        if let Some(drop) = self.max_drop.filter(|d| !d.is_finite() || *d < 0.0) {
            return Err(Error::usage(format!("a drop of {drop} points is no bound")));
        }
        refuse_quantized(&self.source.model).at(|| shown(&self.source.path))
    }

    fn method(&self) -> Method {
        self.plan.as_ref().map_or(self.recipe.method, |p| p.recipe.method)
    }

    fn reference(&self, progress: &dyn Progress) -> Result<Option<Reference<'a>>> {
        let measure = |data| Reference::new(&self.source.model, data, self.threads, progress);
        self.evaluation.map(measure).transpose()
    }

    fn build(
        &self,
        prepared: Model,
        reference: Option<&Reference>,
        progress: &dyn Progress,
    ) -> Result<Built> {
        if let (Some(max_drop), Some(reference), Some(calibration), None, Method::Static) =
            (self.max_drop, reference, self.calibration, &self.plan, self.method())
        {
            return self.search(&prepared, max_drop, calibration, reference, progress);
        }
        let mut built = self.build_once(prepared, progress)?;
        if let Some(reference) = reference {
            built.comparison = Some(reference.compare(&built.model, Mode::Integer, progress)?);
        }
        Ok(built)
    }

    fn search(
        &self,
        prepared: &Model,
        max_drop: f64,
        calibration: &dyn Samples,
        reference: &Reference,
        progress: &dyn Progress,
    ) -> Result<Built> {
        let search = Search {
            model: prepared,
            target: &self.target,
            calibration,
            reference,
            max_drop,
            threads: self.threads,
            progress,
        };
        let outcome = search.run(&self.recipe)?;
        Ok(Built {
            model: outcome.model,
            prepared: outcome.prepared,
            plan: outcome.plan,
            comparison: Some(outcome.comparison),
            attempts: outcome.attempts,
            warnings: outcome.warnings,
        })
    }

    fn build_once(&self, prepared: Model, progress: &dyn Progress) -> Result<Built> {
        let recipe = self.plan.as_ref().map_or(&self.recipe, |p| &p.recipe);
        let prepared = if recipe.equalize { equalize(&prepared)? } else { prepared };
        let plan = match &self.plan {
            Some(plan) => plan.clone(),
            None => Plan::resolve(&prepared, recipe, &self.target)?,
        };
        let mut warnings = Vec::new();
        let model = match recipe.method {
            Method::Static => {
                let statistics = self.statistics(&prepared, &plan, progress)?;
                warnings = statistics.warnings();
                quantize_static(&prepared, &plan, &self.target, &statistics)?
            }
            Method::Dynamic => quantize_dynamic(&prepared, &plan)?,
            Method::WeightOnly => quantize_weight_only(&prepared, &plan)?,
            Method::Fp16 => to_fp16(&prepared)?,
            Method::Bf16 => to_bf16_weights(&prepared)?,
        };
        Ok(Built { model, prepared, plan, comparison: None, attempts: Vec::new(), warnings })
    }

    fn statistics(
        &self,
        prepared: &Model,
        plan: &Plan,
        progress: &dyn Progress,
    ) -> Result<Statistics> {
        let samples = self.calibration.ok_or_else(|| Error::internal("checked before"))?;
        let placement = plan.placement(prepared)?;
        calibrate(prepared, &placement, &plan.recipe, samples, self.threads, progress)
    }

    fn report(&self, built: &Built, seconds: Seconds, warnings: Vec<String>) -> Result<Report> {
        let verdict = match (&built.comparison, self.max_drop) {
            (None, _) => Verdict::Unmeasured,
            (Some(_), None) => Verdict::Measured,
            (Some(c), Some(bound)) if c.within(bound) => Verdict::Met,
            (Some(_), Some(_)) => Verdict::Missed,
        };
        let source = self.source;
        Ok(Report {
            schema: REPORT_SCHEMA,
            verdict,
            max_drop_points: self.max_drop,
            float: FileFacts {
                path: shown(&source.path),
                bytes: source.bytes,
                sha256: source.sha256()?,
            },
            quantized: FileFacts::default(),
            recipe: built.plan.recipe.name.clone(),
            target: self.target.name.clone(),
            metric: built.comparison.clone(),
            latency: None,
            layers: Vec::new(),
            attempts: built.attempts.clone(),
            data: self.data_facts()?,
            warnings,
            advice: Vec::new(),
            peak_rss_bytes: peak_rss_bytes(),
            seconds,
            reproduce: Reproduction {
                fewbit: env!("CARGO_PKG_VERSION").to_string(),
                command: self.command.clone(),
                seed: self.seed,
                machine: describe_machine(),
            },
        })
    }

    fn data_facts(&self) -> Result<Vec<DataFacts>> {
        let sets = [self.calibration, self.evaluation];
        let facts = |set: &dyn Samples| -> Result<DataFacts> {
            Ok(DataFacts { name: set.name(), samples: set.len(), sha256: set.fingerprint()? })
        };
        sets.into_iter().flatten().map(facts).collect()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = weights::unsound(&self.source.model.graph);
        if let (Some(a), Some(b)) = (self.calibration, self.evaluation)
            && a.name() == b.name()
        {
            warnings.push(
                "calibration and evaluation use the same samples: the drop looks smaller than it is"
                    .to_string(),
            );
        }
        warnings
    }
}

impl Quantized {
    /// Whether the bound was missed.
    pub fn missed(&self) -> bool {
        self.report.verdict == Verdict::Missed
    }

    /// Writes the model, whole or not at all, and completes the report with what was written.
    ///
    /// # Errors
    /// When the path is one of the job's inputs (also through a link), exists and `overwrite` is
    /// false, or cannot be written.
    pub fn write(&mut self, path: &Path, overwrite: bool) -> Result<()> {
        let options = WriteOptions {
            keep_existing: !overwrite,
            inputs: self.inputs.clone(),
            ..WriteOptions::default()
        };
        let bytes = onnx::write(&self.model, path, &options)?;
        let mut files = vec![path.to_path_buf()];
        let side = path.with_file_name(format!(
            "{}.data",
            path.file_name().unwrap_or_default().to_string_lossy()
        ));
        let own = std::fs::metadata(path).map_or(bytes, |m| m.len());
        // External data is there exactly when the model file alone is not everything.
        files.extend((own < bytes).then_some(side));
        self.report.quantized = FileFacts { path: shown(path), bytes, sha256: sha256_of(&files)? };
        self.report.peak_rss_bytes = peak_rss_bytes();
        self.report.seconds.total = self.started.elapsed().as_secs_f64();
        Ok(())
    }
}
