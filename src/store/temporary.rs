//! Temporary files that nobody can read any more.

use std::io;
use std::path::{Path, PathBuf};

use super::renewal::Renewal;
use crate::error::{ErrorKind, Result};
use crate::header::Header;
use crate::keyring::{Expect, Keyring};
use crate::scan::{Found, OnScan, Visitor};

impl Renewal<'_> {
    /// Removes the [temporary](crate::FileKind::Temporary) files in the store's directories that
    /// earlier processes left, and those from before access was last withdrawn: no key opens
    /// them. Reads the headers of all files, so that an engine which knows where its own are
    /// removes them itself. Returns what it removed.
    ///
    /// # Errors
    /// [`ReadOnly`](ErrorKind::ReadOnly) for a store that is open for reading, beside whose writer
    /// nobody can tell; [`CmekRevoked`](ErrorKind::CmekRevoked);
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch) as of
    /// [`reencrypt`](Self::reencrypt); [`Io`](ErrorKind::Io); those of
    /// [`rebuild_usage`](Self::rebuild_usage), without `KeyringBusy`.
    pub fn remove_temporary(&self, on_scan: OnScan<'_>) -> Result<Vec<PathBuf>> {
        let keyring = self.0.keyring();
        keyring.check_writable()?;
        self.0.places().directories().check_own()?;
        let (found, _) = self.scan_all(on_scan, || Collect { keyring, ended: Vec::new() })?;
        let mut removed = Vec::new();
        let ended: Vec<_> = found.into_iter().flat_map(|part| part.ended).collect();
        self.0.places().directories().check_own_files(ended.iter().map(PathBuf::as_path))?;
        for path in ended {
            // Made anew since, maybe.
            if !self.is_ended(&path)? {
                continue;
            }
            match self.0.remove_own(&path) {
                Err(error) if error.kind() != ErrorKind::Io(io::ErrorKind::NotFound) => {
                    return Err(error);
                }
                _ => removed.push(path),
            }
        }
        Ok(removed)
    }

    fn is_ended(&self, path: &Path) -> Result<bool> {
        let looked = crate::scan::look(&**self.0.vfs(), path)?;
        let header = looked.as_ref().and_then(|(_, what)| what.header());
        Ok(header.is_some_and(|header| ended(self.0.keyring(), header)))
    }
}

/// Whether it is a temporary file of this store that no key opens.
fn ended(keyring: &Keyring, header: &Header) -> bool {
    header.is_temporary()
        && keyring
            .decryptor(header, &Expect::default())
            .is_err_and(|error| error.kind() == ErrorKind::TemporaryEnded)
}

struct Collect<'a> {
    keyring: &'a Keyring,
    ended: Vec<PathBuf>,
}

impl Visitor for Collect<'_> {
    fn file(&mut self, found: &Found<'_>) {
        if found.what.header().is_some_and(|header| ended(self.keyring, header)) {
            self.ended.push(found.path());
        }
    }

    fn staged(&mut self, _found: &Found<'_>) {}

    fn link(&mut self, _path: &Path) {}
}
