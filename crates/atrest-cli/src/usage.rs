//! Wrong usage, as the argument parser finds it.

use std::ffi::OsStr;
use std::process::ExitCode;

use clap::Error;

use crate::advice::USAGE;
use crate::failure::ErrorReport;
use crate::output::note;

/// Tells what the parser has to say: help and versions too.
pub(crate) fn report(error: &Error) -> ExitCode {
    if !error.use_stderr() || !is_json_asked() {
        error.exit();
    }
    note(&to_report(&error.render().to_string()).json(&[]));
    ExitCode::from(USAGE)
}

/// The flag, where the arguments could not be parsed.
fn is_json_asked() -> bool {
    let mut args = std::env::args_os().skip(1).take_while(|arg| arg != OsStr::new("--"));
    args.any(|arg| arg == OsStr::new("--json"))
}

/// The parser's text: a message, tips and how the command is used, in paragraphs.
fn to_report(text: &str) -> ErrorReport {
    let mut paragraphs = text.split("\n\n").map(|text| {
        let words: Vec<_> = text.split_whitespace().collect();
        words.join(" ")
    });
    let first = paragraphs.next().unwrap_or_default();
    let last: Vec<_> = paragraphs.filter(|text| !text.is_empty()).collect();
    ErrorReport {
        kind: "usage",
        message: first.strip_prefix("error: ").unwrap_or(&first).to_owned(),
        path: None,
        causes: Vec::new(),
        advice: last.join("; "),
        exit_code: USAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parsers_text_becomes_message_and_advice() {
        let text = "error: unrecognized subcommand 'x'\n\n  tip: a similar one exists: 'y'\n\n\
                    Usage: atrest <COMMAND>\n\nFor more information, try '--help'.\n";
        let report = to_report(text);
        assert_eq!(report.message, "unrecognized subcommand 'x'");
        let advice = "tip: a similar one exists: 'y'; Usage: atrest <COMMAND>; \
                      For more information, try '--help'.";
        assert_eq!(report.advice, advice);
    }
}
