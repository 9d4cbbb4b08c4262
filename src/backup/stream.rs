//! What the stream of a copy has to be: the same for whoever verifies it and whoever
//! restores from it.

use super::manifest::What;
use super::object::broken;
use crate::error::Result;

/// Takes a stream apart and proves its form.
pub(super) struct StreamParts {
    /// The beginning of a frame that is not whole yet, of a log whose appends are told
    /// apart.
    frames: Option<Vec<u8>>,
    len: u64,
}

impl StreamParts {
    pub(super) fn of(what: What) -> Self {
        let keeps_appends = matches!(what, What::Encrypted { suite, .. } if suite.keeps_appends());
        Self { frames: keeps_appends.then(Vec::new), len: 0 }
    }

    /// Gives the plaintext of a piece to `each`; of a log each frame as a whole.
    pub(super) fn take(
        &mut self,
        piece: &[u8],
        each: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let Some(frames) = &mut self.frames else {
            self.len += piece.len() as u64;
            return each(piece);
        };
        frames.extend_from_slice(piece);
        let mut rest = frames.as_slice();
        while let Some((len, behind)) = rest.split_first_chunk::<4>() {
            let len = u32::from_le_bytes(*len) as usize;
            if len == 0 || len > crate::FRAME_LEN_MAX {
                return Err(broken("a frame of the copied log has a wrong length"));
            }
            let Some((frame, behind)) = behind.split_at_checked(len) else { break };
            self.len += len as u64;
            each(frame)?;
            rest = behind;
        }
        let done = frames.len() - rest.len();
        frames.drain(..done);
        Ok(())
    }

    /// Proves that the stream ended where it may, after so many plaintext bytes.
    pub(super) fn end(&self, len: u64) -> Result<()> {
        if self.frames.as_ref().is_some_and(|frames| !frames.is_empty()) {
            return Err(broken("the copied log ends inside a frame"));
        }
        if self.len != len {
            return Err(broken("the copy holds another number of bytes than it says"));
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::header::FileKind;
    use crate::suite::Suite;

    fn read(suite: Suite, stream: &[u8], len: u64) -> Result<Vec<Vec<u8>>> {
        let mut parts =
            StreamParts::of(What::Encrypted { suite, chunk_log2: 0, kind: FileKind::Log });
        let mut frames = Vec::new();
        for piece in stream.chunks(3) {
            parts.take(piece, &mut |frame| {
                frames.push(frame.to_vec());
                Ok(())
            })?;
        }
        parts.end(len)?;
        Ok(frames)
    }

    #[test]
    fn only_whole_frames_of_the_right_lengths_pass() {
        let good = [&5_u32.to_le_bytes()[..], b"first", &2_u32.to_le_bytes(), b"xy"].concat();
        let frames = read(Suite::Aes256GcmLog, &good, 7).unwrap();
        assert_eq!(frames, [b"first".to_vec(), b"xy".to_vec()]);
        let too_long = (crate::FRAME_LEN_MAX as u32 + 1).to_le_bytes();
        let beyond = [&good[..], &100_u32.to_le_bytes(), b"z"].concat();
        for (what, stream, len) in [
            ("another number of bytes", good.clone(), 8),
            ("a length of 0", [&good[..], &[0; 4]].concat(), 7),
            ("a length over 2^24", [&good[..], &too_long].concat(), 7),
            ("a frame beyond the stream", beyond, 8),
            ("stray bytes", [&good[..], &[1, 2, 3]].concat(), 7),
        ] {
            let error = read(Suite::Aes256GcmLog, &stream, len).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenBackup, "{what}");
        }
        assert!(read(Suite::Aes256Ctr, &good, good.len() as u64).is_ok());
        assert!(read(Suite::Aes256Ctr, &good, 7).is_err());
    }
}
