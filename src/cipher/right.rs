//! Whether a width computes on this machine what the standards say.
//!
//! Emulated processors get vector instructions wrong (QEMU 7.2 the 256-bit AES round). What was
//! encrypted there nobody else could read, and in suite 1 nobody would be told.

use sha2::{Digest, Sha256};

use super::ctr::{CtrKey, Width};
use super::gcm::GcmKey;

/// SHA-256 of what [`computed`] makes, as OpenSSL computes it.
const EXPECTED: &str = "a2a7cccd760b08fcc5ccda0ac162609d8f7024b708eef6110eb4855beb9cee83";

/// Lengths in bytes that take a kernel through its loops, groups, single vectors and parts.
const LENS: [usize; 4] = [1, 100, 1040, 4133];

/// True for a width that this machine has and that gives the expected bytes.
pub(super) fn is_right(width: Width) -> bool {
    computed(width).is_some_and(|found| found == EXPECTED)
}

/// A hash of all that the width's kernels do with a known key: `None` where the machine lacks it.
fn computed(width: Width) -> Option<String> {
    let key: [u8; 32] = std::array::from_fn(|i| i as u8);
    let nonce: [u8; 12] = std::array::from_fn(|i| 0xf0 | i as u8);
    let ctr = CtrKey::with_width(&key, *nonce.first_chunk()?, width)?;
    let gcm = GcmKey::with_width(&key, &nonce, width)?;
    let mut hash = Sha256::new();
    let (mut plaintext, mut ciphertext) = (vec![0; LENS[3]], vec![0; LENS[3]]);
    for (index, len) in (0..).zip(LENS) {
        let (plaintext, ciphertext) = (&mut plaintext[..len], &mut ciphertext[..len]);
        ctr.apply_in_place(0xffff_fff5, plaintext);
        let tag = gcm.seal(index, &nonce, plaintext, ciphertext);
        hash.update(tag);
        hash.update(&*ciphertext);
        ctr.apply(3, ciphertext, plaintext);
        hash.update(&*plaintext);
        hash.update([u8::from(gcm.open_in_place(index, &nonce, ciphertext, &tag))]);
        hash.update(&*ciphertext);
    }
    Some(crate::hex::encode(&hash.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_width_of_this_machine_is_right() {
        for width in Width::available() {
            assert_eq!(computed(width).as_deref(), Some(EXPECTED), "{width:?}");
        }
    }
}
