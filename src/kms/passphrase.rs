//! `passphrase:`: a key from words, by Argon2id (RFC 9106).

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use argon2::{Algorithm, Argon2, Params, Version};
use zeroize::{Zeroize, Zeroizing};

use super::{Deadline, KeyUri, Kms, KmsError, KmsErrorKind, WrapContext, WrappedKey, local};
use crate::secret::{CmekParent, KEY_LEN, Secret, SlotKey};

/// RFC 9106 section 4, second recommended option: 64 MiB, 3 passes, 4 lanes.
const DEFAULT: Cost = Cost { memory_kib: 64 * 1024, passes: 3, lanes: 4 };
/// Most that a blob may ask for: the blob is read before anything is authenticated, so
/// its costs are bounded (1 GiB, 16 passes, 16 lanes).
const MAX: Cost = Cost { memory_kib: 1024 * 1024, passes: 16, lanes: 16 };
/// Three costs of 4 bytes and a salt of 16.
const PREFIX_LEN: usize = 12 + 16;
const PIECE_LEN: usize = 32;

/// The id of the process that computes a key now, or 0: a keyring that nobody authenticated yet may
/// have many slots, and each would take as much memory as [`MAX`] says. Of a parent that computed
/// one when it was forked a child finds the parent's, which is not its own.
static COMPUTING: AtomicU32 = AtomicU32::new(0);
/// How often who waits looks whether it is his turn.
const LOOK: Duration = Duration::from_millis(10);

/// The turn of one who computes.
struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        COMPUTING.store(0, Ordering::Release);
    }
}

struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// A customer's key made from a passphrase. Costs and salt are in the wrapped key.
///
/// A process computes one key at a time, of all its passphrases; who waits for longer than the
/// deadline gets [`Unreachable`](KmsErrorKind::Unreachable).
pub struct Passphrase {
    uri: KeyUri,
    /// In pieces, which keys' memory has a place for, each with its length.
    words: Vec<(Secret<[u8; PIECE_LEN]>, usize)>,
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

impl Passphrase {
    /// A provider with these words; `words` is zeroized.
    ///
    /// # Errors
    /// [`KmsErrorKind::Misconfigured`] for an empty passphrase.
    pub fn new(mut words: String) -> Result<Self, KmsError> {
        let kept: Vec<_> = words.as_bytes().chunks(PIECE_LEN).map(keep).collect();
        words.zeroize();
        let uri: KeyUri = "passphrase:".parse()?;
        if kept.is_empty() {
            let what = "expected a passphrase, found none";
            return Err(KmsError::new(KmsErrorKind::Misconfigured, what).with_key_uri(&uri));
        }
        Ok(Self { uri, words: kept })
    }

    pub(super) fn from_uri(uri: KeyUri) -> Result<Self, KmsError> {
        if !uri.rest().is_empty() {
            // Words in the URI would be stored, readable, in the keyring.
            let what = "expected nothing after passphrase:";
            return Err(KmsError::new(KmsErrorKind::Misconfigured, what));
        }
        let words = std::env::var("ATREST_PASSPHRASE").map_err(|_| {
            let what = "expected the passphrase in the variable ATREST_PASSPHRASE";
            KmsError::new(KmsErrorKind::Misconfigured, what).with_key_uri(&uri)
        })?;
        Self::new(words)
    }

    fn words(&self) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let mut words = Zeroizing::new(Vec::with_capacity(self.words.len() * PIECE_LEN));
        for (piece, len) in &self.words {
            let piece = piece.get().map_err(|source| {
                let what =
                    "a forked child has no passphrase of its parent's: make another provider";
                KmsError::new(KmsErrorKind::Misconfigured, what)
                    .with_key_uri(&self.uri)
                    .with_source(source)
            })?;
            words.extend_from_slice(&piece[..*len]);
        }
        Ok(words)
    }

    /// Waits until no other key is computed in this process, as long as the deadline lets it.
    fn turn(&self, deadline: Deadline) -> Result<Turn, KmsError> {
        let own = std::process::id();
        while !deadline.remaining().is_zero() {
            let taken = COMPUTING.fetch_update(Ordering::Acquire, Ordering::Relaxed, |other| {
                (other != own).then_some(own)
            });
            if taken.is_ok() {
                return Ok(Turn);
            }
            std::thread::sleep(LOOK.min(deadline.remaining()));
        }
        let what = "no time was left to compute the key";
        Err(KmsError::new(KmsErrorKind::Unreachable, what).with_key_uri(&self.uri))
    }

    fn parent(&self, cost: &Cost, salt: &[u8], deadline: Deadline) -> Result<CmekParent, KmsError> {
        let fail = || {
            KmsError::new(KmsErrorKind::Integrity, "the wrapped key's Argon2id costs are invalid")
                .with_key_uri(&self.uri)
        };
        let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(KEY_LEN))
            .map_err(|_| fail())?;
        let _turn = self.turn(deadline)?;
        #[cfg(test)]
        let _counted = tests::Counted::new();
        let words = self.words()?;
        let mut parent = CmekParent::zeroed();
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&words, salt, parent.bytes_mut())
            .map_err(|_| fail())?;
        Ok(parent)
    }
}

fn keep(words: &[u8]) -> (Secret<[u8; PIECE_LEN]>, usize) {
    let mut piece = Secret::new([0; PIECE_LEN]);
    piece.get_mut()[..words.len()].copy_from_slice(words);
    (piece, words.len())
}

impl Kms for Passphrase {
    fn key_uri(&self) -> &KeyUri {
        &self.uri
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        let mut blob = Vec::with_capacity(PREFIX_LEN + local::BLOB_LEN);
        for cost in [DEFAULT.memory_kib, DEFAULT.passes, DEFAULT.lanes] {
            blob.extend_from_slice(&cost.to_le_bytes());
        }
        blob.resize(PREFIX_LEN, 0);
        crate::random::fill(&mut blob[12..]).map_err(|source| {
            KmsError::new(KmsErrorKind::Misconfigured, "no randomness").with_source(source)
        })?;
        let parent = self.parent(&DEFAULT, &blob[12..], deadline)?;
        let sealed = local::wrap(&parent, key, context).map_err(|e| e.with_key_uri(&self.uri))?;
        blob.extend_from_slice(&sealed);
        Ok(WrappedKey { key_version: String::new(), blob })
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        let refuse =
            |what: &str| KmsError::new(KmsErrorKind::Integrity, what).with_key_uri(&self.uri);
        let Some((prefix, sealed)) = wrapped.blob.split_at_checked(PREFIX_LEN) else {
            return Err(refuse("expected a wrapped key of 108 bytes"));
        };
        let word = |at: usize| {
            u32::from_le_bytes([prefix[at], prefix[at + 1], prefix[at + 2], prefix[at + 3]])
        };
        let cost = Cost { memory_kib: word(0), passes: word(4), lanes: word(8) };
        if cost.memory_kib > MAX.memory_kib || cost.passes > MAX.passes || cost.lanes > MAX.lanes {
            return Err(refuse("the wrapped key asks for excessive Argon2id costs"));
        }
        let parent = self.parent(&cost, &prefix[12..], deadline)?;
        local::unwrap(&parent, sealed, context).map_err(|e| e.with_key_uri(&self.uri))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::ids::{SlotKeyId, StoreId};
    use crate::process::tests::in_forked_child;

    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    static EVER: AtomicUsize = AtomicUsize::new(0);

    /// One key that is being computed.
    pub(super) struct Counted;

    impl Counted {
        pub(super) fn new() -> Self {
            EVER.fetch_add(1, Ordering::SeqCst);
            MOST.fetch_max(NOW.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            Self
        }
    }

    impl Drop for Counted {
        fn drop(&mut self) {
            NOW.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// What a keyring that nobody authenticated may ask for.
    fn unwrap(deadline: Deadline) -> KmsErrorKind {
        let costs = [16 * 1024_u32, 2, 1].map(u32::to_le_bytes).concat();
        let blob = [costs, vec![7; 16 + local::BLOB_LEN]].concat();
        let wrapped = WrappedKey { key_version: String::new(), blob };
        let (store_id, slot_key_id) =
            (StoreId::from_bytes([1; 16]), SlotKeyId::from_bytes([2; 16]));
        let context = WrapContext { store_id, slot_key_id, version: WrapContext::VERSION };
        let kms = Passphrase::new("correct horse".into()).unwrap();
        kms.unwrap(&wrapped, &context, deadline).map(drop).unwrap_err().kind()
    }

    #[test]
    fn keys_are_computed_one_after_the_other_and_none_too_late() {
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    let refused = unwrap(Deadline::after(Duration::from_secs(60)));
                    assert_eq!(refused, KmsErrorKind::Integrity);
                });
            }
        });
        assert_eq!(MOST.load(Ordering::SeqCst), 1);
        // Who waited for longer than he has does not begin.
        let kms = Passphrase::new("correct horse".into()).unwrap();
        let soon = || Deadline::after(Duration::from_millis(30));
        let (turn, before) = (kms.turn(soon()).unwrap(), EVER.load(Ordering::SeqCst));
        let refused = unwrap(soon());
        assert_eq!((refused, EVER.load(Ordering::SeqCst)), (KmsErrorKind::Unreachable, before));
        // The turn of a parent is none of its child's.
        assert!(in_forked_child(|| kms.turn(soon()).is_ok()));
        drop(turn);
    }

    #[test]
    fn a_forked_child_is_told_that_it_has_no_passphrase() {
        let kms = Passphrase::new("correct horse battery staple".into()).unwrap();
        assert!(in_forked_child(|| {
            let refused = kms.words().map(drop).unwrap_err();
            refused.kind() == KmsErrorKind::Misconfigured && refused.to_string().contains("forked")
        }));
        assert_eq!(kms.words().unwrap().as_slice(), b"correct horse battery staple");
    }
}
