//! AES-256-GCM (NIST SP 800-38D) under a counted nonce: suites 2 and 3.
//!
//! Message number `index` of a file has the nonce `nonce XOR (0^4 || BE64(index))`. An
//! index has 32 bits, so only the last four bytes of the nonce change, and the counter
//! block `nonce || BE32(counter)` is the one of [`CtrKey`] with those four bytes in the
//! upper half of its block number: the kernels of suite 1 do the encryption. GHASH is the
//! `ghash` crate's.
//!
//! The two halves are kept apart, unlike in an AEAD crate, so that a reader verifies a
//! whole message and decrypts only the bytes it was asked for, straight into its caller's
//! buffer: plaintext nobody asked for never exists.

use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use super::ctr::CtrKey;
use crate::derive::Derived;

/// Length of an authentication tag in bytes.
pub(crate) const TAG_LEN: usize = 16;

/// The key of one file in suite 2 or 3. Zeroized on drop.
pub(crate) struct GcmKey {
    ctr: CtrKey,
    /// The last four bytes of the file's nonce.
    nonce_low: u32,
    ghash: GHash,
}

/// A message whose tag was verified: the only thing that decrypts.
pub(crate) struct Verified<'a> {
    key: &'a GcmKey,
    index: u32,
    ciphertext: &'a [u8],
}

impl GcmKey {
    pub(super) fn new(derived: &Derived) -> Self {
        Self::from_parts(derived.key(), derived.nonce())
    }

    fn from_parts(key: &[u8; 32], nonce: &[u8; 12]) -> Self {
        let [high @ .., a, b, c, d] = *nonce;
        // The hash key is the encryption of the zero block.
        let mut hash_key = [0; 16];
        CtrKey::new(key, [0; 8]).apply_in_place_at_block(0, 0, &mut hash_key);
        let ghash = GHash::new(&hash_key.into());
        hash_key.zeroize();
        Self { ctr: CtrKey::new(key, high), nonce_low: u32::from_be_bytes([a, b, c, d]), ghash }
    }

    /// Runs `work`, which uses this key, so that nothing of the key is left outside of it.
    pub(super) fn scrubbed<T>(&self, work: impl FnOnce() -> T) -> T {
        self.ctr.scrubbed(work)
    }

    /// Encrypts message `index`, of at most 2^24 bytes, and returns its tag.
    ///
    /// The caller **MUST NOT** use an index twice.
    ///
    /// # Panics
    /// When the lengths differ.
    pub(crate) fn seal(
        &self,
        index: u32,
        aad: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
    ) -> [u8; TAG_LEN] {
        self.ctr.apply_at_block(self.block(index, 2), 0, plaintext, ciphertext);
        self.tag(index, aad, ciphertext)
    }

    /// Compares the tag in constant time; `None` if it is wrong.
    pub(crate) fn verify<'a>(
        &'a self,
        index: u32,
        aad: &[u8],
        ciphertext: &'a [u8],
        tag: &[u8],
    ) -> Option<Verified<'a>> {
        let same = self.tag(index, aad, ciphertext).ct_eq(tag);
        bool::from(same).then_some(Verified { key: self, index, ciphertext })
    }

    fn tag(&self, index: u32, aad: &[u8], ciphertext: &[u8]) -> [u8; TAG_LEN] {
        let mut ghash = self.ghash.clone();
        ghash.update_padded(aad);
        ghash.update_padded(ciphertext);
        let mut lengths = [0; 16];
        lengths[..8].copy_from_slice(&(aad.len() as u64 * 8).to_be_bytes());
        lengths[8..].copy_from_slice(&(ciphertext.len() as u64 * 8).to_be_bytes());
        ghash.update(&[lengths.into()]);
        let mut tag: [u8; TAG_LEN] = ghash.finalize().into();
        self.ctr.apply_in_place_at_block(self.block(index, 1), 0, &mut tag);
        tag
    }

    /// The low half of a counter block. A message has at most 2^20 blocks, so the counter
    /// never carries into the nonce.
    fn block(&self, index: u32, counter: u32) -> u64 {
        u64::from(self.nonce_low ^ index) << 32 | u64::from(counter)
    }
}

impl Verified<'_> {
    /// Decrypts `plaintext.len()` bytes from byte `skip` of the message on.
    ///
    /// # Panics
    /// Beyond the end of the message.
    pub(crate) fn decrypt(&self, skip: usize, plaintext: &mut [u8]) {
        let ciphertext = &self.ciphertext[skip..skip + plaintext.len()];
        let block = self.key.block(self.index, 2) + skip as u64 / 16;
        self.key.ctr.apply_at_block(block, skip % 16, ciphertext, plaintext);
    }
}

#[cfg(test)]
mod tests;
