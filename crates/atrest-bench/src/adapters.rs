//! What the engines over files have in common: each is measured plain and in both ways that a
//! store encrypts, in pairs.

use std::path::Path;
use std::sync::Arc;

use atrest::keyring::{IntegrityPolicy, Options};
use atrest::kms::{KeyFile, generate_key_file};
use atrest::{Integrity, Store};

use crate::Row;
use crate::measure::{Effort, interleaved};

/// One call's work.
pub type Work<'a> = Box<dyn FnMut() + 'a>;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its part of a row's name.
    pub name: &'static str,
    /// Records that one call handles.
    pub units: u64,
}

/// An engine with what the operations need.
pub trait Subject {
    /// One operation.
    fn work(&self, operation: Operation) -> Work<'_>;
}

/// The integrities, and their parts of a row's name.
pub const KINDS: [(Integrity, &str); 2] =
    [(Integrity::Confidential, ""), (Integrity::Authenticated, "-authenticated")];

/// Every operation of the engine `group`, encrypted against plain (`None`).
pub fn compare<'a>(
    effort: Effort,
    group: &str,
    operations: &[Operation],
    kinds: &[(Integrity, &str)],
    make: impl Fn(Option<Integrity>) -> Box<dyn Subject + 'a>,
    mut progress: impl FnMut(&str),
) -> Vec<Row> {
    progress(group);
    let plain = make(None);
    let encrypted = kinds.iter().map(|(integrity, suffix)| (make(Some(*integrity)), *suffix));
    let encrypted: Vec<_> = encrypted.collect();
    let effort = Effort { pairs: effort.pairs.min(21), ..effort };
    let mut rows = Vec::new();
    for operation in operations {
        for (subject, suffix) in &encrypted {
            let name = format!("{group}/{}{suffix}/plain", operation.name);
            progress(&name);
            let (mut ours, mut theirs) = (subject.work(*operation), plain.work(*operation));
            let pair = interleaved(effort, &mut *ours, &mut *theirs);
            let rate = |seconds: f64| operation.units as f64 / seconds / 1e3;
            let (atrest, peer) = (rate(pair.a), rate(pair.b));
            rows.push(Row { name, unit: "k records/s", atrest, peer, ratio: pair.b_over_a });
        }
    }
    rows
}

/// A new store in `dir`.
///
/// # Panics
/// When it cannot be made.
pub fn store(dir: &Path, integrity: Integrity) -> Store {
    std::fs::create_dir_all(dir).unwrap();
    let key = dir.with_extension("key");
    generate_key_file(&key).unwrap();
    let mut options = Options::default();
    options.settings.integrity = IntegrityPolicy::all(integrity);
    Store::create(dir, Arc::new(KeyFile::new(key).unwrap()), options).unwrap()
}

/// The next of a series of numbers that are the same in each run.
pub fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
