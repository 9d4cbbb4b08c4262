//! What an encryptor knows beside its position and its key.

use super::chunks::ChunkSealer;
use super::layout::Layout;
use super::log::{FRAME_EXTRA, FRAME_LEN_MAX, FrameSealer};
use super::output::Output;
use super::stream;
use crate::cipher::KeySlot;
use crate::error::Result;

/// The state of one file that is being encrypted.
pub(crate) enum Sealer {
    Stream,
    Chunks(Box<ChunkSealer>),
    Log(FrameSealer),
}

/// How a writer with a buffer is to hand over plaintext.
pub(crate) enum Intake {
    /// Any number of bytes, encrypted where there is room for them.
    InPlace,
    /// Any number of bytes; `room` of them end a chunk, and each `chunk_len` behind these are one.
    /// What comes out may be none, or more than went in.
    Chunks { room: usize, chunk_len: usize },
    /// All bytes of an append at once: this many more come out. An append of more than
    /// `len_max` bytes is refused.
    Whole { extra: usize, len_max: usize },
}

impl Sealer {
    pub(crate) fn new(layout: Layout) -> Self {
        match layout {
            Layout::Stream => Self::Stream,
            Layout::Chunks(chunk) => Self::Chunks(Box::new(ChunkSealer::new(chunk))),
            Layout::Log => Self::Log(FrameSealer::default()),
        }
    }

    pub(crate) fn intake(&self) -> Intake {
        match self {
            Self::Stream => Intake::InPlace,
            Self::Chunks(chunks) => {
                Intake::Chunks { room: chunks.room(), chunk_len: chunks.chunk_len() }
            }
            Self::Log(_) => Intake::Whole { extra: FRAME_EXTRA, len_max: FRAME_LEN_MAX },
        }
    }

    /// Takes plaintext at `position` and puts out what is to be written next. After
    /// an error nothing was taken, and `out` is as it was.
    pub(crate) fn append(
        &mut self,
        slot: &KeySlot,
        position: u64,
        plaintext: &[u8],
        out: &mut Output<'_>,
    ) -> Result<()> {
        match self {
            Self::Stream => stream::append(slot, position, plaintext, out),
            Self::Chunks(chunks) => {
                chunks.check_len(position, plaintext.len())?;
                slot.with_gcm(|key| chunks.append(key, plaintext, out))
            }
            Self::Log(_) => self.append_many(slot, position, &[plaintext], out),
        }
    }

    /// Takes several appends, or none after an error. One of no bytes is none.
    pub(crate) fn append_many(
        &mut self,
        slot: &KeySlot,
        position: u64,
        appends: &[&[u8]],
        out: &mut Output<'_>,
    ) -> Result<()> {
        let Self::Log(frames) = self else {
            return self.append(slot, position, &appends.concat(), out);
        };
        let wanted = || appends.iter().filter(|append| !append.is_empty());
        frames.check_lens(position, wanted().map(|append| append.len()))?;
        if wanted().next().is_none() {
            return Ok(());
        }
        slot.with_gcm(|key| wanted().try_for_each(|append| frames.append(key, append, out)))
    }

    /// Puts out what ends a file of `len` bytes, once.
    pub(crate) fn finish(&mut self, slot: &KeySlot, len: u64, out: &mut Output<'_>) -> Result<()> {
        match self {
            Self::Stream | Self::Log(_) => Ok(()),
            Self::Chunks(chunks) => slot.with_gcm(|key| chunks.finish(key, len, out)),
        }
    }

    /// Body bytes given out so far.
    pub(crate) fn body_len(&self, position: u64) -> u64 {
        match self {
            Self::Stream => position,
            Self::Chunks(chunks) => chunks.body_len(position),
            Self::Log(frames) => frames.body_len(position),
        }
    }
}
