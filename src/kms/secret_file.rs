//! Small files that hold credentials and keys: read without waiting, whatever is there.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use crate::descriptors::patiently;
use crate::vfs::regular;

/// A small file of credentials or key material, as it was when it was opened. Its mode and
/// its bytes are those of one file, whatever its name leads to since.
pub struct SecretFile {
    bytes: Zeroizing<Box<[u8]>>,
    len: usize,
    owner: u32,
    mode: u32,
}

impl SecretFile {
    /// Reads the file at `path`, through symbolic links. Of a longer one than `len_max` no
    /// more than one further byte is read.
    ///
    /// # Errors
    /// Those of the system; at once [`IsADirectory`](io::ErrorKind::IsADirectory) and
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a directory, pipe, socket or
    /// device, and [`FileTooLarge`](io::ErrorKind::FileTooLarge).
    pub fn read(path: impl AsRef<Path>, len_max: usize) -> io::Result<Self> {
        // Not to hang on a pipe, nor to become a terminal's process.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let mut open = OpenOptions::new();
        open.read(true).custom_flags(flags.bits().cast_signed());
        let mut file = regular(patiently(|| open.open(&path))?)?;
        let metadata = file.metadata()?;
        // One allocation, so that growing leaves no copy behind.
        let mut bytes = Zeroizing::new(vec![0; len_max.saturating_add(1)].into_boxed_slice());
        let len = fill(&mut file, &mut bytes)?;
        if len > len_max {
            let what = format!("expected a file of at most {len_max} bytes, found more");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
        }
        Ok(Self { bytes, len, owner: metadata.uid(), mode: metadata.mode() & 0o7777 })
    }

    /// What is in it.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// Refuses a file that others than its owner may read or change. A file of root's may be
    /// read by its group: that is how a system hands a secret to a process of another user,
    /// as Kubernetes does with `fsGroup`.
    ///
    /// # Errors
    /// The file's mode, and the one that was expected.
    pub fn check_private(&self) -> Result<(), String> {
        let (others, expected) = match self.owner {
            0 => (0o037, "0600, or 0440 for its group"),
            _ => (0o077, "0600"),
        };
        if self.mode & others == 0 {
            return Ok(());
        }
        Err(format!("expected mode {expected}, found {:04o}", self.mode))
    }
}

fn fill(file: &mut File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read(&mut bytes[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

impl std::fmt::Debug for SecretFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretFile(..)")
    }
}
