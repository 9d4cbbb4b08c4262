//! Reading a file through for a copy: append by append where appends are told apart.

use super::Reader;
use crate::error::{Error, Result};
use crate::suite::log::{Torn, TornReason};

/// Bytes read at a time: small enough to stay in the second-level cache on their way, and a
/// multiple of a cipher's block.
const STEP_LEN: usize = 128 << 10;

/// What a copy was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copied {
    /// Plaintext bytes.
    pub(crate) len: u64,
    /// How many appends, if each came as one piece.
    pub(crate) appends: Option<u64>,
    /// What of the source could not be read.
    pub(crate) torn: Option<Torn>,
}

impl Reader {
    /// Whether each append to this file can be told from the next one.
    pub(crate) fn keeps_appends(&self) -> bool {
        self.suite().is_some_and(|suite| suite.keeps_appends())
    }

    /// Gives all of the file to `each`: each append whole and by itself if `by_append` and the
    /// suite keeps them, otherwise pieces of one length, but for the last. A part that nobody
    /// wrote ends a file as what is torn does: a copy would make data of its noise, and take away
    /// what tells it. It is looked for in the pieces that are read anyway.
    ///
    /// # Errors
    /// Those of reading, and of `each`.
    pub(crate) fn pieces(
        &self,
        by_append: bool,
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Copied> {
        if by_append && self.keeps_appends() { self.by_append(each) } else { self.by_length(each) }
    }

    fn by_length(&self, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Copied> {
        let (mut buf, mut len) = (vec![0; STEP_LEN], 0);
        loop {
            let (read, unwritten) = self.read_written(&mut buf, len)?;
            if read > 0 {
                each(&buf[..read])?;
                len += read as u64;
            }
            if unwritten {
                let len_bytes = self.len()?.saturating_sub(len);
                let reason = TornReason::Zeros;
                // All of such a file is its first frame.
                let torn = Some(Torn { frame: 0, offset_bytes: len, len_bytes, reason });
                return Ok(Copied { len, appends: None, torn });
            }
            if read == 0 {
                return Ok(Copied { len, appends: None, torn: self.torn() });
            }
        }
    }

    /// Reads many short appends at once.
    fn by_append(&self, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Copied> {
        let count = self.frame_count()?;
        // As of this look: an append that comes meanwhile is not copied.
        let torn = self.torn();
        let (mut buf, mut len, mut next) = (Vec::new(), 0, 0);
        while next < count {
            let first = next;
            let mut end = self.append_end(next)?;
            next += 1;
            while next < count && self.append_end(next)? - len <= STEP_LEN as u64 {
                end = self.append_end(next)?;
                next += 1;
            }
            // OK because one append has at most 2^24 bytes, and several have 2^17.
            buf.resize(usize::try_from(end - len).expect("a short piece"), 0);
            self.read_exact_at(&mut buf, len)?;
            let start = len;
            for number in first..next {
                let end = self.append_end(number)?;
                each(&buf[(len - start) as usize..(end - start) as usize])?;
                len = end;
            }
        }
        Ok(Copied { len, appends: Some(count), torn })
    }

    fn append_end(&self, number: u64) -> Result<u64> {
        self.known_append_end(number).ok_or_else(|| {
            let what = format!("append {number} is not there any more");
            Error::new(crate::ErrorKind::Authentication, what).with_path(self.path())
        })
    }
}
