//! Proving that every file of a chain is there and is what its manifest says.

use std::collections::HashMap;
use std::path::PathBuf;

use serde::Serialize;

use super::Chain;
use super::object::{Object, ObjectId};
use super::objects::ObjectReader;
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
}

/// One missing or damaged copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct BackupProblem {
    /// A file that needs it.
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
        let mut objects: HashMap<ObjectId, (Object, PathBuf)> = HashMap::new();
        let backups = self.count()?;
        self.walk(backups, |manifest, _, _| {
            for file in manifest.files.iter().filter(|file| file.object != Object::default()) {
                objects.entry(file.object.id).or_insert_with(|| (file.object, file.relative()));
            }
            Ok(())
        })?;
        let names = self.target.list(FILES)?;
        let is_left =
            |name: &str| crate::hex::decode_array(name).is_none_or(|id| !objects.contains_key(&id));
        let leftovers = names.iter().filter(|(name, _)| is_left(name)).count() as u64;
        let mut objects: Vec<_> = objects.into_values().collect();
        objects.sort_unstable_by(|(_, one), (_, other)| one.cmp(other));
        let bytes = objects.iter().map(|(object, _)| object.stream_len).sum();
        let meter = Meter::new(on, objects.len() as u64, bytes);
        let problems = parallel::each(&objects, |(object, path)| {
            let cancelled = std::cell::Cell::new(false);
            let read = ObjectReader::open_expecting(self, object).and_then(|reader| {
                reader.stream(|piece| {
                    meter.add(0, piece.len() as u64).inspect_err(|_| cancelled.set(true))
                })
            });
            match read {
                Ok(()) => meter.add(1, 0).map(|()| None),
                Err(error) if cancelled.get() => Err(error),
                Err(error) => Ok(Some(BackupProblem {
                    path: path.clone(),
                    backup: object.held_by,
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
        })
    }
}
