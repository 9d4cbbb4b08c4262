//! Data keys that the keyring was just read for in vain.
//!
//! No header names a key before the keyring holds it, so a key that is not there when its
//! file is seen comes only with another keyring. Without this every file of a key that is
//! gone would cost a look at the storage each time it is tried.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::Duration;

use crate::ids::DataKeyId;
use crate::sync::Mutex;

/// How long one look stands for all: as long as somebody may wait who put a keyring back.
const STANDS: Duration = Duration::from_secs(1);
/// Most keys that are remembered.
const KEYS_MAX: usize = 4096;

#[derive(Default)]
pub(super) struct Absent(Mutex<HashMap<DataKeyId, Duration>>);

impl Absent {
    /// Whether the keyring was read for this key within the last second.
    pub(super) fn knows(&self, id: DataKeyId, now: Duration) -> bool {
        let keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(&id).is_some_and(|at| now.saturating_sub(*at) < STANDS)
    }

    pub(super) fn note(&self, id: DataKeyId, now: Duration) {
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= KEYS_MAX {
            keys.clear();
        }
        keys.insert(id, now);
    }
}
