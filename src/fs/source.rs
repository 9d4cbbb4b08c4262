//! A file's body, as the suites read it.

use std::io;

use crate::error::{Error, ErrorKind, Result};
use crate::header::HEADER_LEN;
use crate::suite::source::Source;
use crate::vfs::{Map, ReadFile};

/// How the bytes of a file come into memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadPath {
    /// By a system call for each read, into the caller's buffer, where they are decrypted.
    #[default]
    Pread,
    /// From a map of the file into the caller's buffer: decryption takes the place of the
    /// system's copy, which makes reads of cached files faster than by [`Pread`](Self::Pread), and
    /// in small pieces, or where that copy is slow, faster than plain ones. For files that are
    /// finished, in suites 1 and 2; logs of suite 3, and what was added since a file was opened,
    /// are read as by [`Pread`](Self::Pread), and so is what cannot be mapped. It costs:
    ///
    /// - **A process dies of a read** (`SIGBUS`) when somebody cuts the file, or the disk does not
    ///   give a page. Who has to live on after either stays with [`Pread`](Self::Pread).
    /// - A read of what is not in the page cache waits as a page fault, 4 KiB or a readahead at a
    ///   time, where `pread` asks for all of it at once: [`Reader::will_need`](crate::Reader)
    ///   first, for long ones.
    /// - Address space: as much as the file is long. A process has at most 16,384 maps, and reads
    ///   further files by `pread`; on 32 bits files of gigabytes are not mapped at all.
    /// - Two system calls and the page faults of the first reads for each opening: for files that
    ///   are read more than a few times.
    ///
    /// Past the page cache ([`DirectVfs`](crate::vfs::DirectVfs)) nothing is mapped.
    Mapped,
}

/// What stands behind the header of an open file.
#[derive(Clone, Copy)]
pub(super) struct FileBody<'a> {
    pub(super) file: &'a dyn ReadFile,
    pub(super) map: Option<&'a Map>,
}

impl<'a> FileBody<'a> {
    pub(super) fn new(file: &'a dyn ReadFile) -> Self {
        Self { file, map: None }
    }
}

/// Of so many bytes of a file, how many are its body's.
fn body_len(file_len: io::Result<u64>) -> Result<u64> {
    let len = file_len.map_err(|e| Error::io("the file's length is unknown", e))?;
    Ok(len.saturating_sub(HEADER_LEN as u64))
}

impl Source for FileBody<'_> {
    fn body_len(&self) -> Result<u64> {
        body_len(self.file.len())
    }

    fn opened_len(&self) -> Result<u64> {
        body_len(self.file.opened_len())
    }

    #[inline]
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let physical = offset
            .checked_add(HEADER_LEN as u64)
            .ok_or_else(|| Error::new(ErrorKind::InvalidArgument, "the offset overflows"))?;
        self.file.read_at(buf, physical).map_err(|e| Error::io("the file cannot be read", e))
    }

    #[inline]
    fn mapped(&self) -> &[u8] {
        self.map.and_then(|map| map.bytes().get(HEADER_LEN..)).unwrap_or_default()
    }
}
