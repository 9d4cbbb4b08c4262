//! AES-256-GCM (NIST SP 800-38D) under a counted nonce: suites 2 and 3.
//!
//! Message number `index` of a file has the nonce `nonce XOR (0^4 || BE64(index))`. An
//! index has 32 bits, so only the last four bytes of the nonce change, and the counter
//! block `nonce || BE32(counter)` is the one of [`CtrKey`] with those four bytes in the
//! upper half of its block number: both ciphers have one key schedule.
//!
//! On x86-64 and aarch64 the kernels of `native` encrypt and hash in one pass; elsewhere, and on machines
//! without the instructions, `portable` does. All produce the same bytes.
//!
//! A reader verifies a whole message and decrypts only the bytes it was asked for, straight
//! into its caller's buffer: plaintext that nobody asked for never exists, and none that was
//! not verified is left there. Each byte of ciphertext is loaded once, so that what is
//! decrypted is what was verified, even in memory that somebody else can write to.

// `danger-internals` exports these items; without it some are neither reachable nor used.
#![cfg_attr(not(feature = "danger-internals"), allow(unreachable_pub, dead_code))]

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod native;
mod portable;

#[cfg(test)]
mod tests;

use ghash::GHash;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::ctr::{CtrKey, Width};
use super::oracle::Watched;
use crate::derive::Derived;
use crate::error::Result;
#[cfg(target_arch = "x86_64")]
use crate::secret::scrubbed_shortly;
use crate::secret::{Secret, scrubbed};

/// Length of an authentication tag in bytes.
pub(crate) const TAG_LEN: usize = 16;

/// The key of one file in suite 2 or 3. Zeroized on drop.
pub struct GcmKey {
    ctr: CtrKey,
    /// The last four bytes of the file's nonce.
    nonce_low: u32,
    hash: Hash,
    watched: Watched,
}

enum Hash {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    Native(Secret<native::Powers>),
    Portable(Secret<GHash>),
}

impl GcmKey {
    pub(super) fn new(derived: &Derived, watched: Watched) -> Self {
        let mut key = Self::from_parts(derived.key(), derived.nonce());
        key.watch(watched);
        key
    }

    pub(super) fn watch(&mut self, watched: Watched) {
        self.watched = watched;
        watched.made(&self.ctr);
    }

    /// For the width that suits this machine.
    #[must_use]
    pub fn from_parts(key: &[u8; 32], nonce: &[u8; 12]) -> Self {
        let (high, low) = split(nonce);
        Self::from_ctr(key, CtrKey::new(key, high), low)
    }

    /// For one width of [`CtrKey`]; `None` where the machine lacks it.
    #[must_use]
    pub fn with_width(key: &[u8; 32], nonce: &[u8; 12], width: Width) -> Option<Self> {
        let (high, low) = split(nonce);
        Some(Self::from_ctr(key, CtrKey::with_width(key, high, width)?, low))
    }

    fn from_ctr(key: &[u8; 32], ctr: CtrKey, nonce_low: u32) -> Self {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        if let Some(powers) = ctr.native().and_then(native::Powers::new) {
            let (hash, watched) = (Hash::Native(powers), Watched::new(false));
            return Self { ctr, nonce_low, hash, watched };
        }
        let hash = Hash::Portable(Secret::new(portable::hash_key(key, ctr.width())));
        Self { ctr, nonce_low, hash, watched: Watched::new(false) }
    }

    /// Whether a fork emptied nothing of it, as [`CtrKey::check`] asks.
    ///
    /// # Errors
    /// [`Poisoned`](crate::ErrorKind::Poisoned).
    #[inline]
    pub(super) fn check(&self) -> Result<()> {
        self.ctr.check()?;
        match &self.hash {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Hash::Native(powers) => powers.get().map(drop),
            Hash::Portable(hash) => hash.get().map(drop),
        }
    }

    /// Runs `work`, which uses this key, so that nothing of the key is left outside of it.
    #[inline]
    pub(super) fn scrubbed<T>(&self, work: impl FnOnce() -> T) -> T {
        match self.hash {
            #[cfg(target_arch = "x86_64")]
            Hash::Native(_) => scrubbed_shortly(work),
            _ => scrubbed(work),
        }
    }

    /// Encrypts message `index`, of at most 2^24 bytes, and returns its tag.
    ///
    /// The caller **MUST NOT** use an index twice.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn seal(
        &self,
        index: u32,
        aad: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
    ) -> [u8; TAG_LEN] {
        let block = self.first_block(index);
        self.watched.encrypts_message(&self.ctr, block, plaintext.len());
        match &self.hash {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Hash::Native(powers) => {
                powers.seal(self.round_keys(), block, aad, plaintext, ciphertext)
            }
            Hash::Portable(hash) => {
                portable::seal(&self.ctr, hash, block, aad, plaintext, ciphertext)
            }
        }
    }

    /// Verifies message `index` and decrypts `plaintext.len()` bytes from its byte `skip`
    /// on. Compares the tag in constant time; `false`, and zeros in `plaintext`, if it is
    /// wrong.
    ///
    /// # Panics
    /// Beyond the end of the message.
    #[must_use]
    pub fn open(
        &self,
        index: u32,
        aad: &[u8],
        ciphertext: &[u8],
        tag: &[u8],
        skip: usize,
        plaintext: &mut [u8],
    ) -> bool {
        let block = self.first_block(index);
        let found = match &self.hash {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Hash::Native(powers) => {
                powers.open(self.round_keys(), block, aad, ciphertext, skip, plaintext)
            }
            Hash::Portable(hash) => {
                portable::open(&self.ctr, hash, block, aad, ciphertext, skip, plaintext)
            }
        };
        is_tag(found, tag, plaintext)
    }

    /// [`open`](Self::open) of a whole message where it stands.
    #[must_use]
    pub fn open_in_place(&self, index: u32, aad: &[u8], buf: &mut [u8], tag: &[u8]) -> bool {
        let block = self.first_block(index);
        let found = match &self.hash {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Hash::Native(powers) => powers.open_in_place(self.round_keys(), block, aad, buf),
            Hash::Portable(hash) => portable::open_in_place(&self.ctr, hash, block, aad, buf),
        };
        is_tag(found, tag, buf)
    }

    /// Whether the tag is that of message `index`.
    #[must_use]
    pub fn verify(&self, index: u32, aad: &[u8], ciphertext: &[u8], tag: &[u8]) -> bool {
        self.open(index, aad, ciphertext, tag, 0, &mut [])
    }

    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    fn round_keys(&self) -> &super::ctr::native::RoundKeys {
        // OK because the powers were made from them.
        self.ctr.native().expect("round keys where there are powers")
    }

    /// The low half of J0, the first counter block. A message has at most 2^20 blocks, so
    /// the counter never carries into the nonce.
    fn first_block(&self, index: u32) -> u64 {
        u64::from(self.nonce_low ^ index) << 32 | 1
    }
}

/// Runs as many AES rounds and carry-less multiplications as sealing `blocks` blocks takes, on
/// registers alone: the ceiling that benchmarks compare with. `None` where the machine lacks
/// the width, and for the portable one.
#[must_use]
pub fn limit(width: Width, blocks: u64) -> Option<u64> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    return native::limit(width, blocks);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = (width, blocks);
        None
    }
}

/// Tells the processor that these bytes will be read soon. A hint: nothing is read here.
#[inline]
pub(crate) fn will_read<T: ?Sized>(bytes: &T) {
    #[cfg(target_arch = "x86_64")]
    native::prefetch(std::ptr::from_ref(bytes).cast(), size_of_val(bytes));
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// Whether the tag that was found is the right one; if not, the plaintext is wiped.
fn is_tag(found: [u8; TAG_LEN], tag: &[u8], plaintext: &mut [u8]) -> bool {
    // As one number, not byte by byte.
    let same = <[u8; TAG_LEN]>::try_from(tag)
        .is_ok_and(|tag| u128::from_ne_bytes(found).ct_eq(&u128::from_ne_bytes(tag)).into());
    if !same {
        plaintext.zeroize();
    }
    same
}

fn split(nonce: &[u8; 12]) -> ([u8; 8], u32) {
    let [high @ .., a, b, c, d] = *nonce;
    (high, u32::from_be_bytes([a, b, c, d]))
}
