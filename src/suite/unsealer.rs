//! What a reader knows of a file: proven at opening, and grown with a log.

use std::sync::Arc;

use super::Suite;
use super::chunks::open::Chunks;
use super::layout::Layout;
use super::log::Torn;
use super::log::open::Log;
use super::source::Source;
use super::stream::{self, Stream};
use crate::cipher::KeySlot;
use crate::error::{Error, ErrorKind, Result};

/// An open body. What it has verified it does not forget; what it reads it verifies again.
pub(crate) enum Unsealer {
    Stream(Stream),
    Chunks(Chunks),
    Log(Box<Log>),
}

impl Unsealer {
    /// Reads and verifies what the suite asks for before a byte is given out.
    pub(crate) fn open(layout: Layout, slot: Arc<KeySlot>, source: &impl Source) -> Result<Self> {
        Ok(match layout {
            Layout::Stream => Self::Stream(Stream::open(slot, source)?),
            Layout::Chunks(chunk) => Self::Chunks(Chunks::open(chunk, slot, source)?),
            Layout::Log => Self::Log(Box::new(Log::open(slot, source)?)),
        })
    }

    pub(crate) const fn suite(&self) -> Suite {
        match self {
            Self::Stream(_) => Suite::Aes256Ctr,
            Self::Chunks(_) => Suite::Aes256GcmChunks,
            Self::Log(_) => Suite::Aes256GcmLog,
        }
    }

    /// Plaintext bytes now.
    pub(crate) fn len(&self, source: &impl Source) -> Result<u64> {
        match self {
            Self::Stream(_) => source.body_len(),
            Self::Chunks(chunks) => Ok(chunks.len()),
            Self::Log(log) => log.len(source),
        }
    }

    /// Fills `buf` as far as the file goes; returns how many bytes. What is in `buf` after an
    /// error may be ciphertext where the suite does not authenticate.
    #[inline]
    pub(crate) fn read_at(
        &self,
        source: &impl Source,
        buf: &mut [u8],
        offset_bytes: u64,
    ) -> Result<usize> {
        match self {
            Self::Stream(stream) => stream.read_at(source, buf, offset_bytes),
            Self::Chunks(chunks) => chunks.read_at(source, buf, offset_bytes),
            Self::Log(log) => log.read_at(source, buf, offset_bytes),
        }
    }

    /// The same for who reads all from the front, `buf` by `buf` of a multiple of 16 bytes: ends
    /// in front of the first part that nobody wrote, as far as the body tells, and then says so.
    pub(crate) fn read_written(
        &self,
        source: &impl Source,
        buf: &mut [u8],
        offset_bytes: u64,
    ) -> Result<(usize, bool)> {
        match self {
            Self::Stream(stream) => stream.read_written(source, buf, offset_bytes),
            // No other bytes than written ones are good.
            Self::Chunks(_) | Self::Log(_) => {
                self.read_at(source, buf, offset_bytes).map(|read| (read, false))
            }
        }
    }

    /// Decrypts the first `start.len()` bytes of the body, which were read together with the
    /// header, into as many of `buf`. `None` if this suite cannot use them.
    pub(crate) fn read_start(&self, start: &[u8], buf: &mut [u8]) -> Option<Result<()>> {
        match self {
            Self::Stream(stream) => Some(stream::apply(&stream.slot, 0, start, buf)),
            Self::Chunks(_) | Self::Log(_) => None,
        }
    }

    /// Where in the body the bytes at a logical offset are, roughly: for hints.
    pub(crate) fn physical(&self, offset_bytes: u64) -> u64 {
        match self {
            Self::Stream(_) => offset_bytes,
            Self::Chunks(chunks) => chunks.physical(offset_bytes),
            Self::Log(log) => log.physical_at(offset_bytes),
        }
    }

    /// What is behind the last good byte, if anything is.
    pub(crate) fn torn(&self) -> Option<Torn> {
        match self {
            Self::Log(log) => log.torn(),
            Self::Stream(_) | Self::Chunks(_) => None,
        }
    }

    /// Up to where all was written, as far as the body tells.
    pub(crate) fn written_len(&self, source: &impl Source) -> Result<u64> {
        match self {
            Self::Stream(stream) => stream.written_len(source),
            // No other bytes than written ones are good.
            Self::Chunks(_) | Self::Log(_) => self.len(source),
        }
    }

    /// How many appends the file is known to be made of now.
    pub(crate) fn append_count(&self, source: &impl Source) -> Result<u64> {
        self.log()?.frame_count(source)
    }

    /// The plaintext offset behind an append that is known to be there.
    pub(crate) fn append_end(&self, number: u64) -> Option<u64> {
        self.log().ok()?.frame_end(number)
    }

    /// Puts the plaintext of an append in `plaintext`; false if there is no such one yet.
    pub(crate) fn read_append(
        &self,
        source: &impl Source,
        number: u64,
        plaintext: &mut Vec<u8>,
    ) -> Result<bool> {
        self.log()?.read_frame(source, number, plaintext)
    }

    fn log(&self) -> Result<&Log> {
        match self {
            Self::Log(log) => Ok(log),
            Self::Stream(_) | Self::Chunks(_) => {
                let what = format!("expected a suite with frames, found {:?}", self.suite());
                Err(Error::new(ErrorKind::UnsupportedFeature, what))
            }
        }
    }
}

impl std::fmt::Debug for Unsealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unsealer").field("suite", &self.suite()).finish_non_exhaustive()
    }
}
