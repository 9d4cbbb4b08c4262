//! Renames and links while somebody looks at all files.
//!
//! A directory walk can miss a file that is renamed meanwhile: it is no longer where the
//! walk has not been, and not yet where it was. So renames are noted, and whoever walked
//! looks at their targets afterwards, with renames kept out.

use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError, RwLockReadGuard, RwLockWriteGuard};

use crate::sync::{Mutex, RwLock};

#[derive(Debug, Default)]
pub(crate) struct Moves {
    gate: RwLock<()>,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    recordings: usize,
    targets: Vec<PathBuf>,
}

impl Moves {
    /// Held over a change of names: others may run beside it, an [`alone`](Self::alone)
    /// may not.
    pub(crate) fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps all changes of names out.
    pub(crate) fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where a file is about to get a name, while the gate is held.
    pub(crate) fn note(&self, target: &Path) {
        let mut log = self.log();
        if log.recordings > 0 {
            log.targets.push(target.into());
        }
    }

    /// Notes targets until the recording is dropped. Waits for the changes under way: one
    /// that began before and ends after would be in neither the notes nor the walk.
    pub(crate) fn record(&self) -> Recording<'_> {
        let recording = {
            let mut log = self.log();
            log.recordings += 1;
            Recording { moves: self, start: log.targets.len() }
        };
        drop(self.alone());
        recording
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Recording<'a> {
    moves: &'a Moves,
    start: usize,
}

impl Recording<'_> {
    /// Targets since the recording began. Complete while `_alone` is held.
    pub(crate) fn targets(&self, _alone: &RwLockWriteGuard<'_, ()>) -> Vec<PathBuf> {
        self.moves.log().targets[self.start..].to_vec()
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        let mut log = self.moves.log();
        log.recordings -= 1;
        if log.recordings == 0 {
            log.targets = Vec::new();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
