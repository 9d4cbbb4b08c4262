//! How one file's body is laid out: its suite, and the parameter beside it in the header.

use super::Suite;
use super::chunks::{ChunkLen, ChunkMap};
use super::source::Source;
use super::{chunks, log};
use crate::error::{Error, ErrorKind, Result};

/// A suite with its parameter, checked: no other combination exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    Stream,
    Chunks(ChunkLen),
    Log,
}

impl Layout {
    /// The layout that two bytes of a header say.
    ///
    /// # Errors
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) for an unknown suite,
    /// [`CorruptHeader`](ErrorKind::CorruptHeader) for a parameter that does not fit it.
    pub(crate) fn parse(suite: u8, parameter: u8) -> Result<Self> {
        let known = Suite::from_number(suite).ok_or_else(|| {
            let known = Suite::ALL.map(|suite| suite.number().to_string()).join(", ");
            let what = format!("expected a suite of {known}, found {suite}");
            Error::new(ErrorKind::UnsupportedFeature, what)
        })?;
        let layout = match known {
            Suite::Aes256Ctr => (parameter == 0).then_some(Self::Stream),
            Suite::Aes256GcmChunks => ChunkLen::from_log2(parameter).map(Self::Chunks),
            Suite::Aes256GcmLog => (parameter == 0).then_some(Self::Log),
        };
        layout.ok_or_else(|| {
            Error::new(ErrorKind::CorruptHeader, "the chunk size does not fit the suite")
        })
    }

    /// The layout of a new file, with chunks of so many bytes if its suite has any.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a length that no chunk has.
    pub(crate) fn choose(suite: Suite, chunk_len: u32) -> Result<Self> {
        Ok(match suite {
            Suite::Aes256Ctr => Self::Stream,
            Suite::Aes256GcmLog => Self::Log,
            Suite::Aes256GcmChunks => Self::Chunks(ChunkLen::from_bytes(chunk_len)?),
        })
    }

    pub(crate) const fn suite(self) -> Suite {
        match self {
            Self::Stream => Suite::Aes256Ctr,
            Self::Chunks(_) => Suite::Aes256GcmChunks,
            Self::Log => Suite::Aes256GcmLog,
        }
    }

    /// The byte beside the suite's number.
    pub(crate) const fn parameter(self) -> u8 {
        match self {
            Self::Chunks(chunk) => chunk.log2(),
            Self::Stream | Self::Log => 0,
        }
    }

    /// Bytes of a full chunk, if there are chunks.
    pub(crate) const fn chunk_len(self) -> Option<u32> {
        match self {
            Self::Chunks(chunk) => Some(chunk.bytes() as u32),
            Self::Stream | Self::Log => None,
        }
    }

    /// Where the chunks of a body of this length are.
    pub(crate) fn chunk_map(self, body_len: u64) -> Result<ChunkMap> {
        ChunkMap::claimed(self.chunks()?, body_len)
    }

    pub(crate) fn chunks(self) -> Result<ChunkLen> {
        match self {
            Self::Chunks(chunk) => Ok(chunk),
            Self::Stream | Self::Log => Err(self.lacks("chunks")),
        }
    }

    pub(crate) fn check_frames(self) -> Result<()> {
        match self {
            Self::Log => Ok(()),
            Self::Stream | Self::Chunks(_) => Err(self.lacks("frames")),
        }
    }

    fn lacks(self, wanted: &str) -> Error {
        let what = format!("expected a suite with {wanted}, found {:?}", self.suite());
        Error::new(ErrorKind::UnsupportedFeature, what)
    }

    /// Whether a finished file can have a body of this length.
    pub(crate) const fn can_end_at(self, body_len: u64) -> bool {
        match self {
            Self::Stream | Self::Log => true,
            Self::Chunks(chunk) => chunk.file_len(body_len).is_some(),
        }
    }

    /// Whether a writer that was stopped before the end can have left a body of this length,
    /// if there is an end.
    pub(crate) const fn can_stop_at(self, body_len: u64) -> bool {
        match self {
            Self::Stream | Self::Log => false,
            Self::Chunks(chunk) => chunk.can_stop_at(body_len),
        }
    }

    /// Whether a finished file never changes, so that it can be read from a map.
    pub(crate) const fn can_be_mapped(self) -> bool {
        !matches!(self, Self::Log)
    }

    /// Body bytes of a finished file of so many plaintext bytes, written by so many appends.
    pub(crate) const fn body_len(self, len: u64, appends: u64) -> u64 {
        match self {
            Self::Stream => len,
            Self::Chunks(chunk) => chunk.body_len(len),
            Self::Log => log::body_len(len, appends),
        }
    }

    /// Plaintext bytes of a body of this length, where that alone tells.
    ///
    /// # Errors
    /// [`Authentication`](ErrorKind::Authentication) for a length that no file has,
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) where more has to be known.
    pub(crate) fn plaintext_len(self, body_len: u64) -> Result<u64> {
        match self {
            Self::Stream => Ok(body_len),
            Self::Chunks(chunk) => chunks::open::claimed_len(chunk, body_len),
            Self::Log => Err(self.lacks("lengths that tell that of the plaintext")),
        }
    }

    /// Plaintext bytes that a body of this length says it has, finished or not. Nothing is verified.
    pub(crate) fn claimed_len(self, body_len: u64, source: &impl Source) -> Result<u64> {
        match self {
            Self::Stream => Ok(body_len),
            Self::Chunks(chunk) => Ok(chunk.file_len(body_len).unwrap_or(body_len)),
            Self::Log => log::scan::claimed_len(body_len, source),
        }
    }
}
