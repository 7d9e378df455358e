//! Latency: warm-up, many runs, percentiles; two models take turns.

mod profile;

use fewbit_core::codec::encode_f64;
use fewbit_core::{DType, Error, Model, Result, Tensor};
use fewbit_exec::{Mode, OpTable, Port, Session, SessionOptions};
use fewbit_kernels::Pool;
use fewbit_quant::Progress;
use profile::{Profile, slower};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// At most this many runs of one model are kept.
const MAX_RUNS: usize = 100_000;

/// How a model is timed.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// How it is run.
    pub mode: Mode,
    /// Threads; 0 takes all cores.
    pub threads: usize,
    /// Seconds of measuring, for each model.
    pub seconds: f64,
    /// Runs that are made at least, whatever they take.
    pub least_runs: usize,
    /// Shapes for inputs with open dimensions; open dimensions without one are 1.
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Seed of the random inputs.
    pub seed: u64,
    /// Threads that call the session at once, each again as soon as it has its answer; 1 times
    /// runs one after another. More than one leave no turns for another model.
    pub callers: usize,
}

impl Default for BenchOptions {
    fn default() -> Self {
        BenchOptions {
            mode: Mode::Integer,
            threads: 0,
            seconds: 2.0,
            least_runs: 10,
            shapes: Vec::new(),
            seed: 0,
            callers: 1,
        }
    }
}

/// Latency of one model, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Bench {
    /// Half of the runs are faster.
    pub median_ms: f64,
    /// 90% of the runs are faster.
    pub p90_ms: f64,
    /// 99% of the runs are faster.
    pub p99_ms: f64,
    /// The fastest run.
    pub least_ms: f64,
    /// Runs in a second: one after another, or of all callers together.
    pub throughput_per_s: f64,
    /// Number of timed runs.
    pub runs: usize,
    /// Threads of the kernels.
    pub threads: usize,
    /// Instruction set of the kernels.
    pub isa: String,
    /// `float`, `simulate` or `integer`.
    pub mode: String,
    /// 8-bit multiply-accumulates in a second that the processor does at most on these threads, in
    /// units of 10^9, median of some measurements between the runs; absent where there is no way
    /// to measure it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_int8_gmacs_per_s: Option<f64>,
    /// The same for 32-bit floats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_float_gmacs_per_s: Option<f64>,
    /// Time by operator, longest first.
    pub operators: Vec<OperatorTime>,
    /// Time of each step, in the order of execution.
    pub steps: Vec<StepMedian>,
    /// Against the other model, where there is one.
    #[serde(flatten)]
    pub against: Option<Ratio>,
    /// Operators that run on integers here and quicker in float in the other model.
    pub slower: Vec<Slower>,
}

/// An operator that gained nothing by being quantized.
#[derive(Clone, Debug, Serialize)]
pub struct Slower {
    /// Name of its node, the same in both models.
    pub node: String,
    /// Operator, with what was fused into it.
    pub op: String,
    /// Milliseconds in one run (median over runs).
    pub ms: f64,
    /// The same in the other model.
    pub against_ms: f64,
}

/// Time of all steps of one kind in one run.
#[derive(Clone, Debug, Serialize)]
pub struct OperatorTime {
    /// Operator, with what was fused into it.
    pub op: String,
    /// Kernel.
    pub kernel: String,
    /// Whether it computes on integers.
    pub integer: bool,
    /// Number of steps.
    pub count: usize,
    /// Milliseconds in one run (median over runs).
    pub ms: f64,
    /// 10% of the runs took less, in milliseconds.
    pub low_ms: f64,
    /// 90% of the runs took less.
    pub high_ms: f64,
    /// Share of the whole run.
    pub share: f64,
    /// Multiply-accumulates in a second, in units of 10^9; 0 where they are not counted.
    pub gmacs_per_s: f64,
    /// Share of the peak of its kind of numbers, both medians; absent where it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_peak: Option<f64>,
}

/// Time of one step.
#[derive(Clone, Debug, Serialize)]
pub struct StepMedian {
    /// Its first node.
    pub first: String,
    /// Its last node.
    pub node: String,
    /// Operator, with what was fused into it.
    pub op: String,
    /// Kernel.
    pub kernel: String,
    /// Whether it computes on integers.
    pub integer: bool,
    /// Milliseconds in one run (median over runs).
    pub ms: f64,
    /// Multiply-accumulates in a second, in units of 10^9; 0 where they are not counted.
    pub gmacs_per_s: f64,
}

/// Two models that took turns.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratio {
    /// Median time of the other model divided by this one's: 2 means twice as fast.
    pub ratio: f64,
    /// 10% of the turns have a smaller ratio.
    pub ratio_low: f64,
    /// 90% of the turns have a smaller ratio.
    pub ratio_high: f64,
    /// Median of the other model, milliseconds.
    pub against_median_ms: f64,
}

/// Times a model, and another one beside it (A B A B), each in its own mode.
///
/// # Errors
/// When a model cannot be run with random inputs of its own types and shapes.
pub fn bench(
    model: &Model,
    against: Option<(&Model, Mode)>,
    options: &BenchOptions,
    progress: &dyn Progress,
) -> Result<Bench> {
    let pool = Arc::new(Pool::new(options.threads));
    let own = Timed::new(model, options.mode, options, &pool)?;
    let other = against.map(|(m, mode)| Timed::new(m, mode, options, &pool)).transpose()?;
    let all: Vec<&Timed> = std::iter::once(&own).chain(&other).collect();
    let mut profile = Profile::default();
    let is_alone = other.is_none() && options.callers <= 1;
    let look = |run: (usize, usize)| {
        if is_alone {
            profile.look(&own, &pool, run);
        }
    };
    let started = Instant::now();
    let times = match options.callers {
        0 | 1 => take_turns(&all, options, progress, look)?,
        callers => vec![own.load(callers, Duration::from_secs_f64(options.seconds))?],
    };
    let busy_ms = match options.callers {
        0 | 1 => times[0].iter().sum::<f64>(),
        _ => started.elapsed().as_secs_f64() * 1e3,
    };
    let mine = sorted(&times[0]);
    if !is_alone {
        profile = Profile::measure(&own, &pool, mine.len())?;
    }
    let slower = match &other {
        None => Vec::new(),
        Some(other) => slower(&profile, &Profile::measure(other, &pool, mine.len())?),
    };
    let peak = profile.peak();
    let median = quantile(&mine, 0.5);
    Ok(Bench {
        median_ms: median,
        p90_ms: quantile(&mine, 0.9),
        p99_ms: quantile(&mine, 0.99),
        least_ms: mine[0],
        throughput_per_s: 1000.0 * mine.len() as f64 / busy_ms.max(1e-9),
        runs: mine.len(),
        threads: own.session.threads(),
        isa: own.session.isa().to_string(),
        mode: crate::evaluate::mode_name(options.mode).to_string(),
        peak_int8_gmacs_per_s: peak.map(|peak| peak.int8 / 1e9),
        peak_float_gmacs_per_s: peak.map(|peak| peak.float / 1e9),
        operators: profile.operators(),
        steps: profile.steps(),
        against: times.get(1).map(|theirs| Ratio::of(&times[0], theirs)),
        slower,
    })
}

impl Ratio {
    fn of(own: &[f64], other: &[f64]) -> Self {
        let turns: Vec<f64> = own.iter().zip(other).map(|(a, b)| b / a.max(1e-9)).collect();
        let turns = sorted(&turns);
        let median = quantile(&sorted(other), 0.5);
        Ratio {
            ratio: median / quantile(&sorted(own), 0.5).max(1e-9),
            ratio_low: quantile(&turns, 0.1),
            ratio_high: quantile(&turns, 0.9),
            against_median_ms: median,
        }
    }
}

/// A session with inputs to run it on.
struct Timed {
    session: Session,
    inputs: Vec<(String, Tensor)>,
}

impl Timed {
    fn new(model: &Model, mode: Mode, options: &BenchOptions, pool: &Arc<Pool>) -> Result<Self> {
        let mut wanted = SessionOptions::new(mode).threads(options.threads);
        // Two looks at the clock for each step.
        wanted.profile = true;
        wanted.input_shapes = options.shapes.clone();
        let session = Session::with_pool(model, &wanted, &OpTable::standard(), pool.clone())?;
        let inputs = random_inputs(session.inputs(), options.seed)?;
        Ok(Timed { session, inputs })
    }

    /// Milliseconds of each call, in any order, of several callers over some time.
    fn load(&self, callers: usize, time: Duration) -> Result<Vec<f64>> {
        self.run()?;
        let end = Instant::now() + time;
        let call = || -> Result<Vec<f64>> {
            let mut times = vec![self.run()?];
            while Instant::now() < end && times.len() < MAX_RUNS {
                times.push(self.run()?);
            }
            Ok(times)
        };
        let all = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..callers).map(|_| scope.spawn(call)).collect();
            let join = |caller: std::thread::ScopedJoinHandle<_>| {
                caller.join().unwrap_or_else(|_| Err(Error::internal("a caller panicked")))
            };
            callers.into_iter().map(join).collect::<Result<Vec<Vec<f64>>>>()
        })?;
        Ok(all.concat())
    }

    /// Milliseconds of one run.
    fn run(&self) -> Result<f64> {
        let inputs: Vec<(&str, Tensor)> =
            self.inputs.iter().map(|(n, t)| (n.as_str(), t.clone())).collect();
        let started = Instant::now();
        self.session.run(&inputs)?;
        Ok(started.elapsed().as_secs_f64() * 1e3)
    }
}

/// Warms all sessions up, then runs them in turns; one list of milliseconds for each. `look` is
/// called after each turn, with its number and how many there are.
fn take_turns(
    all: &[&Timed],
    options: &BenchOptions,
    progress: &dyn Progress,
    mut look: impl FnMut((usize, usize)),
) -> Result<Vec<Vec<f64>>> {
    let warm_up = Instant::now();
    let long_enough = Duration::from_secs_f64((options.seconds / 5.0).clamp(0.0, 1.0));
    let mut round = 0.0;
    for turn in 0.. {
        round = all.iter().map(|t| t.run()).sum::<Result<f64>>()?;
        if turn >= 2 && warm_up.elapsed() >= long_enough {
            break;
        }
    }
    let fit = options.seconds * 1e3 * all.len() as f64 / round.max(1e-3);
    let runs = (fit as usize).clamp(options.least_runs.max(1), MAX_RUNS);
    let mut times = vec![Vec::with_capacity(runs); all.len()];
    progress.start("bench", runs);
    for turn in 0..runs {
        for (timed, list) in all.iter().zip(&mut times) {
            list.push(timed.run()?);
        }
        look((turn, runs));
        progress.step();
    }
    progress.finish();
    Ok(times)
}

fn random_inputs(ports: &[Port], seed: u64) -> Result<Vec<(String, Tensor)>> {
    let mut state = seed;
    ports.iter().map(|port| Ok((port.name.clone(), random_input(port, &mut state)?))).collect()
}

/// Numbers of an input that are made at once; whole bytes of any type.
const PIECE: usize = 1 << 16;

/// Floats in 0..1; integers 0 and 1, which are sound indices into almost everything.
fn random_input(port: &Port, state: &mut u64) -> Result<Tensor> {
    let unclear = |what: &str| {
        Error::usage(format!("input `{}` has no {what} in the model", port.name))
            .hint(format!("give one: --shape {}=1,3,224,224", port.name))
    };
    let shape = port.ty.shape.as_ref().ok_or_else(|| unclear("shape"))?;
    let shape: Vec<usize> = shape.iter().map(|d| d.known().unwrap_or(1)).collect();
    let dtype = port.ty.dtype.unwrap_or(DType::F32);
    if dtype == DType::String {
        return Tensor::zeros(dtype, shape);
    }
    let mut tensor = Tensor::zeros(dtype, shape)?;
    let mut next = || {
        let unit = (splitmix(state) >> 40) as f64 / (1u64 << 24) as f64;
        if dtype.is_float() { unit } else { unit.round() }
    };
    let mut left = tensor.len();
    let bytes = PIECE * dtype.bits() / 8;
    for out in tensor.bytes_mut().chunks_mut(bytes.max(1)) {
        let values: Vec<f64> = (0..left.min(PIECE)).map(|_| next()).collect();
        encode_f64(dtype, &values, out);
        left -= values.len();
    }
    Ok(tensor)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values
}

/// Value at a share of a sorted list, nearest rank; NaN for an empty one.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).or(sorted.last()).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fewbit_core::ValueType;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
        assert_eq!([0.5, 0.9, 0.99].map(|q| quantile(&values, q)), [5.0, 9.0, 10.0]);
        assert_eq!(quantile(&[3.0], 0.5), 3.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn inputs_are_whole_whatever_pieces_they_are_made_in() {
        let count = 2 * PIECE + 3;
        for dtype in [DType::F32, DType::U8, DType::I4] {
            let ty = ValueType::fixed(dtype, &[count]);
            let tensor = random_input(&Port { name: "x".into(), ty }, &mut 1).unwrap();
            let values = tensor.to_f64().unwrap();
            assert!(values.iter().all(|v| (0.0..=1.0).contains(v)), "{dtype}");
            // No piece is left out.
            let sum = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
            for part in values.chunks(PIECE / 2).filter(|part| part.len() > 3) {
                assert!((sum(part) - 0.5).abs() < 0.02, "{dtype}");
            }
        }
    }

    #[test]
    fn a_ratio_above_one_means_faster_than_the_other() {
        let ratio = Ratio::of(&[1.0, 1.0, 1.0], &[2.0, 3.0, 2.5]);
        assert_eq!((ratio.ratio, ratio.ratio_low, ratio.ratio_high), (2.5, 2.0, 3.0));
    }
}
