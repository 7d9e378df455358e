//! What signals do: Ctrl-C and termination leave no partial file and exit with 130 or 143, but
//! work that can be cut short is asked to stop first; limits of the system become the errors they
//! are.

use fewbit::ErrorKind;
use signal_hook::consts::{SIGABRT, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Whether something runs that can be asked to stop.
static INTERRUPTIBLE: AtomicBool = AtomicBool::new(false);
/// Whether it was asked to.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the same command would go on where this process ends.
static RESUMABLE: AtomicBool = AtomicBool::new(false);

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
        for signal in signals.forever() {
            // The second Ctrl-C ends what did not stop at the first.
            let asked = signal == SIGINT
                && INTERRUPTIBLE.load(Ordering::SeqCst)
                && !INTERRUPTED.swap(true, Ordering::SeqCst);
            if !asked {
                leave(signal);
            }
        }
    })?;
    Ok(())
}

fn leave(signal: i32) {
    let _ended = fewbit::formats::atomic::remove_partials();
    let word = if signal == SIGINT { "interrupted" } else { "terminated" };
    let advice = match RESUMABLE.load(Ordering::SeqCst) {
        true => "; the same command goes on from here",
        false => "",
    };
    // The terminal may be gone; the exit code still tells.
    let _ = writeln!(io::stderr(), "\n{word}; unfinished output was removed{advice}");
    std::process::exit(128 + signal);
}

/// Runs `body`, which looks at the flag from time to time: the first Ctrl-C sets it instead of
/// ending the process.
pub fn interruptible<R>(body: impl FnOnce(&AtomicBool) -> R) -> R {
    INTERRUPTED.store(false, Ordering::SeqCst);
    INTERRUPTIBLE.store(true, Ordering::SeqCst);
    let result = body(&INTERRUPTED);
    INTERRUPTIBLE.store(false, Ordering::SeqCst);
    result
}

/// Runs `body`, which keeps a journal: a signal then says that nothing is lost.
pub fn resumable<R>(body: impl FnOnce() -> R) -> R {
    RESUMABLE.store(true, Ordering::SeqCst);
    let result = body();
    RESUMABLE.store(false, Ordering::SeqCst);
    result
}
