//! A file's body, as the suites read it.

use crate::error::{Error, ErrorKind, Result};
use crate::header::HEADER_LEN;
use crate::suite::source::Source;
use crate::vfs::ReadFile;

/// What stands behind the header of an open file.
#[derive(Clone, Copy)]
pub(super) struct FileBody<'a>(pub(super) &'a dyn ReadFile);

impl Source for FileBody<'_> {
    fn body_len(&self) -> Result<u64> {
        let len = self.0.len().map_err(|e| Error::io("the file's length is unknown", e))?;
        Ok(len.saturating_sub(HEADER_LEN as u64))
    }

    #[inline]
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let physical = offset
            .checked_add(HEADER_LEN as u64)
            .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "the offset overflows"))?;
        self.0.read_at(buf, physical).map_err(|e| Error::io("the file cannot be read", e))
    }
}
