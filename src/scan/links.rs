//! Where symbolic links lead: an engine opens through them, so what a store uses may lie
//! behind one.

use std::io;
use std::path::{Path, PathBuf};

use super::look;
use crate::classify::Contents;
use crate::error::{Error, ErrorKind, Result};
use crate::vfs::{EntryKind, FileStat, Vfs};
use crate::walk::is_passed_by;

/// Looks at the file that a link leads to. `None` if the link is gone, leads to a directory
/// that is scanned anyway because it is below one of `roots` (canonical paths), or to what
/// is neither a file nor a directory.
///
/// # Errors
/// [`InvalidArgument`](ErrorKind::InvalidArgument) for a link whose end is missing, or is a
/// directory elsewhere, or in one that is passed by: nobody knows what is there.
/// [`Io`](ErrorKind::Io).
pub(crate) fn look_through(
    vfs: &dyn Vfs,
    link: &Path,
    roots: &[PathBuf],
) -> Result<Option<(FileStat, Contents)>> {
    let fail = |e| Error::io("where the symbolic link leads is unknown", e).with_path(link);
    let refuse = |what: String| Err(Error::new(ErrorKind::InvalidArgument, what).with_path(link));
    let missing = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
    let target = match vfs.canonical(link) {
        Ok(target) => target,
        Err(error) if missing(&error) => {
            return match vfs.stat(link) {
                Ok(_) => refuse("the symbolic link leads nowhere".into()),
                Err(error) if missing(&error) => Ok(None),
                Err(error) => Err(fail(error)),
            };
        }
        Err(error) => return Err(fail(error)),
    };
    match vfs.stat(&target).map_err(fail)?.kind {
        EntryKind::File => look(vfs, &target),
        EntryKind::Directory => {
            let above = roots.iter().filter(|root| target.starts_with(root));
            let root = above.max_by_key(|root| root.as_os_str().len());
            let seen = match root {
                Some(root) => is_passed_by(vfs, root, &target)?.is_none(),
                None => false,
            };
            if seen {
                return Ok(None);
            }
            refuse(format!(
                "the symbolic link leads to {}, which is none of the store's directories",
                target.display()
            ))
        }
        _ => Ok(None),
    }
}
