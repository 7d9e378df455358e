//! How the process ends: exit codes, error messages, panics.

use crate::ui::{Ui, printable};
use fewbit::{Error, ErrorKind};
use serde_json::json;
use std::panic;
use std::process::ExitCode;

/// The table at the end of `fewbit --help`.
pub const CODES: &str = "Exit codes:
  0    done
  1    done, but the accuracy bound was missed
  2    the command line contradicts itself
  3    an input is missing or damaged
  4    an input is sound, but not supported
  5    reading, writing or memory failed
  70   a bug in fewbit
  130  interrupted (143: terminated)";

/// How a command that did its work came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Done,
    /// Done, but the accuracy bound was missed.
    Missed,
}

impl Outcome {
    pub fn code(self) -> ExitCode {
        match self {
            Outcome::Done => ExitCode::SUCCESS,
            Outcome::Missed => ExitCode::from(1),
        }
    }
}

/// Prints help, the version, or what is wrong with the command line.
pub fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is there to hear about a closed terminal.
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Says what, where, and how to fix it; with `--json` also as an object on stdout.
pub fn failure(error: &Error, ui: &Ui) -> ExitCode {
    let code = error.kind().exit_code();
    ui.error(error.stable_code(), error.what(), &error.place(), error.advice());
    if error.kind() == ErrorKind::Internal {
        ui.message(BUG);
    }
    if ui.json {
        ui.print_json(&json!({ "error": {
            "code": error.stable_code(),
            "exit": code,
            "message": error.what(),
            "place": error.place(),
            "hint": error.advice(),
        }}));
    }
    ExitCode::from(code)
}

const FEWER: &str = "  help: allow more memory, or fewer threads with --threads";

const BUG: &str = "This is a bug in fewbit. Please report it with the command and, if you can, the model: \
                   https://github.com/fewbit/fewbit/issues";

/// A panic is a bug: say so, leave no partial file, exit with 70. One of the standard library is not:
/// it finds no memory for a thread that has begun.
pub fn install_panic_hook() {
    panic::set_hook(Box::new(|info| {
        let _ended = fewbit::formats::atomic::remove_partials();
        let place = info.location().map_or(String::new(), |l| format!(" at {l}"));
        let payload = info.payload();
        let text = payload.downcast_ref::<&str>().map(|s| s.to_string());
        let what = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        let what = printable(&what);
        let (text, kind) = match is_about_a_stack(info) {
            true => (
                format!("error[FB-5101]: a thread could not start: {what}\n{FEWER}"),
                ErrorKind::Resource,
            ),
            false => (format!("error[FB-7001]: panic{place}: {what}\n{BUG}"), ErrorKind::Internal),
        };
        // Writing may fail too; the exit code still tells.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("\n{text}\n").as_bytes());
        std::process::exit(kind.exit_code().into());
    }));
}

/// Whether the standard library could not prepare the stack of a thread.
fn is_about_a_stack(info: &panic::PanicHookInfo<'_>) -> bool {
    info.location().is_some_and(|place| place.file().ends_with("/stack_overflow.rs"))
}
