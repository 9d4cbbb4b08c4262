//! Finding the frames of a log from its front, and what its end means.

use serde::Serialize;

use super::{FRAME_EXTRA, HEAD_LEN, frame_len};
use crate::error::{ErrorKind, Result};
use crate::suite::source::{Scratch, Source, read_exact};

/// Bytes that one call to the file system reads where only the lengths of frames are wanted.
const HEADS_LEN: u64 = 4 << 10;

/// A log that goes on, on disk, behind its last good frame.
///
/// A crash leaves that, an append that is under way looks like it, and so does damage: the
/// log ends where its frames stop being whole and true, whatever the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Torn {
    /// The frame that is not good, counted from 0.
    pub frame: u64,
    /// Where the log ends: the plaintext offset behind the last good frame.
    pub offset_bytes: u64,
    /// Bytes on disk behind that frame, which are not read.
    pub len_bytes: u64,
    /// What is wrong with it.
    pub reason: TornReason,
}

/// Why a log ends before its file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum TornReason {
    /// The file ends inside the frame: an append that a crash cut off or that is under way, or
    /// a damaged length that points beyond the end.
    Cut,
    /// Zeros stand where the frame would, or in a file of suite 1: room that a crash left
    /// unwritten.
    Zeros,
    /// The frame's length is none that a frame has: damage.
    Length,
    /// The frame is whole and failed its authentication: a part of it that a crash left
    /// unwritten, or damage.
    Authentication,
}

impl TornReason {
    /// Whether the end of a log that is being written looks like this now and then.
    pub const fn is_usual_while_writing(self) -> bool {
        matches!(self, Self::Cut | Self::Zeros)
    }
}

/// What stands at a body offset at which a frame may begin.
pub(super) enum Next {
    /// A frame of so many plaintext bytes, not yet verified.
    Frame(usize),
    /// The end of the file.
    End,
    Torn(TornReason),
}

/// Reads a body from front to back in large pieces.
pub(super) struct Window<'a, S> {
    source: &'a S,
    body_len: u64,
    read_len: u64,
    scratch: Scratch,
    start: u64,
    len: u64,
}

impl<'a, S: Source> Window<'a, S> {
    pub(super) fn new(source: &'a S, body_len: u64, read_len: u64) -> Self {
        Self { source, body_len, read_len, scratch: Scratch::take(), start: 0, len: 0 }
    }

    pub(super) fn next(&mut self, at: u64) -> Result<Next> {
        let rest = self.body_len - at;
        if rest == 0 {
            return Ok(Next::End);
        }
        let start = self.bytes(at, rest.min(FRAME_EXTRA as u64))?;
        let Some(head) = start.first_chunk::<HEAD_LEN>() else {
            return Ok(Next::Torn(TornReason::Cut));
        };
        Ok(match frame_len(*head) {
            Some(len) if (len + FRAME_EXTRA) as u64 <= rest => Next::Frame(len),
            Some(_) => Next::Torn(TornReason::Cut),
            None if start.iter().all(|byte| *byte == 0) => Next::Torn(TornReason::Zeros),
            None => Next::Torn(TornReason::Length),
        })
    }

    /// Adjacent frames from `at` on that one read brings: puts the plaintext lengths of those
    /// that are whole in `lens`, at least one if there is one. Tells what stands behind them,
    /// unless that takes another read.
    pub(super) fn frames(&mut self, at: u64, lens: &mut Vec<usize>) -> Result<Option<Next>> {
        lens.clear();
        let mut end = at;
        loop {
            let loaded = self.start..self.start + self.len;
            let rest = (self.body_len - end).min(FRAME_EXTRA as u64);
            if !lens.is_empty() && end + rest > loaded.end {
                return Ok(None);
            }
            let len = match self.next(end)? {
                Next::Frame(len) => len,
                other => return Ok(Some(other)),
            };
            let frame_end = end + (len + FRAME_EXTRA) as u64;
            if !lens.is_empty() && frame_end > loaded.end {
                return Ok(None);
            }
            lens.push(len);
            end = frame_end;
        }
    }

    /// Bytes that lie within the body.
    pub(super) fn bytes(&mut self, at: u64, len: u64) -> Result<&[u8]> {
        if at < self.start || at + len > self.start + self.len {
            self.len = 0;
            let read_len = self.read_len.max(len).min(self.body_len - at);
            read_exact(self.source, self.scratch.bytes(read_len as usize), at)?;
            (self.start, self.len) = (at, read_len);
        }
        let from = (at - self.start) as usize;
        Ok(&self.scratch.bytes(from + len as usize)[from..])
    }
}

/// Plaintext bytes that a log says it has; nothing is verified.
pub(in crate::suite) fn claimed_len(body_len: u64, source: &impl Source) -> Result<u64> {
    let mut window = Window::new(source, body_len, HEADS_LEN);
    let (mut at, mut total) = (0, 0);
    loop {
        match window.next(at) {
            Ok(Next::Frame(len)) => {
                at += (len + FRAME_EXTRA) as u64;
                total += len as u64;
            }
            // It became shorter since its length was asked for: no more than a hint is wanted.
            Err(error) if error.kind() == ErrorKind::Authentication => return Ok(total),
            other => return other.map(|_| total),
        }
    }
}

#[cfg(test)]
mod tests;
