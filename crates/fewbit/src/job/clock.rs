//! Wall time of stages, taken where they tell their progress.

use fewbit_quant::Progress;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

/// Passes progress on and keeps how long each stage took.
pub(super) struct StageClock<'a> {
    inner: &'a dyn Progress,
    times: Mutex<Times>,
}

#[derive(Default)]
struct Times {
    running: Option<(String, Instant)>,
    seconds: HashMap<String, f64>,
}

impl<'a> StageClock<'a> {
    pub fn new(inner: &'a dyn Progress) -> Self {
        StageClock { inner, times: Mutex::default() }
    }

    /// Seconds of all stages of these names.
    pub fn seconds(&self, stages: &[&str]) -> f64 {
        let times = self.times.lock().unwrap_or_else(|e| e.into_inner());
        stages.iter().filter_map(|s| times.seconds.get(*s)).fold(0.0, |sum, s| sum + s)
    }
}

impl Progress for StageClock<'_> {
    fn start(&self, stage: &str, total: usize) {
        let mut times = self.times.lock().unwrap_or_else(|e| e.into_inner());
        times.running = Some((stage.to_string(), Instant::now()));
        self.inner.start(stage, total);
    }

    fn step(&self) {
        self.inner.step();
    }

    fn finish(&self) {
        let mut times = self.times.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((stage, since)) = times.running.take() {
            *times.seconds.entry(stage).or_default() += since.elapsed().as_secs_f64();
        }
        self.inner.finish();
    }

    fn note(&self, line: &str) {
        self.inner.note(line);
    }
}
