//! Whether all that lies in a store belongs to the user who has its directory.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use atrest::names::is_keyring_name;
use atrest::vfs::OsVfs;
use atrest::walk::{Met, is_lost_found, walk};

use super::findings::Findings;
use crate::failure::Result;
use crate::units;

const ADVICE: &str = "chown it to the directory's owner, who is locked out otherwise: a command was run as another user";

/// What belongs to somebody else.
#[derive(Default)]
struct Others {
    keyring: Vec<(PathBuf, u32)>,
    files: u64,
    first: Option<(PathBuf, u32)>,
}

impl Others {
    fn add(&mut self, path: &Path, owner: u32) {
        let Ok(metadata) = path.symlink_metadata() else { return };
        if metadata.uid() == owner {
            return;
        }
        let found = (path.to_owned(), metadata.uid());
        if path.file_name().is_some_and(|name| is_keyring_name(name.as_encoded_bytes())) {
            self.keyring.push(found);
        } else {
            self.files += 1;
            if self.first.as_ref().is_none_or(|first| found < *first) {
                self.first = Some(found);
            }
        }
    }
}

/// Compares every owner with that of the directory.
pub(super) fn owners(dir: &Path, to: &mut Findings) -> Result<()> {
    // The scan of the files tells it better.
    let Ok(metadata) = dir.metadata() else { return Ok(()) };
    let owner = metadata.uid();
    let mut others = Others::default();
    walk(&OsVfs, dir, &mut |met, entry| {
        let is_files = matches!(met, Met::File | Met::Directory | Met::Own);
        // Its owner is root, and has to be.
        if is_files && !is_lost_found(&OsVfs, &entry.path) {
            others.add(&entry.path, owner);
        }
        Ok(())
    })?;
    if others.keyring.is_empty() && others.files == 0 {
        to.good("owners", format!("all belongs to user {owner}"));
        return Ok(());
    }
    others.keyring.sort();
    for (path, uid) in &others.keyring {
        let what = format!("{} belongs to user {uid}, the directory to {owner}", path.display());
        to.problem("owners", what, ADVICE);
    }
    if let Some((path, uid)) = &others.first {
        let count = units::counted(others.files, "file");
        let first = path.display();
        let what = format!("{count} of others, the first: {first} of user {uid}, not {owner}");
        to.problem("owners", what, ADVICE);
    }
    Ok(())
}
