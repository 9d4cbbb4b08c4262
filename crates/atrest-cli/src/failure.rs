//! How a command fails: a library error with advice, or a reader that went away.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::path::Path;

use atrest::{Error, ErrorKind};
use serde::Serialize;

use crate::advice::{PIPE_CLOSED, Verdict};
use crate::paint::{CYAN, DIM, RED, clean};

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something failed; `advice` stands in for the kind's general one.
    Error { error: Error, advice: Option<String> },
    /// The work was done, and is not whole.
    Partial(Partial),
    /// Whoever read our output closed it: nobody is left to tell.
    PipeClosed,
    /// A step of the demonstration did not hold; the report says which.
    #[cfg(feature = "demo")]
    Unheld,
}

/// Work that was done but for a part, which has an exit code of its own.
#[derive(Debug)]
pub(crate) struct Partial {
    /// Stable name, for machines.
    pub(crate) name: &'static str,
    pub(crate) exit_code: u8,
    pub(crate) message: String,
    pub(crate) path: Option<String>,
    pub(crate) advice: String,
}

impl Failure {
    /// A failure found by the command line itself.
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Error::new(kind, what).into()
    }

    /// An operating-system error met at `path`.
    pub(crate) fn io(what: &str, path: &Path, source: std::io::Error) -> Self {
        Error::io(what, source).with_path(path).into()
    }

    /// An error of standard output, where the result goes when the work is done.
    pub(crate) fn stdout(source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        Self::from(Error::io("standard output cannot be written", source)).advise(
            "only the output is lost, and what the command changed stays: look with `atrest status DIR` before you run it again or take anything away",
        )
    }

    /// Puts better advice in the place of the kind's.
    #[must_use]
    pub(crate) fn advise(self, better: impl Into<String>) -> Self {
        match self {
            Self::Error { error, .. } => Self::Error { error, advice: Some(better.into()) },
            Self::Partial(partial) => Self::Partial(Partial { advice: better.into(), ..partial }),
            other => other,
        }
    }

    /// The kind of what failed.
    pub(crate) fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Error { error, .. } => Some(error.kind()),
            _ => None,
        }
    }

    /// What there is to tell; `None` if nobody listens, or it was told already.
    pub(crate) fn report(&self) -> Option<ErrorReport> {
        let (error, advice) = match self {
            Self::Error { error, advice } => (error, advice),
            Self::Partial(partial) => return Some(partial.report()),
            _ => return None,
        };
        let verdict = Verdict::of_error(error);
        Some(ErrorReport {
            kind: verdict.name,
            message: clean(&error.to_string()),
            path: error.path().map(|path| path.display().to_string()),
            causes: causes(error),
            advice: advice.clone().unwrap_or_else(|| verdict.advice.to_owned()),
            exit_code: verdict.exit_code,
        })
    }

    /// How the process ends.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Error { error, .. } => Verdict::of_error(error).exit_code,
            Self::Partial(partial) => partial.exit_code,
            Self::PipeClosed => PIPE_CLOSED,
            #[cfg(feature = "demo")]
            Self::Unheld => crate::advice::FAILED,
        }
    }
}

impl Partial {
    fn report(&self) -> ErrorReport {
        ErrorReport {
            kind: self.name,
            message: clean(&self.message),
            path: self.path.clone(),
            causes: Vec::new(),
            advice: self.advice.clone(),
            exit_code: self.exit_code,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error { error, advice: None }
    }
}

impl From<atrest::kms::KmsError> for Failure {
    fn from(error: atrest::kms::KmsError) -> Self {
        Error::from(error).into()
    }
}

/// A failure as it is told. Field names are stable: they are the JSON.
#[derive(Serialize)]
pub(crate) struct ErrorReport {
    pub(crate) kind: &'static str,
    pub(crate) message: String,
    pub(crate) path: Option<String>,
    pub(crate) causes: Vec<String>,
    pub(crate) advice: String,
    pub(crate) exit_code: u8,
}

impl ErrorReport {
    /// One line for machines, with warnings that were not told before.
    pub(crate) fn json(&self, warnings: &[String]) -> String {
        self.json_beside(serde_json::json!({}), warnings)
    }

    /// The same with the fields of a result that has no place elsewhere.
    pub(crate) fn json_beside(&self, result: serde_json::Value, warnings: &[String]) -> String {
        let mut document = result;
        document["error"] = serde_json::json!(self);
        if !warnings.is_empty() {
            document["warnings"] = warnings.into();
        }
        document.to_string()
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let mut text = RED.paint("error: ") + &self.message;
        for cause in &self.causes {
            // OK because a String takes any text.
            let _ = write!(text, "\n  {}{cause}", DIM.paint("because: "));
        }
        let _ = write!(text, "\n   {}{}", CYAN.paint("advice: "), self.advice);
        text
    }
}

fn causes(error: &Error) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        causes.push(clean(&cause.to_string()));
        next = cause.source();
    }
    // Some repeat what is below them at their end.
    causes.dedup_by(|below, above| above.ends_with(below.as_str()));
    causes
}
