//! Progress bars.

use fewbit::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::Duration;

/// The bar of the running stage; drawn on terminals only.
pub struct Bar {
    shown: bool,
    current: Mutex<Option<ProgressBar>>,
}

impl Bar {
    pub fn new(shown: bool) -> Self {
        Bar { shown, current: Mutex::new(None) }
    }

    /// Writes a line to stderr without disturbing the bar.
    pub fn above(&self, text: &str) {
        let write = || {
            // A closed stderr leaves nobody to tell.
            let _ = writeln!(io::stderr(), "{text}");
        };
        match &*self.lock() {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        self.current.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Progress for Bar {
    fn start(&self, stage: &str, total: usize) {
        if !self.shown {
            return;
        }
        let style = ProgressStyle::with_template("{msg:16} [{bar:30}] {pos}/{len} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        bar.set_style(style.progress_chars("=> "));
        bar.set_message(stage.to_string());
        bar.enable_steady_tick(Duration::from_millis(200));
        *self.lock() = Some(bar);
    }

    fn step(&self) {
        if let Some(bar) = &*self.lock() {
            bar.inc(1);
        }
    }

    fn finish(&self) {
        if let Some(bar) = self.lock().take() {
            bar.finish_and_clear();
        }
    }

    fn note(&self, line: &str) {
        self.above(&super::printable(line));
    }
}
