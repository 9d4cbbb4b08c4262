//! The engines of the demonstration, as it drives them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use atrest::{ErrorKind, Keyring};
use atrest_object_store::find_error;

use super::records;
use crate::failure::{Failure, Result};

mod slatedb;
#[cfg(feature = "demo-tantivy")]
mod tantivy;

/// Where an engine's files lie below the store's directory.
pub(super) const PATH: &str = "db";

/// The records the engine holds: for each number the version written last.
pub(super) type Versions = Vec<u32>;

/// Those that this command is built with.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(super) enum Kind {
    /// A log-structured merge tree on an object store.
    Slatedb,
    /// A search engine on a directory.
    #[cfg(feature = "demo-tantivy")]
    Tantivy,
}

impl Kind {
    pub(super) fn engine(self) -> &'static dyn Engine {
        match self {
            Self::Slatedb => &slatedb::SlateDb,
            #[cfg(feature = "demo-tantivy")]
            Self::Tantivy => &tantivy::Tantivy,
        }
    }
}

/// What an engine does in a session.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It rewrites nothing by itself.
    Loading,
    /// It rewrites its tables by itself.
    Compacting,
    /// It is read.
    Quiet,
}

pub(super) trait Engine {
    fn name(&self) -> &'static str;

    /// Opens it in the directory of a store, or without encryption.
    fn open(&self, dir: &Path, keyring: Option<&Keyring>, mode: Mode) -> Result<Box<dyn Session>>;

    /// Its tables on disk, of the store's directory.
    fn tables(&self, dir: &Path) -> BTreeSet<PathBuf>;

    /// Its write-ahead log on disk.
    fn logs(&self, dir: &Path) -> BTreeSet<PathBuf>;
}

/// An open engine.
pub(super) trait Session {
    /// Writes the next version of each of these records. Returns the bytes of keys and values.
    fn write(
        &mut self,
        versions: &mut Versions,
        numbers: &mut dyn Iterator<Item = u64>,
        wrote: &dyn Fn(u64),
    ) -> Result<u64>;

    /// Makes all that was written durable, in tables.
    fn flush(&mut self) -> Result<()>;

    /// Reads every record and compares it.
    fn verify(&self, versions: &Versions, read: &dyn Fn(u64)) -> Result<Verified>;

    fn close(self: Box<Self>) -> Result<()>;
}

/// What reading everything back gave.
#[derive(Default)]
pub(super) struct Verified {
    /// Records that are as they were written last.
    pub(super) good: u64,
    /// Records that are not, or that nobody wrote.
    pub(super) bad: u64,
}

/// Compares records with what was written.
struct Check<'a> {
    versions: &'a Versions,
    expected: String,
    verified: Verified,
}

impl<'a> Check<'a> {
    fn new(versions: &'a Versions) -> Self {
        Self { versions, expected: String::new(), verified: Verified::default() }
    }

    fn add(&mut self, number: Option<u64>, value: &[u8]) {
        let version = number.and_then(|number| self.versions.get(number as usize));
        let as_written = match (number, version) {
            (Some(number), Some(version)) => {
                records::value(number, *version, &mut self.expected);
                value == self.expected.as_bytes()
            }
            _ => false,
        };
        let Verified { good, bad } = &mut self.verified;
        *(if as_written { good } else { bad }) += 1;
    }
}

/// Counts the next version of a record, puts its value in `value` and returns its key.
fn next_version(versions: &mut Versions, number: u64, value: &mut String) -> String {
    let index = number as usize;
    if versions.len() <= index {
        versions.resize(index + 1, 0);
    }
    versions[index] += 1;
    records::value(number, versions[index], value);
    records::key(number)
}

/// The files of a directory that `counts` names.
fn names(dir: &Path, counts: impl Fn(&Path) -> bool) -> BTreeSet<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| counts(path)).collect()
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    let kind = find_error(&error).map_or(ErrorKind::Io(std::io::ErrorKind::Other), |e| e.kind());
    atrest::Error::new(kind, "the engine failed").with_source(error).into()
}
