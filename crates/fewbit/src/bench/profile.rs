//! Where the time of a run goes: times of its steps, beside what the processor does at most.

use super::{OperatorTime, Slower, StepMedian, Timed, quantile, sorted};
use fewbit_core::Result;
use fewbit_exec::StepTime;
use fewbit_kernels::peak::{Peak, peak};
use fewbit_kernels::{Ctx, Pool};
use std::collections::HashMap;

/// The most runs whose steps are timed: of a small model, few would be over in one busy moment of
/// the machine.
const PROFILED: usize = 400;

/// How often the peaks are measured: each time takes some milliseconds.
const PEAKS: usize = 20;

/// The steps of some runs, and the peaks between them: what a machine does at most changes with its
/// clock and its other guests, so the two are measured in turns.
#[derive(Default)]
pub(super) struct Profile {
    steps: Vec<StepTime>,
    /// Nanoseconds by run, then by step.
    runs: Vec<Vec<u64>>,
    peaks: Vec<Peak>,
}

impl Profile {
    /// Times the steps of up to `runs` runs of their own.
    pub(super) fn measure(timed: &Timed, pool: &Pool, runs: usize) -> Result<Profile> {
        let runs = runs.clamp(1, PROFILED);
        // With another model in turns, or many callers, the caches were not this one's alone.
        for _ in 0..runs.div_ceil(10) {
            timed.run()?;
        }
        let mut profile = Profile::default();
        for run in 0..runs {
            timed.run()?;
            profile.look(timed, pool, (run, runs));
        }
        Ok(profile)
    }

    /// Takes the times of the run that just ended, the `run`-th of `runs`, if it is one of those to
    /// look at, which are spread evenly.
    pub(super) fn look(&mut self, timed: &Timed, pool: &Pool, (run, runs): (usize, usize)) {
        if is_one_of(PROFILED, run, runs) {
            self.steps = timed.session.profile();
            self.runs.push(self.steps.iter().map(|step| step.nanoseconds).collect());
        }
        if is_one_of(PEAKS, run, runs) {
            self.peaks.extend(peak(Ctx { isa: timed.session.isa(), pool }));
        }
    }

    /// The peaks, each the median of its kind.
    pub(super) fn peak(&self) -> Option<Peak> {
        let median = |rate: fn(&Peak) -> f64| {
            quantile(&sorted(&self.peaks.iter().map(rate).collect::<Vec<_>>()), 0.5)
        };
        let peak = || Peak { int8: median(|peak| peak.int8), float: median(|peak| peak.float) };
        (!self.peaks.is_empty()).then(peak)
    }

    /// The times that the steps `which` take together, in milliseconds, shortest first.
    fn times(&self, which: &[usize]) -> Vec<f64> {
        let sum = |run: &Vec<u64>| which.iter().map(|&step| run[step] as f64 / 1e6).sum();
        sorted(&self.runs.iter().map(sum).collect::<Vec<f64>>())
    }

    /// Each step.
    pub(super) fn steps(&self) -> Vec<StepMedian> {
        let steps = self.steps.iter().enumerate().map(|(index, step)| {
            let ms = quantile(&self.times(&[index]), 0.5);
            StepMedian {
                first: step.first.clone(),
                node: step.node.clone(),
                op: step.op.clone(),
                kernel: step.kernel.clone(),
                integer: step.integer,
                ms,
                gmacs_per_s: step.macs as f64 / 1e6 / ms.max(1e-9),
            }
        });
        steps.collect()
    }

    /// Steps of a kind together, those that take longest first.
    pub(super) fn operators(&self) -> Vec<OperatorTime> {
        let mut kinds: HashMap<(&str, &str, bool), Vec<usize>> = HashMap::new();
        for (index, step) in self.steps.iter().enumerate() {
            kinds.entry((&step.op, &step.kernel, step.integer)).or_default().push(index);
        }
        let mut lines: Vec<OperatorTime> =
            kinds.into_iter().map(|(kind, which)| self.operator(kind, &which)).collect();
        let total: f64 = lines.iter().map(|l| l.ms).sum();
        lines.iter_mut().for_each(|l| l.share = l.ms / total.max(1e-9));
        lines.sort_by(|a, b| b.ms.total_cmp(&a.ms).then_with(|| a.op.cmp(&b.op)));
        lines
    }

    fn operator(&self, (op, kernel, integer): (&str, &str, bool), which: &[usize]) -> OperatorTime {
        let times = self.times(which);
        let [low_ms, ms, high_ms] = [0.1, 0.5, 0.9].map(|share| quantile(&times, share));
        let macs: u64 = which.iter().map(|&step| self.steps[step].macs).sum();
        let gmacs_per_s = macs as f64 / 1e6 / ms.max(1e-9);
        let most = self.peak().map(|peak| if integer { peak.int8 } else { peak.float });
        OperatorTime {
            op: op.to_string(),
            kernel: kernel.to_string(),
            integer,
            count: which.len(),
            ms,
            low_ms,
            high_ms,
            share: 0.0,
            gmacs_per_s,
            of_peak: most.filter(|_| macs > 0).map(|most| gmacs_per_s * 1e9 / most),
        }
    }
}

/// Whether the `turn`-th of `turns` is one of `wanted` that are spread evenly: all, where there are
/// not more.
fn is_one_of(wanted: usize, turn: usize, turns: usize) -> bool {
    let before = |turn: usize| turn * wanted.min(turns) / turns.max(1);
    before(turn) < before(turn + 1)
}

/// Below this, clocks and caches make the difference.
const NOTICED_MS: f64 = 0.005;

/// Steps on integers that take longer than those in float that begin with the same node.
pub(super) fn slower(own: &Profile, other: &Profile) -> Vec<Slower> {
    let theirs = other.steps();
    let floats: HashMap<&str, &StepMedian> = theirs
        .iter()
        .filter(|step| !step.integer)
        .map(|step| (step.first.as_str(), step))
        .collect();
    let twin = |step: StepMedian| {
        let against_ms = floats.get(step.first.as_str()).filter(|_| step.integer)?.ms;
        let noticed = step.ms > 1.05 * against_ms && step.ms - against_ms > NOTICED_MS;
        noticed.then_some(Slower { node: step.first, op: step.op, ms: step.ms, against_ms })
    };
    own.steps().into_iter().filter_map(twin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(integer: bool, runs: &[[u64; 3]], peaks: &[f64]) -> Profile {
        let step = |name: &str| StepTime {
            first: name.to_string(),
            node: format!("{name}_last"),
            op: "Conv".to_string(),
            kernel: "conv".to_string(),
            integer: integer && name != "c",
            nanoseconds: 0,
            macs: 1_000_000,
        };
        Profile {
            steps: ["a", "b", "c"].map(step).into(),
            runs: runs.iter().map(|run| run.to_vec()).collect(),
            peaks: peaks.iter().map(|&int8| Peak { int8, float: int8 / 4.0 }).collect(),
        }
    }

    #[test]
    fn what_is_quicker_in_float_is_named() {
        // Slower; slower by less than is noticed; in float in both.
        let own = profile(true, &[[90_000, 51_000, 90_000]], &[]);
        let found = slower(&own, &profile(false, &[[40_000, 50_000, 40_000]], &[]));
        let names: Vec<&str> = found.iter().map(|step| step.node.as_str()).collect();
        assert_eq!(names, ["a"]);
        assert_eq!((found[0].ms, found[0].against_ms), (0.09, 0.04));
    }

    #[test]
    fn operators_are_medians_of_runs_and_of_peaks() {
        let runs = [[1, 2, 5], [10_000, 10_000, 40_000], [30_000, 30_000, 99_000]];
        let lines = profile(true, &runs, &[4e11, 1e12, 2e11]).operators();
        let [float, integer] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(!float.integer && integer.integer);
        assert_eq!((integer.low_ms, integer.ms, integer.high_ms), (3e-6, 0.02, 0.06));
        // Two steps of a million each, in 20 microseconds.
        assert!((integer.gmacs_per_s - 100.0).abs() < 1e-9);
        assert!((integer.of_peak.unwrap() - 0.25).abs() < 1e-9);
        assert!((float.of_peak.unwrap() - 0.25).abs() < 1e-9);
        assert!((float.share - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn turns_are_spread_evenly() {
        let picked = |wanted, turns| -> Vec<usize> {
            (0..turns).filter(|&turn| is_one_of(wanted, turn, turns)).collect()
        };
        assert_eq!(picked(3, 9), [2, 5, 8]);
        assert_eq!(picked(3, 2), [0, 1]);
        assert_eq!(picked(400, 100_000).len(), 400);
    }
}
