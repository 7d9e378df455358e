//! What signals do: Ctrl-C and termination leave no partial file and exit with 130 or 143; limits
//! of the system become the errors they are.

use fewbit::ErrorKind;
use signal_hook::consts::{SIGABRT, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

/// Starts the thread that waits for signals.
pub fn install() -> io::Result<()> {
    // A write past the limit on file sizes then fails, and is told like any other.
    flag::register(SIGXFSZ, Arc::default())?;
    // The standard library says what allocation failed, and aborts.
    let always = Arc::new(AtomicBool::new(true));
    let no_memory = i32::from(ErrorKind::Resource.exit_code());
    flag::register_conditional_shutdown(SIGABRT, no_memory, always)?;
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
