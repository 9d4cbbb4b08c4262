//! Readers of files in memory, for fuzzing.

use std::io;

use super::{ReadPath, Reader};
use crate::cipher::Decryptor;
use crate::error::Result;
use crate::vfs::ReadFile;

#[derive(Debug)]
struct Bytes(Vec<u8>);

impl ReadFile for Bytes {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let read = buf.len().min(self.0.len() - start);
        buf[..read].copy_from_slice(&self.0[start..start + read]);
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

/// Opens the body of a whole file whose header was proven.
pub(crate) fn reader(file: &[u8], decryptor: Decryptor) -> Result<Reader> {
    Reader::encrypted("fuzzed".into(), Box::new(Bytes(file.to_vec())), decryptor, ReadPath::Pread)
}
