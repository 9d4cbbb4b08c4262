//! The PIN that a token refused.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use atrest::kms::{KmsError, KmsErrorKind};

use crate::fail::fail;
use crate::secret::Secret;

/// The last PIN that was wrong, as a hash that this process alone can make. It is written and
/// looked at by whoever logs in, and not by who waits for him and may have gone.
#[derive(Debug, Default)]
pub(super) struct WrongPin {
    hash: Mutex<Option<u64>>,
    hasher: RandomState,
}

impl WrongPin {
    /// Refuses the PIN that was wrong before.
    pub(super) fn check(&self, pin: &Secret) -> Result<(), KmsError> {
        let wrong = *self.hash.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong != Some(self.hasher.hash_one(pin.expose())) {
            return Ok(());
        }
        let what = "the token refused this PIN before; trying it again could lock the token";
        Err(fail(KmsErrorKind::Unauthenticated, what))
    }

    pub(super) fn remember(&self, pin: &Secret) {
        let hash = self.hasher.hash_one(pin.expose());
        *self.hash.lock().unwrap_or_else(PoisonError::into_inner) = Some(hash);
    }
}
