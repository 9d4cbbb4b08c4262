//! Rewriting cold files under the newest key, while the store is in use.
//!
//! No state is kept: a file's own header says whether it is still to do, so a run that
//! was cancelled or killed is gone on with by the next one.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::renewal::Renewal;
use super::stale::{Judge, StalePolicy};
use crate::descriptors;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{EncryptedFs, TornFile};
use crate::keyring::{FileSpec, PlaintextPolicy};
use crate::names::is_disposable;
use crate::parallel;
use crate::scan::OnScan;
use crate::suite::Suite;
use crate::walk::PassedBy;
use collect::{Collect, Work};
use throttle::Throttle;

mod collect;
mod exchange;
mod fingerprint;
mod rewrite;
mod throttle;

/// Says what a plaintext file is, or `None` for one to leave alone.
pub type SpecOf<'a> = &'a (dyn Fn(&Path) -> Option<FileSpec> + Sync);

/// How a re-encryption goes about it.
#[non_exhaustive]
pub struct Reencrypt<'a> {
    /// Which files. Plaintext files are left alone unless [`plaintext`](Self::plaintext)
    /// is set too.
    pub policy: StalePolicy,
    /// The suite of the new files. Default: `None`, that of the old file, or one that the
    /// policy asks for.
    pub suite: Option<Suite>,
    /// Says of a plaintext file what it is, for its header, or `None` to leave it as it
    /// is. Files that the engine reads without the library **MUST** be left. Default:
    /// none is touched. The store's policy has to allow plaintext: where it does not, a
    /// plaintext file was put there by somebody else.
    pub plaintext: Option<SpecOf<'a>>,
    /// Plaintext bytes a second. Default: no limit.
    pub bytes_per_second: Option<u64>,
    /// Files rewritten at the same time. Default: four for each processor, since most of
    /// the time a file waits to be made durable. Fewer where the process may not have as many
    /// files open: they take half of `RLIMIT_NOFILE`.
    pub threads: usize,
    /// Ends the run when it becomes true; the file in work stays as it was.
    pub cancel: Option<&'a AtomicBool>,
    /// Called before the work, while headers are read.
    pub on_scan: OnScan<'a>,
    /// Called now and then, from several threads.
    pub on_progress: &'a (dyn Fn(&ReencryptProgress) + Sync),
    /// Excludes the engine while a file is replaced. Default: none.
    pub commit: Option<&'a dyn CommitHook>,
    to_plaintext: bool,
    cut_torn: bool,
}

impl Default for Reencrypt<'_> {
    fn default() -> Self {
        Self {
            policy: StalePolicy::default(),
            suite: None,
            plaintext: None,
            bytes_per_second: None,
            threads: 4 * std::thread::available_parallelism().map_or(1, usize::from),
            cancel: None,
            on_scan: &|_| {},
            on_progress: &|_| {},
            commit: None,
            to_plaintext: false,
            cut_torn: false,
        }
    }
}

impl Reencrypt<'_> {
    /// Rewrites **every encrypted file as plaintext**, whatever the policy says: to leave
    /// encryption behind. The store's policy has to allow plaintext.
    #[must_use]
    pub fn danger_to_plaintext(mut self) -> Self {
        self.to_plaintext = true;
        self
    }

    /// Rewrites [torn](TornFile) files too, and so **loses for good** what is behind the place
    /// where they are: a log's first frame that is not good, or the first part of a file of suite 1
    /// that was never written. Without it they are left as they are, and so keep their data key
    /// in use.
    #[must_use]
    pub fn danger_cut_torn(mut self) -> Self {
        self.cut_torn = true;
        self
    }
}

/// Lets an engine keep its own hands off a file while it is replaced.
///
/// Without a hook, what the engine does through the library is excluded anyway. An engine
/// that removes or replaces files by itself is met with an atomic exchange: a file that
/// is gone stays gone, and one that was replaced since is found out and put back, but for
/// a moment its name leads to the older content. Where the file system cannot exchange
/// files none is rewritten without a hook: an engine that does everything through the
/// library gives one that only calls `replace`.
pub trait CommitHook: Sync {
    /// Has to call `replace` to put `new` in the place of `old`, under whatever lock
    /// keeps the engine from removing or replacing `old`; or not to call it, and so keep
    /// `old` as it is.
    ///
    /// # Errors
    /// That of `replace`, or its own: the file then counts as failed.
    fn commit(&self, old: &Path, new: &Path, replace: &mut dyn FnMut() -> Result<()>)
    -> Result<()>;
}

/// How far a re-encryption is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReencryptProgress {
    /// Files done with, rewritten or not.
    pub files: u64,
    /// Files in all.
    pub files_total: u64,
    /// Bytes done with.
    pub bytes: u64,
    /// Bytes in all, on disk.
    pub bytes_total: u64,
    /// Time left, if it goes on like this.
    #[serde(serialize_with = "as_seconds", rename = "left_s")]
    pub left: Option<Duration>,
}

fn as_seconds<S: serde::Serializer>(left: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    left.map(|left| left.as_secs_f64()).serialize(to)
}

/// Why a file was not rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Skipped {
    /// The engine removed it.
    Gone,
    /// The engine replaced or changed it, or the hook kept it.
    Changed,
    /// It is still being written.
    BeingWritten,
    /// The file system cannot exchange two files, so that what an engine puts in the old
    /// file's place meanwhile could be lost. A [hook](CommitHook) that keeps the engine
    /// away makes it possible.
    NoExchange,
    /// It is not stale any more.
    Fresh,
    /// It cannot be read to its end: rewriting it would lose the rest. The report's
    /// [`torn`](ReencryptReport::torn) says more.
    Torn,
}

/// What a re-encryption did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ReencryptReport {
    /// Files that were rewritten.
    pub files: u64,
    /// Their plaintext bytes.
    pub bytes: u64,
    /// Files left as they were, and why.
    pub skipped: Vec<(PathBuf, Skipped)>,
    /// Files that could not be read to their ends: skipped, or, where
    /// [that was asked for](Reencrypt::danger_cut_torn), rewritten up to there. One of suite 1 is
    /// found out by copying it up to there, at each run.
    pub torn: Vec<TornFile>,
    /// Files that were rewritten in a suite, or as plaintext, that does not tell appends apart,
    /// as their old suite did.
    pub merged: Vec<PathBuf>,
    /// Files that failed, and stay as they were.
    pub failed: Vec<(PathBuf, Error)>,
    /// Directories in which nothing was looked at.
    pub passed_by: PassedBy,
    /// Leftovers of a run that was killed, removed now.
    pub leftovers_removed: u64,
    /// Whether the run was cancelled.
    pub cancelled: bool,
}

impl Renewal<'_> {
    /// Rewrites stale files, each into a new file beside it that is made durable, read
    /// back and compared, and then takes its name. Readers keep what they have open. The
    /// new file has the old one's mode and owner, kind, file id and keyspace, and in a suite
    /// that tells appends apart the same appends; a new time
    /// of modification, since its bytes on the disk are new and backups have to see that.
    /// Its names below the store's directories stay names of one file, but for a moment and
    /// after a crash; hard links elsewhere keep the old file, and its data key gets a
    /// [hold](super::HARD_LINKS_HOLD).
    ///
    /// One run at a time. A file that fails does not end it.
    ///
    /// # Errors
    /// [`KeyringBusy`](ErrorKind::KeyringBusy) beside another run;
    /// [`ReadOnly`](ErrorKind::ReadOnly);
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for plaintext that the store's
    /// policy does not allow; [`IdentityMismatch`](ErrorKind::IdentityMismatch) for a registered
    /// directory that a store at [another place](super::Directories::register) registered; those of
    /// [`scan_usage`](Self::scan_usage).
    pub fn reencrypt(&self, how: &Reencrypt<'_>) -> Result<ReencryptReport> {
        let _one = self.0.places().reencrypting()?;
        let allowed = self.0.keyring().settings().plaintext == PlaintextPolicy::Allow;
        if (how.to_plaintext || how.plaintext.is_some()) && !allowed {
            let what = "the store's policy does not allow plaintext";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        self.0.places().directories().check_own()?;
        let judge = Judge::new(self.0.keyring(), &how.policy);
        let new = || Collect::new(&judge, how);
        let (mut found, passed_by) = self.scan_all(how.on_scan, new)?;
        let mut report = ReencryptReport { passed_by, ..ReencryptReport::default() };
        let leftovers: Vec<_> = found.iter_mut().flat_map(Collect::take_leftovers).collect();
        let files = Work::of(found);
        let names =
            files.iter().flat_map(Work::names).chain(leftovers.iter().map(PathBuf::as_path));
        self.0.places().directories().check_own_files(names)?;
        for leftover in leftovers {
            if self.remove_leftover(&leftover)? {
                report.leftovers_removed += 1;
            } else {
                let what = "a run was cut off while somebody replaced a file, which may be this";
                let error = Error::new(ErrorKind::ForeignFile, what).with_path(&leftover);
                report.failed.push((leftover, error));
            }
        }
        let run = Run::new(self.0, how, &judge, &files);
        let count = descriptors::threads(how.threads).min(files.len());
        parallel::on_threads(count, || run.work());
        let done = run.report.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.failed.extend(done.failed);
        let ReencryptReport { leftovers_removed, failed, passed_by, .. } = report;
        Ok(ReencryptReport { leftovers_removed, failed, passed_by, ..done })
    }

    /// Removes what a killed run left; false if it is not proven to be that.
    fn remove_leftover(&self, path: &Path) -> Result<bool> {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let fail = |e| Error::io("the file's attributes are unknown", e).with_path(path);
        let stat = self.0.vfs().stat(path).map_err(fail)?;
        if !is_disposable(name, &stat) {
            return Ok(false);
        }
        self.0.remove_own(path).map(|()| true)
    }
}

/// The state that the threads of one run share.
struct Run<'a> {
    fs: &'a EncryptedFs,
    how: &'a Reencrypt<'a>,
    judge: &'a Judge,
    files: &'a [Work],
    next: AtomicUsize,
    throttle: Throttle,
    start: Instant,
    progress: Mutex<ReencryptProgress>,
    report: Mutex<ReencryptReport>,
    /// Devices whose files cannot be exchanged.
    without_exchange: Mutex<HashSet<u64>>,
}

impl<'a> Run<'a> {
    fn new(
        fs: &'a EncryptedFs,
        how: &'a Reencrypt<'a>,
        judge: &'a Judge,
        files: &'a [Work],
    ) -> Self {
        let progress = ReencryptProgress {
            files_total: files.len() as u64,
            bytes_total: files.iter().map(|work| work.file.bytes).sum(),
            ..ReencryptProgress::default()
        };
        Self {
            fs,
            how,
            judge,
            files,
            next: AtomicUsize::new(0),
            throttle: Throttle::new(how.bytes_per_second),
            start: Instant::now(),
            progress: Mutex::new(progress),
            report: Mutex::default(),
            without_exchange: Mutex::default(),
        }
    }

    fn cannot_exchange(&self, device: u64) {
        self.without_exchange.lock().unwrap_or_else(PoisonError::into_inner).insert(device);
    }

    /// Known before a file is copied in vain.
    fn must_exchange_and_cannot(&self, device: u64) -> bool {
        let without = self.without_exchange.lock().unwrap_or_else(PoisonError::into_inner);
        self.how.commit.is_none() && without.contains(&device)
    }

    fn is_cancelled(&self) -> bool {
        self.how.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    fn work(&self) {
        while let Some(work) = self.files.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let result = self.rewrite(work);
            let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
            let path = || work.file.path.to_path_buf();
            match result {
                Ok(Rewritten::Done(bytes)) => {
                    report.files += 1;
                    report.bytes += bytes;
                }
                Ok(Rewritten::Skipped(why)) => report.skipped.push((path(), why)),
                Ok(Rewritten::Cancelled) => {
                    report.cancelled = true;
                    return;
                }
                Err(error) => match error.kind() {
                    // The engine was faster.
                    ErrorKind::Io(io::ErrorKind::NotFound) => {
                        report.skipped.push((path(), Skipped::Gone));
                    }
                    _ => report.failed.push((path(), error)),
                },
            }
            drop(report);
            self.advance(1, 0);
        }
    }

    fn advance(&self, files: u64, bytes: u64) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.files += files;
        progress.bytes += bytes;
        let left = progress.bytes_total.saturating_sub(progress.bytes);
        progress.left = (progress.bytes > 0).then(|| {
            let factor = left as f64 / progress.bytes as f64;
            // At most some hundred years, which no `f64` here exceeds by itself.
            self.start.elapsed().mul_f64(factor.min(1e9))
        });
        let progress = progress.clone();
        (self.how.on_progress)(&progress);
    }
}

enum Rewritten {
    Done(u64),
    Skipped(Skipped),
    Cancelled,
}
