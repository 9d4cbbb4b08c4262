//! Files that end before their length does: how they are told, and how a command ends that met
//! one.

use atrest::fs::{TornFile, TornReason};

use crate::advice::TORN;
use crate::failure::{Failure, Partial, Result};
use crate::paint::{YELLOW, clean};
use crate::units;

/// A line for each, up to `shown_max`.
pub(crate) fn lines(torn: &[TornFile], shown_max: usize) -> Vec<String> {
    let mark = YELLOW.paint("!");
    let mut lines: Vec<_> =
        torn.iter().take(shown_max).map(|file| format!("  {mark} {}", told(file))).collect();
    let hidden = torn.len().saturating_sub(shown_max);
    if hidden > 0 {
        lines.push(format!("  {mark} and {hidden} more"));
    }
    lines
}

/// What is known of one.
pub(crate) fn told(file: &TornFile) -> String {
    let path = clean(&file.path.display().to_string());
    let (kept, lost) = (units::counted(file.kept_bytes, "byte"), units::bytes(file.lost_bytes));
    let why = match file.reason {
        Some(TornReason::Cut) => "cut off in an append",
        Some(TornReason::Zeros) => "followed by zeros, as a crash leaves them",
        Some(TornReason::Length | TornReason::Authentication) => "damaged",
        _ => "cut off or damaged",
    };
    format!("{path}: it is {why} after {kept}; {lost} on disk are not read")
}

/// How a command ends that met them, and nothing worse.
pub(crate) fn fail(torn: &[TornFile]) -> Result<()> {
    let Some(first) = torn.first() else { return Ok(()) };
    let count = units::counted(torn.len() as u64, "file");
    Err(Failure::Partial(Partial {
        name: "torn-log",
        exit_code: TORN,
        message: format!("{count} with an early end, the first: {}", told(first)),
        path: Some(first.path.display().to_string()),
        advice: "what is in front is good: a crash in an append leaves this; if there was none, restore the file and find out what happened".into(),
    }))
}
