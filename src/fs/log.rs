//! Reading a log of suite 3: frames found and verified once at opening, and again whenever
//! they are read.

use std::sync::{Mutex, PoisonError};

use super::frame_index::FrameIndex;
use super::scratch::{Scratch, read_exact};
use crate::cipher::log::{FRAME_EXTRA, FRAME_HEAD_LEN, frame_len};
use crate::cipher::{Decryptor, authentication};
use crate::error::{Error, Result};
use crate::header::HEADER_LEN;
use crate::vfs::ReadFile;

/// Bytes that one call to the file system reads, if a frame is not longer.
const BATCH_LEN: u64 = 256 << 10;
/// The same where only the lengths of frames are wanted.
const HEADS_LEN: u64 = 4 << 10;

/// A log that ends inside a frame: a crash, or an append that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Torn {
    /// The frame that is not whole, counted from 0.
    pub frame: u64,
    /// Where the log ends: the plaintext offset behind the last whole frame.
    pub offset_bytes: u64,
    /// Bytes on disk behind that frame, which are not read.
    pub len_bytes: u64,
}

/// An open log.
#[derive(Debug)]
pub(super) struct Log {
    decryptor: Decryptor,
    index: FrameIndex,
    /// Held while looking for frames at the end, never to read a frame that is known.
    torn: Mutex<Option<Torn>>,
}

impl Log {
    /// Reads the whole log and verifies every frame.
    pub(super) fn open(file: &dyn ReadFile, decryptor: Decryptor) -> Result<Self> {
        let log = Self { decryptor, index: FrameIndex::new(), torn: Mutex::default() };
        log.extend(file)?;
        Ok(log)
    }

    pub(super) fn decryptor(&self) -> &Decryptor {
        &self.decryptor
    }

    /// What was at the end when it was last looked at.
    pub(super) fn torn(&self) -> Option<Torn> {
        *self.torn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn len(&self, file: &dyn ReadFile) -> Result<u64> {
        self.extend(file)?;
        Ok(self.index.start(self.index.len()))
    }

    pub(super) fn frame_count(&self, file: &dyn ReadFile) -> Result<u64> {
        self.extend(file)?;
        Ok(self.index.len() as u64)
    }

    /// Looks for whole frames behind those known, and verifies them.
    fn extend(&self, file: &dyn ReadFile) -> Result<()> {
        let mut torn = self.torn.lock().unwrap_or_else(PoisonError::into_inner);
        let body_len = body_len(file)?;
        let mut count = self.index.len();
        let mut end = self.index.start(count);
        if body_len < self.physical(count) {
            return Err(authentication("the log became shorter while it was open"));
        }
        let mut window = Window::new(file, body_len, BATCH_LEN);
        while let Some(len) = window.whole_frame(self.physical(count))? {
            let frame = window.bytes(self.physical(count), (len + FRAME_EXTRA) as u64)?;
            self.decryptor.verify_frame(count as u64, frame)?;
            end += len as u64;
            self.index.push(end);
            count += 1;
        }
        let len_bytes = body_len - self.physical(count);
        *torn =
            (len_bytes > 0).then_some(Torn { frame: count as u64, offset_bytes: end, len_bytes });
        Ok(())
    }

    /// Body offset of a frame.
    fn physical(&self, frame: usize) -> u64 {
        self.index.start(frame) + frame as u64 * FRAME_EXTRA as u64
    }

    /// Where in the file the bytes at a logical offset are, roughly: for hints.
    pub(super) fn physical_at(&self, offset_bytes: u64) -> u64 {
        let frame = self.index.find(offset_bytes, self.index.len());
        self.physical(frame) + HEADER_LEN as u64
    }

    /// Fills `buf` as far as the log goes now. What is in `buf` after an error is plaintext
    /// of verified frames and the caller's old bytes, never unverified plaintext.
    pub(super) fn read_at(
        &self,
        file: &dyn ReadFile,
        buf: &mut [u8],
        offset_bytes: u64,
    ) -> Result<usize> {
        let beyond =
            |count| offset_bytes.saturating_add(buf.len() as u64) > self.index.start(count);
        if beyond(self.index.len()) {
            self.extend(file)?;
        }
        let count = self.index.len();
        let rest = self.index.start(count).saturating_sub(offset_bytes);
        let wanted = usize::try_from(rest).map_or(buf.len(), |rest| rest.min(buf.len()));
        let mut frame = self.index.find(offset_bytes, count);
        let mut scratch = Scratch::take();
        let mut done = 0;
        while done < wanted {
            let start = self.physical(frame);
            let last = self.index.find(offset_bytes + wanted as u64 - 1, count);
            let mut next = frame + 1;
            while next <= last && self.physical(next + 1) - start <= BATCH_LEN {
                next += 1;
            }
            let bytes = scratch.bytes((self.physical(next) - start) as usize);
            read_exact(file, bytes, start)?;
            for index in frame..next {
                let place = self.physical(index) - start..self.physical(index + 1) - start;
                let sealed = &bytes[place.start as usize..place.end as usize];
                let skip = (offset_bytes + done as u64 - self.index.start(index)) as usize;
                let len = (sealed.len() - FRAME_EXTRA - skip).min(wanted - done);
                let plaintext = &mut buf[done..done + len];
                self.decryptor.open_frame(index as u64, sealed, skip, plaintext)?;
                done += len;
            }
            frame = next;
        }
        Ok(wanted)
    }

    /// Puts the plaintext of one frame in `plaintext`; false if there is no such frame yet.
    pub(super) fn read_frame(
        &self,
        file: &dyn ReadFile,
        frame: u64,
        plaintext: &mut Vec<u8>,
    ) -> Result<bool> {
        if frame >= self.index.len() as u64 {
            self.extend(file)?;
        }
        let Some(index) = usize::try_from(frame).ok().filter(|index| *index < self.index.len())
        else {
            return Ok(false);
        };
        let start = self.physical(index);
        let mut scratch = Scratch::take();
        let sealed = scratch.bytes((self.physical(index + 1) - start) as usize);
        read_exact(file, sealed, start)?;
        plaintext.resize(sealed.len() - FRAME_EXTRA, 0);
        self.decryptor.open_frame(frame, sealed, 0, plaintext)?;
        Ok(true)
    }
}

/// Plaintext bytes that a log says it has; nothing is verified. A damaged length ends it.
pub(super) fn claimed_len(file: &dyn ReadFile) -> Result<u64> {
    let mut window = Window::new(file, body_len(file)?, HEADS_LEN);
    let (mut at, mut total) = (0, 0);
    while let Ok(Some(len)) = window.whole_frame(at) {
        at += (len + FRAME_EXTRA) as u64;
        total += len as u64;
    }
    Ok(total)
}

fn body_len(file: &dyn ReadFile) -> Result<u64> {
    let physical = file.len().map_err(|e| Error::io("the file's length is unknown", e))?;
    Ok(physical.saturating_sub(HEADER_LEN as u64))
}

/// Reads a body from front to back in large pieces.
struct Window<'a> {
    file: &'a dyn ReadFile,
    body_len: u64,
    read_len: u64,
    scratch: Scratch,
    start: u64,
    len: u64,
}

impl<'a> Window<'a> {
    fn new(file: &'a dyn ReadFile, body_len: u64, read_len: u64) -> Self {
        Self { file, body_len, read_len, scratch: Scratch::take(), start: 0, len: 0 }
    }

    /// Plaintext length of the frame at a body offset; `None` if the body ends there or
    /// inside the frame.
    fn whole_frame(&mut self, at: u64) -> Result<Option<usize>> {
        let rest = self.body_len - at;
        if rest < FRAME_HEAD_LEN as u64 {
            return Ok(None);
        }
        let mut head = [0; FRAME_HEAD_LEN];
        head.copy_from_slice(self.bytes(at, FRAME_HEAD_LEN as u64)?);
        let len = frame_len(head)?;
        Ok(((len + FRAME_EXTRA) as u64 <= rest).then_some(len))
    }

    /// Bytes that lie within the body.
    fn bytes(&mut self, at: u64, len: u64) -> Result<&[u8]> {
        if at < self.start || at + len > self.start + self.len {
            self.len = 0;
            let read_len = self.read_len.max(len).min(self.body_len - at);
            read_exact(self.file, self.scratch.bytes(read_len as usize), at)?;
            (self.start, self.len) = (at, read_len);
        }
        let from = (at - self.start) as usize;
        Ok(&self.scratch.bytes(from + len as usize)[from..])
    }
}
