//! GCM from parts, where the kernels of `native` cannot run: [`CtrKey`] encrypts, in whatever width
//! the machine has, and the `ghash` crate hashes.

use ghash::GHash;
use ghash::universal_hash::UniversalHash;
use zeroize::Zeroize;

use super::TAG_LEN;
use crate::cipher::ctr::{CtrKey, Width};

/// Ciphertext that is copied, hashed and decrypted in one go.
const PIECE_LEN: usize = 1 << 10;

/// The hash key: the encryption of the zero block, in a width that this machine has.
pub(super) fn hash_key(key: &[u8; 32], width: Width) -> GHash {
    let mut block = [0; TAG_LEN];
    // OK because the caller has a key of that width.
    let ctr = CtrKey::with_width(key, [0; 8], width).expect("the width of another key");
    ctr.apply_in_place_at_block(0, 0, &mut block);
    let hash = GHash::new(&block.into());
    block.zeroize();
    hash
}

/// Encrypts, and returns the tag; `block` is the low half of the counter block J0.
pub(super) fn seal(
    ctr: &CtrKey,
    hash: &GHash,
    block: u64,
    aad: &[u8],
    plaintext: &[u8],
    ciphertext: &mut [u8],
) -> [u8; TAG_LEN] {
    ctr.apply_at_block(block + 1, 0, plaintext, ciphertext);
    let mut hash = hash.clone();
    hash.update_padded(aad);
    hash.update_padded(ciphertext);
    tag(ctr, hash, block, [aad.len(), ciphertext.len()])
}

/// Decrypts `plaintext.len()` bytes from byte `skip` on, and returns the tag of the whole.
pub(super) fn open(
    ctr: &CtrKey,
    hash: &GHash,
    block: u64,
    aad: &[u8],
    ciphertext: &[u8],
    skip: usize,
    plaintext: &mut [u8],
) -> [u8; TAG_LEN] {
    let end = skip + plaintext.len();
    assert!(end <= ciphertext.len(), "a range beyond the end of the message");
    let mut hash = hash.clone();
    hash.update_padded(aad);
    // By way of a copy: what is decrypted is then what was hashed, even if the memory changes.
    let mut copy = [0; PIECE_LEN];
    for (i, piece) in ciphertext.chunks(PIECE_LEN).enumerate() {
        let copy = &mut copy[..piece.len()];
        copy.copy_from_slice(piece);
        // So that the compiler cannot read the original instead.
        let copy: &mut [u8] = std::hint::black_box(copy);
        hash.update_padded(copy);
        let start = i * PIECE_LEN;
        let (from, to) = (skip.max(start), end.min(start + piece.len()));
        if from < to {
            let wanted = &copy[from - start..to - start];
            let at = block + 1 + from as u64 / 16;
            ctr.apply_at_block(at, from % 16, wanted, &mut plaintext[from - skip..to - skip]);
        }
    }
    tag(ctr, hash, block, [aad.len(), ciphertext.len()])
}

/// [`open`] of a whole message where it stands.
pub(super) fn open_in_place(
    ctr: &CtrKey,
    hash: &GHash,
    block: u64,
    aad: &[u8],
    buf: &mut [u8],
) -> [u8; TAG_LEN] {
    let mut hash = hash.clone();
    hash.update_padded(aad);
    // The caller's own memory, which nobody else writes to.
    hash.update_padded(buf);
    ctr.apply_in_place_at_block(block + 1, 0, buf);
    tag(ctr, hash, block, [aad.len(), buf.len()])
}

fn tag(ctr: &CtrKey, mut hash: GHash, block: u64, lens: [usize; 2]) -> [u8; TAG_LEN] {
    let mut lengths = [0; 16];
    for (field, len) in lengths.chunks_exact_mut(8).zip(lens) {
        field.copy_from_slice(&(len as u64 * 8).to_be_bytes());
    }
    hash.update(&[lengths.into()]);
    let mut tag: [u8; TAG_LEN] = hash.finalize().into();
    ctr.apply_in_place_at_block(block, 0, &mut tag);
    tag
}
