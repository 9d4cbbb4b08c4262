//! How a command fails: a library error with advice, or a reader that went away.

use std::error::Error as StdError;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use atrest::{Error, ErrorKind};
use serde::Serialize;

use crate::advice::{FAILED, PIPE_CLOSED, Verdict};
use crate::output::{clean, style};

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why a command did not do what it was asked.
pub(crate) enum Failure {
    /// Something failed; `advice` stands in for the kind's general one.
    Error { error: Error, advice: Option<String> },
    /// Whoever read our output closed it: nobody is left to tell.
    PipeClosed,
    /// A step of the demonstration did not hold; the report says which.
    Unheld,
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

    /// An error of standard output.
    pub(crate) fn stdout(source: std::io::Error) -> Self {
        if source.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::PipeClosed;
        }
        Error::io("standard output cannot be written", source).into()
    }

    /// Puts better advice in the place of the kind's.
    #[must_use]
    pub(crate) fn advise(self, better: impl Into<String>) -> Self {
        match self {
            Self::Error { error, .. } => Self::Error { error, advice: Some(better.into()) },
            other => other,
        }
    }

    /// What a user would see, each line behind `indent`.
    pub(crate) fn indented(&self, indent: &str) -> String {
        let Self::Error { error, advice } = self else { return String::new() };
        let advice = advice.as_deref().unwrap_or(Verdict::of(error.kind()).advice);
        format!(
            "{indent}{}",
            human(error, &causes(error), advice).replace('\n', &format!("\n{indent}"))
        )
    }

    /// Tells the user, and returns the exit code.
    pub(crate) fn report(&self, json: bool) -> u8 {
        let (error, advice) = match self {
            Self::Error { error, advice } => (error, advice),
            Self::PipeClosed => return PIPE_CLOSED,
            Self::Unheld => return FAILED,
        };
        let verdict = Verdict::of(error.kind());
        let advice = advice.as_deref().unwrap_or(verdict.advice);
        let causes = causes(error);
        let text = if json {
            let path = error.path().map(|path| path.display().to_string());
            let message = message(error);
            let error = ErrorReport {
                kind: verdict.name,
                message,
                path,
                causes,
                advice,
                exit_code: verdict.exit_code,
            };
            serde_json::json!({ "error": error }).to_string()
        } else {
            human(error, &causes, advice)
        };
        // Nobody is left to tell if standard error is closed.
        let _ = writeln!(anstream::stderr(), "{text}");
        verdict.exit_code
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

/// The JSON of a failure. Field names are stable.
#[derive(Serialize)]
struct ErrorReport<'a> {
    kind: &'static str,
    message: String,
    path: Option<String>,
    causes: Vec<String>,
    advice: &'a str,
    exit_code: u8,
}

fn message(error: &Error) -> String {
    clean(&error.to_string())
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

fn human(error: &Error, causes: &[String], advice: &str) -> String {
    let red = style(Style::new().bold().fg_color(Some(AnsiColor::Red.into())));
    let dim = style(Style::new().dimmed());
    let cyan = style(Style::new().fg_color(Some(AnsiColor::Cyan.into())));
    let mut text = red.paint("error: ") + &message(error);
    for cause in causes {
        // OK because a String takes any text.
        let _ = write!(text, "\n  {}{cause}", dim.paint("because: "));
    }
    let _ = write!(text, "\n   {}{advice}", cyan.paint("advice: "));
    text
}
