//! Progress on standard error, while it is a terminal and the work takes long.

use std::ops::ControlFlow;

use atrest::progress::WorkProgress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::signal;

/// Work shorter than this many bytes needs no bar.
const BYTES_MIN: u64 = 16 << 20;
const REDRAWS_PER_SECOND: u8 = 8;

/// A bar over bytes; of unknown length if `len` is `None`. Hidden for machines.
pub(crate) fn bytes(what: &'static str, len: Option<u64>, json: bool) -> ProgressBar {
    if json || len.is_some_and(|len| len < BYTES_MIN) {
        return ProgressBar::hidden();
    }
    let template = match len {
        Some(_) => "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        None => "{msg} {bytes} {bytes_per_sec} {elapsed}",
    };
    bar(what, len, template)
}

/// A bar over records. Hidden for machines.
#[cfg(feature = "demo")]
pub(crate) fn records(what: &'static str, len: u64, json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    bar(what, Some(len), "{msg} {wide_bar} {human_pos}/{human_len} {eta}")
}

/// A bar over the bytes of a piece of work that tells how much there is.
pub(crate) fn work(what: &'static str, json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    bar(what, Some(0), "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
}

/// Shows how far the work is, and ends it after an interruption.
pub(crate) fn show(bar: &ProgressBar, progress: WorkProgress) -> ControlFlow<()> {
    bar.set_length(progress.bytes_total);
    bar.set_position(progress.bytes_done);
    if signal::is_interrupted() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// A counter of files found so far.
pub(crate) fn files(what: &'static str, json: bool) -> ProgressBar {
    if json { ProgressBar::hidden() } else { bar(what, None, "{msg} {human_pos} files {elapsed}") }
}

fn bar(what: &'static str, len: Option<u64>, template: &str) -> ProgressBar {
    let target = ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND);
    let bar = ProgressBar::with_draw_target(len, target).with_message(what);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style.progress_chars("━╸─")),
        Err(_) => bar,
    }
}
