//! Encrypted files without a keyring: a store that lost it is not to be begun anew.

use crate::classify::Contents;
use crate::error::{Error, ErrorKind, Result};
use crate::scan::look;
use crate::vfs::Vfs;
use crate::walk::{Met, walk};
use std::path::Path;

/// Refuses a directory where files of a store are whose keyring is gone: under a new one
/// nobody would look for it any more, and its files would stay unreadable.
///
/// # Errors
/// [`KeyringMissing`](ErrorKind::KeyringMissing), [`Io`](ErrorKind::Io).
pub(super) fn refuse(vfs: &dyn Vfs, dir: &Path) -> Result<()> {
    walk(vfs, dir, &mut |met, entry| {
        if met != Met::File {
            return Ok(());
        }
        match look(vfs, &entry.path)? {
            Some((_, Contents::Encrypted(header))) if !header.is_temporary() => {
                let what = format!(
                    "there is no keyring, and a file is encrypted under that of store {}",
                    header.store_id
                );
                Err(Error::new(ErrorKind::KeyringMissing, what).with_path(&entry.path))
            }
            _ => Ok(()),
        }
    })
}
