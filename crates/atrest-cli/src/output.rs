//! What is printed, and how: text for people with colours where they work, JSON for
//! machines.

use std::io::Write;

use anstyle::Style;
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Standard output. Colours are stripped unless it is a terminal that wants them
/// (`NO_COLOR` and `CLICOLOR_FORCE` are respected).
pub(crate) struct Out {
    json: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
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
        if self.json { self.line(&to_json(value)) } else { self.line(&text()) }
    }

    /// The same on standard error, for a command whose data went to standard output.
    pub(crate) fn result_aside<T: Serialize>(&self, value: &T, text: impl FnOnce() -> String) {
        let text = if self.json { to_json(value) } else { text() };
        if !text.is_empty() {
            note(&text);
        }
    }

    pub(crate) fn line(&mut self, text: &str) -> Result<()> {
        let mut stdout = anstream::stdout().lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(Failure::stdout)
    }
}

fn to_json<T: Serialize>(value: &T) -> String {
    // OK because our reports have string keys and no failing Serialize.
    serde_json::to_string_pretty(value).expect("a report is JSON")
}

/// A line on standard error. If that is closed nobody is left to tell.
pub(crate) fn note(text: &str) {
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// A warning on standard error.
pub(crate) fn warn(text: &str) {
    note(&format!("{}{text}", YELLOW.paint("warning: ")));
}

/// Wraps text in a style's escape codes.
#[derive(Clone, Copy)]
pub(crate) struct Paint(Style);

pub(crate) fn style(style: Style) -> Paint {
    Paint(style)
}

impl Paint {
    pub(crate) fn paint(self, text: &str) -> String {
        format!("{}{text}{}", self.0.render(), self.0.render_reset())
    }
}

pub(crate) const BOLD: Paint = Paint(Style::new().bold());
pub(crate) const DIM: Paint = Paint(Style::new().dimmed());
pub(crate) const GREEN: Paint = colour(anstyle::AnsiColor::Green);
pub(crate) const RED: Paint = colour(anstyle::AnsiColor::Red);
pub(crate) const YELLOW: Paint = colour(anstyle::AnsiColor::Yellow);

const fn colour(colour: anstyle::AnsiColor) -> Paint {
    Paint(Style::new().fg_color(Some(anstyle::Color::Ansi(colour))))
}

/// Text from outside, such as a file name, without what could steer a terminal.
pub(crate) fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' { clean.extend(c.escape_default()) } else { clean.push(c) }
    }
    clean
}
