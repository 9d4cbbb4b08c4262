//! A fingerprint of a file's plaintext, to compare what was read with what reads back.

use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use zeroize::Zeroizing;

use crate::error::Result;

/// Keys the fingerprints of one file: random, told to nobody.
pub(super) struct FingerprintKey(Zeroizing<[u8; 16]>);

impl FingerprintKey {
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) if the system has no randomness.
    pub(super) fn random() -> Result<Self> {
        let mut key = Zeroizing::new([0; 16]);
        crate::random::fill(&mut key[..])?;
        Ok(Self(key))
    }
}

/// A fingerprint, and the number of bytes it is of.
pub(super) type Print = ([u8; 16], u64);

/// GHASH (NIST SP 800-38D section 6.4) under a random key. Two contents of up to 2^44
/// bytes that were not made with the key in hand have one fingerprint with a chance below
/// 2^-87; it costs a fraction of a hash that would hold without a key.
pub(super) struct Fingerprint {
    hash: GHash,
    len: u64,
}

impl Fingerprint {
    pub(super) fn new(key: &FingerprintKey) -> Self {
        Self { hash: GHash::new(&(*key.0).into()), len: 0 }
    }

    /// Takes the next bytes. All calls but the last **MUST** bring a multiple of 16.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.hash.update_padded(bytes);
        self.len += bytes.len() as u64;
    }

    /// Takes the next piece of a file: an append of any length, with where it ends, or bytes
    /// as [`update`](Self::update) takes them.
    pub(super) fn take(&mut self, piece: &[u8], by_append: bool) {
        if by_append {
            self.update(&(piece.len() as u128).to_le_bytes());
        }
        self.update(piece);
    }

    /// The fingerprint and the number of bytes.
    pub(super) fn finish(mut self) -> Print {
        let mut block = [0; 16];
        block[..8].copy_from_slice(&self.len.to_le_bytes());
        self.hash.update_padded(&block);
        (self.hash.finalize().into(), self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bytes: &[u8]) -> ([u8; 16], u64) {
        let mut fingerprint = Fingerprint::new(&FingerprintKey(Zeroizing::new([7; 16])));
        bytes.chunks(32).for_each(|piece| fingerprint.update(piece));
        fingerprint.finish()
    }

    #[test]
    #[allow(clippy::unwrap_used)]
    fn every_difference_shows() {
        let bytes: Vec<u8> = (0..100).collect();
        assert_eq!(of(&bytes), of(&bytes));
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            assert_ne!(of(&other), of(&bytes));
            assert_ne!(of(&bytes[..at]), of(&bytes));
        }
        let appended = |lens: &[usize]| {
            let mut fingerprint = Fingerprint::new(&FingerprintKey(Zeroizing::new([7; 16])));
            lens.iter().for_each(|len| fingerprint.take(&[0; 40][..*len], true));
            fingerprint.finish()
        };
        assert_ne!(appended(&[10, 20]), appended(&[20, 10]));
        assert_ne!(appended(&[16, 16]), appended(&[32]));
        // Zeros at the end are not padding.
        assert_ne!(of(&[0; 15]), of(&[0; 16]));
        let mut random = Fingerprint::new(&FingerprintKey::random().unwrap());
        random.update(&bytes);
        assert_ne!(random.finish(), of(&bytes));
    }
}
