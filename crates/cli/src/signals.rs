//! Ctrl-C and termination: leave no partial file, exit with 130 or 143.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::thread;

/// Starts the thread that waits for signals.
pub fn install() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::Builder::new().name("signals".to_string()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            fewbit::formats::atomic::remove_partials();
            let word = if signal == SIGINT { "interrupted" } else { "terminated" };
            // The terminal may be gone; the exit code still tells.
            let _ = writeln!(io::stderr(), "\n{word}; no output was written");
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}
