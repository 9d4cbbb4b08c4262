//! What a simulation needs so that a run follows from its seed. In a product it voids every
//! guarantee of this crate.

use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

/// The seed, and how much was taken.
static STREAM: Mutex<Option<([u8; 32], u64)>> = Mutex::new(None);

/// From now on everything random in this process follows from `seed`, or comes from the
/// operating system again with `None`.
pub fn seed_randomness(seed: Option<&[u8]>) {
    let stream = seed.map(|seed| (Sha256::digest(seed).into(), 0));
    *STREAM.lock().unwrap_or_else(PoisonError::into_inner) = stream;
}

/// Fills `bytes`, if there is a seed.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    let mut stream = STREAM.lock().unwrap_or_else(PoisonError::into_inner);
    let Some((seed, taken)) = stream.as_mut() else { return false };
    for piece in bytes.chunks_mut(32) {
        let block = Sha256::new().chain_update(*seed).chain_update(taken.to_le_bytes()).finalize();
        piece.copy_from_slice(&block[..piece.len()]);
        *taken += 1;
    }
    true
}
