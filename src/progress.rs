//! How far long work is, and a way to stop it.

use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// How far a backup, restore or verification is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct WorkProgress {
    /// Files that are done.
    pub files_done: u64,
    /// Files in all.
    pub files_total: u64,
    /// Plaintext bytes that are done.
    pub bytes_done: u64,
    /// Plaintext bytes in all; what is being written meanwhile makes it inexact.
    pub bytes_total: u64,
}

/// Called now and then, from several threads. [`ControlFlow::Break`] ends the work with
/// [`ErrorKind::Io`] of `Interrupted`.
pub type OnProgress<'a> = &'a (dyn Fn(WorkProgress) -> ControlFlow<()> + Sync);

/// Counts for one piece of work.
pub(crate) struct Meter<'a> {
    on: OnProgress<'a>,
    files: AtomicU64,
    bytes: AtomicU64,
    files_total: u64,
    bytes_total: u64,
}

impl<'a> Meter<'a> {
    pub(crate) fn new(on: OnProgress<'a>, files_total: u64, bytes_total: u64) -> Self {
        let (files, bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { on, files, bytes, files_total, bytes_total }
    }

    /// `files` and `bytes` more are done.
    ///
    /// # Errors
    /// `Interrupted` if the caller wants no more.
    pub(crate) fn add(&self, files: u64, bytes: u64) -> Result<()> {
        let progress = WorkProgress {
            files_done: self.files.fetch_add(files, Ordering::Relaxed) + files,
            files_total: self.files_total,
            bytes_done: self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes,
            bytes_total: self.bytes_total,
        };
        match (self.on)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => {
                let kind = ErrorKind::Io(io::ErrorKind::Interrupted);
                Err(Error::new(kind, "the work was cancelled"))
            }
        }
    }
}
