//! The key of one open file, and the place from which it can be withdrawn: a swap, not a
//! lock. Every use of the key passes here, and leaves nothing of it behind.

use std::sync::Arc;

use super::Decryptor;
use super::ctr::CtrKey;
use super::gcm::GcmKey;
use super::oracle::Watched;
use crate::derive::Derived;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{self, PREFIX_LEN};
use crate::ids::DataKeyId;
use crate::secret::{Secret, scrubbed, scrubbed_shortly};
use crate::suite::limits::{changes_lengths, lacks_authentication};
use crate::suite::{Cipher, Suite};
use crate::sync::ArcSwapAny;

/// The key material of one open file.
#[allow(clippy::large_enum_variant, reason = "suite 1 is to need no second allocation")]
enum FileKey {
    Ctr(CtrKey),
    /// Suites 2 and 3. Boxed, so that a file of suite 1 does not pay for the hash key.
    Gcm(Secret<GcmKey>),
}

/// A key that is on its way to its file.
pub(crate) struct SlotKey(Secret<FileKey>);

// A decryptor at rest costs at most 512 bytes in suite 1: two counters for each `Arc`.
const _: () =
    assert!(size_of::<Decryptor>() + size_of::<KeySlot>() + size_of::<FileKey>() + 32 <= 512);

impl FileKey {
    /// The key of the suite that the header's prefix names.
    fn new(prefix: &[u8; PREFIX_LEN], derived: &Derived, watched: Watched) -> Secret<Self> {
        if header::suite(prefix).map(Suite::cipher) == Some(Cipher::Gcm) {
            // Scrubbed before the enum is made: moving that copies the bytes of the larger
            // variant too, be they what the stack held.
            let key = scrubbed(|| Secret::new(GcmKey::new(derived, watched)));
            return Secret::new(Self::Gcm(key));
        }
        let nonce = derived.nonce();
        let mut fixed = [0; 8];
        fixed.copy_from_slice(&nonce[..8]);
        // The expanded key is moved into its place.
        scrubbed_shortly(|| {
            let key = Secret::new(Self::Ctr(CtrKey::new(derived.key(), fixed)));
            if let Self::Ctr(key) = &*key {
                watched.made(key);
            }
            key
        })
    }
}

/// The place where one open file keeps its key while access lasts.
pub(crate) struct KeySlot {
    /// The header's first 128 bytes: what the key is derived from again.
    pub(crate) prefix: [u8; PREFIX_LEN],
    /// Whether an encryptor holds it.
    pub(crate) writing: bool,
    key: ArcSwapAny<Option<Secret<FileKey>>>,
}

impl KeySlot {
    pub(crate) fn new(prefix: &[u8; PREFIX_LEN], derived: &Derived) -> Arc<Self> {
        Self::with_use(prefix, derived, false)
    }

    /// The key of a file that an encryptor writes.
    pub(crate) fn for_writing(prefix: &[u8; PREFIX_LEN], derived: &Derived) -> Arc<Self> {
        Self::with_use(prefix, derived, true)
    }

    fn with_use(prefix: &[u8; PREFIX_LEN], derived: &Derived, writing: bool) -> Arc<Self> {
        let key = FileKey::new(prefix, derived, Watched::new(writing));
        let key = ArcSwapAny::new(Some(key));
        Arc::new(Self { prefix: *prefix, writing, key })
    }

    /// Whether what the key encrypts is watched.
    pub(crate) fn watched(&self) -> Watched {
        Watched::new(self.writing)
    }

    /// The data key that the file's own key is derived from.
    pub(crate) fn data_key_id(&self) -> DataKeyId {
        header::data_key_id(&self.prefix)
    }

    /// Drops the key; it is zeroized when the operation in flight, if any, ends.
    pub(crate) fn withdraw(&self) {
        self.key.store(None);
    }

    /// The same key once more, to be [put back](Self::put_back).
    pub(crate) fn again(&self, derived: &Derived) -> SlotKey {
        SlotKey(FileKey::new(&self.prefix, derived, self.watched()))
    }

    /// Lets the file go on.
    pub(crate) fn put_back(&self, key: SlotKey) {
        self.key.store(Some(key.0));
    }

    /// # Errors
    /// [`CmekRevoked`](ErrorKind::CmekRevoked) if the key was withdrawn,
    /// [`Poisoned`](ErrorKind::Poisoned) in a forked child.
    pub(super) fn check(&self) -> Result<()> {
        match self.key.load().as_ref().ok_or_else(revoked)?.get()? {
            FileKey::Ctr(key) => key.check(),
            FileKey::Gcm(key) => key.get()?.check(),
        }
    }

    pub(crate) fn with_ctr(&self, use_key: impl FnOnce(&CtrKey)) -> Result<()> {
        match self.key.load().as_ref().ok_or_else(revoked)?.get()? {
            FileKey::Ctr(key) => {
                key.check()?;
                key.scrubbed(|| use_key(key));
                Ok(())
            }
            FileKey::Gcm(_) => Err(changes_lengths()),
        }
    }

    pub(crate) fn with_gcm(&self, use_key: impl FnOnce(&GcmKey) -> Result<()>) -> Result<()> {
        match self.key.load().as_ref().ok_or_else(revoked)?.get()? {
            FileKey::Gcm(key) => {
                let key = key.get()?;
                key.check()?;
                key.scrubbed(|| use_key(key))
            }
            FileKey::Ctr(_) => Err(lacks_authentication()),
        }
    }
}

pub(crate) fn revoked() -> Error {
    Error::new(ErrorKind::CmekRevoked, "access to the customer's key was withdrawn")
}

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod tests;
