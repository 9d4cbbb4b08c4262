//! Suite 1: a stream of AES-256-CTR (`docs/FORMAT.md`, section 3).
//!
//! Byte `i` of the plaintext is byte `i` of the body, so both directions work where the bytes
//! stand, and nothing needs to be known beside the position.

use std::sync::Arc;

use super::limits::{BODY_LEN_MAX, too_large};
use super::output::Output;
use super::source::{Scratch, Source, mapped_part, will_read_mapped};
use crate::cipher::KeySlot;
use crate::error::{Error, ErrorKind, Result};

/// Bytes that are made room for and encrypted in one go: they stay in the first cache.
const PIECE_LEN: usize = 16 << 10;
/// The cipher's blocks.
const BLOCK_LEN: usize = 16;
/// Whole blocks that are read at a time to look for one that nobody wrote.
const SEARCHED_AT_ONCE: usize = 256 << 10;

/// Encrypts or decrypts the bytes of a file at `position`, where they stand.
#[inline]
pub(crate) fn apply_in_place(slot: &KeySlot, position: u64, buf: &mut [u8]) -> Result<()> {
    check(position, buf.len())?;
    slot.with_ctr(|key| {
        slot.watched().encrypts_bytes(key, position, buf.len());
        key.apply_in_place(position, buf);
    })
}

/// The same from one buffer into another of its length, in one pass.
#[inline]
pub(crate) fn apply(slot: &KeySlot, position: u64, from: &[u8], to: &mut [u8]) -> Result<()> {
    if from.len() != to.len() {
        let (from, to) = (from.len(), to.len());
        let what = format!("expected two buffers of one length, found {from} and {to}");
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    check(position, from.len())?;
    slot.with_ctr(|key| {
        slot.watched().encrypts_bytes(key, position, from.len());
        key.apply(position, from, to);
    })
}

/// Encrypts and puts out.
pub(super) fn append(
    slot: &KeySlot,
    position: u64,
    plaintext: &[u8],
    out: &mut Output<'_>,
) -> Result<()> {
    check(position, plaintext.len())?;
    let mut at = position;
    slot.with_ctr(|key| {
        slot.watched().encrypts_bytes(key, position, plaintext.len());
        out.reserve(plaintext.len());
        for piece in plaintext.chunks(PIECE_LEN) {
            key.apply(at, piece, out.room(piece.len()));
            at += piece.len() as u64;
        }
    })
}

#[inline]
fn check(position: u64, len: usize) -> Result<()> {
    match position.checked_add(len as u64) {
        Some(end) if end <= BODY_LEN_MAX => Ok(()),
        _ => Err(too_large(format!(
            "expected at most {BODY_LEN_MAX} bytes in a file, found {len} at {position}"
        ))),
    }
}

/// An open file.
pub(crate) struct Stream {
    pub(super) slot: Arc<KeySlot>,
}

impl Stream {
    /// Refuses a body that is longer than any.
    pub(super) fn open(slot: Arc<KeySlot>, source: &impl Source) -> Result<Self> {
        check(source.opened_len()?, 0)?;
        Ok(Self { slot })
    }

    /// One read into the caller's buffer, decrypted there, or decryption from a map into it. No
    /// allocation, no lock.
    #[inline]
    pub(super) fn read_at(
        &self,
        source: &impl Source,
        buf: &mut [u8],
        offset_bytes: u64,
    ) -> Result<usize> {
        let end = offset_bytes.saturating_add(buf.len() as u64);
        if let Some(mapped) = mapped_part(source, offset_bytes..end).filter(|it| !it.is_empty()) {
            will_read_mapped(mapped);
            apply(&self.slot, offset_bytes, mapped, buf)?;
            return Ok(buf.len());
        }
        let read = source.read(buf, offset_bytes)?;
        apply_in_place(&self.slot, offset_bytes, &mut buf[..read])?;
        Ok(read)
    }

    /// Reads, from a multiple of 16 on, up to the first block that nobody wrote, and tells
    /// whether there is one. Past any map: there a byte is for the cipher alone to read.
    pub(super) fn read_written(
        &self,
        source: &impl Source,
        buf: &mut [u8],
        offset_bytes: u64,
    ) -> Result<(usize, bool)> {
        let read = source.read(buf, offset_bytes)?;
        let unwritten = first_zeros(&buf[..read]).map(|block| block * BLOCK_LEN);
        let written = unwritten.unwrap_or(read);
        apply_in_place(&self.slot, offset_bytes, &mut buf[..written])?;
        Ok((written, unwritten.is_some()))
    }

    /// Where the first block begins that nobody wrote, or the end.
    pub(super) fn written_len(&self, source: &impl Source) -> Result<u64> {
        let mut scratch = Scratch::take();
        let piece = scratch.bytes(SEARCHED_AT_ONCE);
        let mut at = 0;
        loop {
            let read = source.read(piece, at)?;
            if let Some(block) = first_zeros(&piece[..read]) {
                return Ok(at + (block * BLOCK_LEN) as u64);
            }
            at += read as u64;
            if read < piece.len() {
                return Ok(at);
            }
        }
    }
}

/// The first whole block of zeros.
fn first_zeros(ciphertext: &[u8]) -> Option<usize> {
    ciphertext.chunks_exact(BLOCK_LEN).position(|block| block == [0; BLOCK_LEN])
}
