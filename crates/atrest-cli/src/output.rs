//! What is printed: text for people, JSON for machines.

use std::io::Write;

use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::paint::YELLOW;

/// Standard output, and what is told beside it. Colours are stripped unless it is a
/// terminal that wants them (`NO_COLOR` and `CLICOLOR_FORCE` are respected).
pub(crate) struct Out {
    json: bool,
    /// What machines are told with the result or the error: on standard error they expect
    /// one document.
    warnings: Vec<String>,
    /// Fields of a result that go with the error.
    aside: serde_json::Value,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, warnings: Vec::new(), aside: serde_json::json!({}) }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints the result: `value` for machines, or what `text` makes for people.
    pub(crate) fn result<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<()> {
        let text = if self.json { self.document(value) } else { text() };
        self.line(&text)
    }

    /// The same on standard error, for a command whose data went to standard output;
    /// people get nothing.
    pub(crate) fn result_aside<T: Serialize>(&mut self, value: &T) {
        if self.json {
            note(&self.document(value));
        }
    }

    /// The same where the command fails all the same: the fields go into the error's
    /// document.
    pub(crate) fn result_beside_failure<T: Serialize>(&mut self, value: &T) {
        // OK because our reports are structs with string keys and no failing Serialize.
        self.aside = serde_json::to_value(value).expect("a report is JSON");
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        let mut stdout = anstream::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Failure::stdout)
    }

    /// People read it on standard error at once, machines as a field `warnings` of what
    /// comes next.
    pub(crate) fn warn(&mut self, text: &str) {
        if self.json {
            self.warnings.push(text.to_owned());
        } else {
            note(&format!("{}{text}", YELLOW.paint("warning: ")));
        }
    }

    /// Tells why the command failed, on standard error. Returns the exit code.
    pub(crate) fn failure(&mut self, failure: &Failure) -> u8 {
        if let Some(report) = failure.report() {
            let warnings = std::mem::take(&mut self.warnings);
            let aside = self.aside.take();
            note(&if self.json { report.json_beside(aside, &warnings) } else { report.text() });
        }
        failure.exit_code()
    }

    fn document<T: Serialize>(&mut self, value: &T) -> String {
        let warnings = std::mem::take(&mut self.warnings);
        let json = if warnings.is_empty() {
            serde_json::to_string_pretty(value)
        } else {
            serde_json::to_string_pretty(&Warned { value, warnings })
        };
        // OK because our reports are structs with string keys and no failing Serialize.
        json.expect("a report is JSON")
    }
}

#[derive(Serialize)]
struct Warned<'a, T> {
    #[serde(flatten)]
    value: &'a T,
    warnings: Vec<String>,
}

/// A line on standard error. If that is closed nobody is left to tell.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}
