//! Reading a log of suite 3: frames found and verified once at opening, and again whenever
//! they are read.

use std::sync::{Arc, Mutex, PoisonError};

use super::index::FrameIndex;
use super::scan::{Next, Torn, TornReason, Window};
use super::{FRAME_EXTRA, body_len, open_frame, verify};
use crate::cipher::KeySlot;
use crate::error::Result;
use crate::suite::limits::{BODY_LEN_MAX, authentication, too_large};
use crate::suite::source::{Scratch, Source, read_exact};

/// Bytes that one call to the file system reads, if a frame is not longer.
const BATCH_LEN: u64 = 256 << 10;

/// An open log.
pub(crate) struct Log {
    slot: Arc<KeySlot>,
    index: FrameIndex,
    /// Held while looking for frames at the end, never to read a frame that is known.
    torn: Mutex<Option<Torn>>,
}

/// Body bytes of frames of these plaintext lengths.
fn body_len_of(lens: &[usize]) -> u64 {
    lens.iter().map(|len| (len + FRAME_EXTRA) as u64).sum()
}

impl Log {
    /// Reads the whole log and verifies every frame up to the first that is not good.
    pub(in crate::suite) fn open(slot: Arc<KeySlot>, source: &impl Source) -> Result<Self> {
        let log = Self { slot, index: FrameIndex::new(), torn: Mutex::default() };
        log.extend(source)?;
        Ok(log)
    }

    /// What was at the end when it was last looked at.
    pub(in crate::suite) fn torn(&self) -> Option<Torn> {
        *self.torn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::suite) fn len(&self, source: &impl Source) -> Result<u64> {
        self.extend(source)?;
        Ok(self.index.start(self.index.len()))
    }

    pub(in crate::suite) fn frame_count(&self, source: &impl Source) -> Result<u64> {
        self.extend(source)?;
        Ok(self.index.len() as u64)
    }

    /// Where a frame that is known ends.
    pub(in crate::suite) fn frame_end(&self, frame: u64) -> Option<u64> {
        self.known(frame).map(|index| self.index.end(index))
    }

    fn known(&self, frame: u64) -> Option<usize> {
        usize::try_from(frame).ok().filter(|index| *index < self.index.len())
    }

    /// Looks for good frames behind those known. The first that is not good ends the log, and
    /// is looked at anew the next time: it may have been under way.
    fn extend(&self, source: &impl Source) -> Result<()> {
        let mut torn = self.torn.lock().unwrap_or_else(PoisonError::into_inner);
        let body_len = source.body_len()?;
        if body_len > BODY_LEN_MAX {
            // Whatever is in it, as in every suite.
            return Err(too_large(format!("expected at most {BODY_LEN_MAX} bytes in a log")));
        }
        let mut count = self.index.len();
        let mut end = self.index.start(count);
        if body_len < self.physical(count) {
            return Err(authentication("the log became shorter while it was open"));
        }
        let mut window = Window::new(source, body_len, BATCH_LEN);
        let mut lens = Vec::new();
        let reason = loop {
            let at = self.physical(count);
            let behind = window.frames(at, &mut lens)?;
            let bytes_len = body_len_of(&lens);
            let good = self.count_good(count as u64, &lens, window.bytes(at, bytes_len)?)?;
            for len in &lens[..good] {
                end += *len as u64;
                self.index.push(end);
                count += 1;
            }
            if good < lens.len() {
                break Some(TornReason::Authentication);
            }
            match behind {
                Some(Next::Torn(reason)) => break Some(reason),
                Some(Next::End) => break None,
                _ => {}
            }
        };
        *torn = reason.map(|reason| Torn {
            frame: count as u64,
            offset_bytes: end,
            len_bytes: body_len - self.physical(count),
            reason,
        });
        Ok(())
    }

    /// How many frames are good before the first that is not, of adjacent ones of these lengths.
    fn count_good(&self, first: u64, lens: &[usize], mut frames: &[u8]) -> Result<usize> {
        let mut good = 0;
        self.slot.with_gcm(|key| {
            for (index, len) in (first..).zip(lens) {
                let (frame, rest) = frames.split_at(len + FRAME_EXTRA);
                if !verify(key, index, frame)? {
                    break;
                }
                (frames, good) = (rest, good + 1);
            }
            Ok(())
        })?;
        Ok(good)
    }

    /// Body offset of a frame.
    fn physical(&self, frame: usize) -> u64 {
        body_len(self.index.start(frame), frame as u64)
    }

    /// Where in the body the bytes at a logical offset are, roughly: for hints.
    pub(in crate::suite) fn physical_at(&self, offset_bytes: u64) -> u64 {
        self.physical(self.index.find(offset_bytes, self.index.len()))
    }

    /// Fills `buf` as far as the log goes now. What is in `buf` after an error is plaintext
    /// of verified frames and the caller's old bytes, never unverified plaintext.
    pub(in crate::suite) fn read_at(
        &self,
        source: &impl Source,
        buf: &mut [u8],
        offset_bytes: u64,
    ) -> Result<usize> {
        let beyond =
            |count| offset_bytes.saturating_add(buf.len() as u64) > self.index.start(count);
        if beyond(self.index.len()) {
            self.extend(source)?;
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
            read_exact(source, bytes, start)?;
            self.slot.with_gcm(|key| {
                for index in frame..next {
                    let place = self.physical(index) - start..self.physical(index + 1) - start;
                    let sealed = &bytes[place.start as usize..place.end as usize];
                    let skip = (offset_bytes + done as u64 - self.index.start(index)) as usize;
                    let len = (sealed.len() - FRAME_EXTRA - skip).min(wanted - done);
                    open_frame(key, index as u64, sealed, skip, &mut buf[done..done + len])?;
                    done += len;
                }
                Ok(())
            })?;
            frame = next;
        }
        Ok(wanted)
    }

    /// Puts the plaintext of one frame in `plaintext`; false if there is no such frame yet.
    pub(in crate::suite) fn read_frame(
        &self,
        source: &impl Source,
        frame: u64,
        plaintext: &mut Vec<u8>,
    ) -> Result<bool> {
        if self.known(frame).is_none() {
            self.extend(source)?;
        }
        let Some(index) = self.known(frame) else { return Ok(false) };
        let start = self.physical(index);
        let mut scratch = Scratch::take();
        let sealed = scratch.bytes((self.physical(index + 1) - start) as usize);
        read_exact(source, sealed, start)?;
        plaintext.resize(sealed.len() - FRAME_EXTRA, 0);
        self.slot.with_gcm(|key| open_frame(key, frame, sealed, 0, plaintext))?;
        Ok(true)
    }
}
