//! The one error type of fewbit: what, where, why, how to fix, and an exit code.

use std::fmt;

/// Broad class of a failure. It decides the exit code of the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The command line or an option contradicts itself (exit 2).
    Usage,
    /// A file or a sample is damaged or contradicts its specification (exit 3).
    BadInput,
    /// The input is sound, but fewbit does not handle it (exit 4).
    Unsupported,
    /// Reading, writing, memory or another resource failed (exit 5).
    Resource,
    /// A promise inside fewbit was broken: a bug of ours (exit 70).
    Internal,
}

impl ErrorKind {
    /// The documented process exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Usage => 2,
            ErrorKind::BadInput => 3,
            ErrorKind::Unsupported => 4,
            ErrorKind::Resource => 5,
            ErrorKind::Internal => 70,
        }
    }

    /// The prefix of the stable codes of this class.
    fn code(self) -> &'static str {
        match self {
            ErrorKind::Usage => "FB-2000",
            ErrorKind::BadInput => "FB-3000",
            ErrorKind::Unsupported => "FB-4000",
            ErrorKind::Resource => "FB-5000",
            ErrorKind::Internal => "FB-7000",
        }
    }
}

/// An error a person can act on.
///
/// Built in the order it is read: what happened, then [`at`](Error::at) (where,
/// innermost first), then [`hint`](Error::hint) (how to fix it). The fields are
/// boxed so that `Result<T>` stays one pointer wide.
#[derive(Clone)]
pub struct Error(Box<Fields>);

#[derive(Clone)]
struct Fields {
    kind: ErrorKind,
    code: &'static str,
    what: String,
    location: Vec<String>,
    hint: Option<String>,
}

/// Shorthand used by every crate of the project.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of the given class; `what` says what was found against what is allowed.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Error(Box::new(Fields {
            kind,
            code: kind.code(),
            what: what.into(),
            location: Vec::new(),
            hint: None,
        }))
    }

    /// The command line contradicts itself.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Usage, what)
    }

    /// A file or sample is damaged.
    pub fn bad_input(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadInput, what)
    }

    /// Sound, but not handled here.
    pub fn unsupported(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, what)
    }

    /// The operating system or a limit said no.
    pub fn resource(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Resource, what)
    }

    /// A broken promise inside fewbit.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, what)
    }

    /// Replaces the class's general code by a more exact stable one, such as `FB-3012`.
    pub fn code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// Adds where it happened. Call it innermost first: field, then node, then file.
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.location.push(place.into());
        self
    }

    /// Says how to fix it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The class of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The stable code, for scripts and for search engines.
    pub fn stable_code(&self) -> &'static str {
        self.0.code
    }

    /// What happened, without place and hint.
    pub fn what(&self) -> &str {
        &self.0.what
    }

    /// Where it happened, outermost first, joined by `: `; empty when unknown.
    pub fn place(&self) -> String {
        let parts: Vec<&str> = self.0.location.iter().rev().map(String::as_str).collect();
        parts.join(": ")
    }

    /// How to fix it, if known.
    pub fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = self.place();
        if place.is_empty() {
            write!(f, "{}", self.0.what)
        } else {
            write!(f, "{place}: {}", self.0.what)
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {self}", self.0.code)?;
        match &self.0.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Adds a place to the error of a `Result`, evaluated only on failure.
pub trait ResultExt<T> {
    /// Like [`Error::at`], on a result.
    fn at<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn at<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.at(place()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_from_the_outside_in() {
        let e = Error::bad_input("group is 0").at("attribute `group`").at("node 3 (Conv)");
        assert_eq!(e.to_string(), "node 3 (Conv): attribute `group`: group is 0");
        assert_eq!(e.kind().exit_code(), 3);
    }
}
