//! What people see: results on stdout, messages and progress on stderr.

mod bar;
mod format;
mod table;

pub use format::{bytes, count, ms, percent, points, seconds};
pub use table::Table;

use bar::Bar;
use clap::ValueEnum;
use fewbit::{Progress, Verdict};
use serde_json::Value;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    /// On terminals, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Where output goes and how it looks.
pub struct Ui {
    /// One JSON object on stdout instead of text.
    pub json: bool,
    /// More detail in texts.
    pub verbose: bool,
    quiet: bool,
    color_out: bool,
    color_err: bool,
    bar: Bar,
}

/// ANSI colours by meaning.
#[derive(Clone, Copy)]
pub enum Paint {
    Good,
    Bad,
    Strong,
}

impl Ui {
    pub fn new(color: ColorWhen, quiet: bool, verbose: bool, json: bool) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        let terminal = io::stderr().is_terminal() && !dumb;
        Ui {
            json,
            verbose,
            quiet,
            color_out: wants_color(color, io::stdout().is_terminal() && !dumb),
            color_err: wants_color(color, terminal),
            bar: Bar::new(terminal && !quiet),
        }
    }

    /// Who is told how far work is.
    pub fn progress(&self) -> &dyn Progress {
        if self.quiet { &fewbit::Silent } else { &self.bar }
    }

    /// Text for stdout; nothing with `--json`.
    pub fn print(&self, text: &str) {
        if !self.json {
            self.data(text.as_bytes());
        }
    }

    /// One line for stdout.
    pub fn line(&self, text: &str) {
        self.print(&format!("{text}\n"));
    }

    /// A remark behind the results on stdout, left out with `--quiet`.
    pub fn remark(&self, text: &str) {
        if !self.quiet {
            self.line(text);
        }
    }

    /// Text of a model as it comes; on a terminal, nothing in it steers.
    pub fn speech(&self, text: &str) {
        match io::stdout().is_terminal() {
            true => self.print(&printable(text)),
            false => self.print(text),
        }
    }

    /// A remark for stderr, left out with `--quiet`.
    pub fn note(&self, text: &str) {
        if !self.quiet && !self.json {
            self.message(text);
        }
    }

    /// A warning for stderr, which stays with `--quiet`; JSON says it in its own fields.
    pub fn warn(&self, text: &str) {
        if !self.json {
            self.bar.above(&format!(
                "{}: {}",
                self::paint(self.color_err, Paint::Bad, "warning"),
                printable(text)
            ));
        }
    }

    /// The one object of `--json`.
    pub fn print_json(&self, value: &Value) {
        self.data(format!("{value:#}\n").as_bytes());
    }

    /// Bytes for stdout. A reader that has closed its end wants no more: that is no failure.
    pub fn data(&self, bytes: &[u8]) {
        let mut out = io::stdout().lock();
        let written = out.write_all(bytes).and_then(|()| out.flush());
        if let Err(error) = written {
            let _ended = fewbit::formats::atomic::remove_partials();
            if error.kind() == ErrorKind::BrokenPipe {
                std::process::exit(0);
            }
            self.error("FB-5303", &format!("cannot write: {error}"), "stdout", None);
            std::process::exit(5);
        }
    }

    /// A line for stderr, whatever the verbosity.
    pub fn message(&self, text: &str) {
        self.bar.above(&printable(text));
    }

    /// An error: what, where, how to fix it.
    pub fn error(&self, code: &str, what: &str, place: &str, hint: Option<&str>) {
        let red = |t: &str| paint(self.color_err, Paint::Bad, t);
        let strong = |t: &str| paint(self.color_err, Paint::Strong, t);
        let mut text = format!("{}: {}", red(&format!("error[{code}]")), printable(what));
        if !place.is_empty() {
            text += &format!("\n  {} {}", strong("at"), printable(place));
        }
        if let Some(hint) = hint {
            text += &format!("\n  {} {}", strong("help:"), printable(hint));
        }
        self.bar.above(&text);
    }

    /// Text in a colour, for stdout.
    pub fn paint(&self, paint: Paint, text: &str) -> String {
        self::paint(self.color_out, paint, text)
    }

    /// A verdict in its colour.
    pub fn verdict(&self, verdict: Verdict, text: &str) -> String {
        match verdict {
            Verdict::Met => self.paint(Paint::Good, text),
            Verdict::Missed => self.paint(Paint::Bad, text),
            Verdict::Measured | Verdict::Unmeasured => self.paint(Paint::Strong, text),
        }
    }
}

fn wants_color(when: ColorWhen, terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let forced = std::env::var_os("CLICOLOR_FORCE").is_some_and(|v| !v.is_empty() && v != "0");
    match when {
        ColorWhen::Always => true,
        ColorWhen::Never => false,
        ColorWhen::Auto => !set("NO_COLOR") && (forced || terminal),
    }
}

fn paint(on: bool, paint: Paint, text: &str) -> String {
    let code = match paint {
        Paint::Good => 32,
        Paint::Bad => 31,
        Paint::Strong => 1,
    };
    if on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
}

/// Text from outside without control characters: no name in a file may steer a terminal.
pub fn printable(text: &str) -> String {
    let steers = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_steer_a_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a\\u{1b}[2Jb\nc");
        assert_eq!(printable("\u{202e}abc"), "\\u{202e}abc");
    }
}
