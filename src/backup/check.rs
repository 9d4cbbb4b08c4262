//! Proving that every file of a chain is there and is what its manifest says.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::path::PathBuf;

use serde::Serialize;

use super::Chain;
use super::lack::{Lack, LackEntry};
use super::manifest::Entry;
use super::object::{Object, ObjectId, broken};
use super::objects::ObjectReader;
use super::stream::StreamParts;
use super::target::FILES;
use crate::error::{ErrorKind, Result};
use crate::parallel;
use crate::progress::{Meter, OnProgress};

/// What a check found. Field names are stable: they are the JSON of the command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// The chain.
    pub chain_id: crate::StoreId,
    /// Backups whose manifests are good and follow each other.
    pub backups: u64,
    /// Copied files that were read wholly.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Copies that no backup names: of a backup that was killed or is being made.
    pub leftovers: u64,
    /// Copies that are missing or damaged.
    pub problems: Vec<BackupProblem>,
    /// What of the store the last backup lacks.
    pub lacks: Vec<Lack>,
}

/// One missing or damaged copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackupProblem {
    /// A file that needs it.
    #[serde(serialize_with = "crate::shown::path")]
    pub path: PathBuf,
    /// The backup that wrote it: this one and all after it are concerned.
    pub backup: u64,
    /// What is wrong, in words.
    pub message: String,
    /// What is wrong.
    #[serde(skip)]
    pub kind: ErrorKind,
}

impl Chain {
    /// Reads every manifest and every copied file of the chain and compares them with
    /// their hashes.
    ///
    /// # Errors
    /// Those of [`list`](Self::list): a damaged chain of manifests ends the check. Damaged
    /// copies do not, they are in the report. [`Io`](ErrorKind::Io) of `Interrupted` when
    /// cancelled.
    pub fn verify(&self, on: OnProgress<'_>) -> Result<CheckReport> {
        let mut objects: HashMap<ObjectId, Entry> = HashMap::new();
        let mut lacks = Vec::new();
        let backups = self.count()?;
        if backups == 0 {
            return Err(broken("there is no finished backup"));
        }
        self.walk(backups, |manifest, _, _| {
            lacks = manifest.lacks.iter().filter_map(LackEntry::lack).collect();
            for file in manifest.files {
                if file.object == Object::default() {
                    continue;
                }
                match objects.entry(file.object.id) {
                    MapEntry::Vacant(place) => drop(place.insert(file)),
                    MapEntry::Occupied(known) if known.get().is_copied_as(&file) => {}
                    MapEntry::Occupied(_) => {
                        let what = "a copy is described in two ways";
                        return Err(broken(what).with_path(file.relative()));
                    }
                }
            }
            Ok(())
        })?;
        let names = self.target.list(FILES)?;
        let is_left =
            |name: &str| crate::hex::decode_array(name).is_none_or(|id| !objects.contains_key(&id));
        let leftovers = names.iter().filter(|(name, _)| is_left(name)).count() as u64;
        let mut objects: Vec<_> = objects.into_values().collect();
        objects.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        let bytes = objects.iter().map(|file| file.object.stream_len).sum();
        let meter = Meter::new(on, objects.len() as u64, bytes);
        let problems = parallel::each(&objects, |file| {
            let cancelled = std::cell::Cell::new(false);
            let read = self
                .read_copy(file, &|bytes| meter.add(0, bytes).inspect_err(|_| cancelled.set(true)));
            match read {
                Ok(()) => meter.add(1, 0).map(|()| None),
                Err(error) if cancelled.get() || ends_all(error.kind()) => Err(error),
                Err(error) => Ok(Some(BackupProblem {
                    path: file.relative(),
                    backup: file.object.held_by,
                    message: error.to_string(),
                    kind: error.kind(),
                })),
            }
        })?;
        Ok(CheckReport {
            chain_id: self.id(),
            backups,
            files: objects.len() as u64,
            bytes,
            leftovers,
            problems: problems.into_iter().flatten().collect(),
            lacks,
        })
    }

    /// Reads a copy as a restore would.
    fn read_copy(&self, file: &Entry, read: &dyn Fn(u64) -> Result<()>) -> Result<()> {
        // OK because a manifest was checked when it was decoded.
        let mut parts = StreamParts::of(file.what().expect("a file that means something"));
        ObjectReader::open_expecting(self, &file.object)?.stream(|piece| {
            parts.take(piece, &mut |_| Ok(()))?;
            read(piece.len() as u64)
        })?;
        parts.end(file.object.len)
    }
}

/// Errors that say nothing of one copy: without the customer's key none can be read.
fn ends_all(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::CmekRevoked | ErrorKind::Kms(_))
}
