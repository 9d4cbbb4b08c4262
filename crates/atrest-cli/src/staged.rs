//! A file under a temporary name beside its own, until it is whole.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use atrest::names::partial_name;

use crate::failure::{Failure, Result};
use crate::signal::HalfMade;

/// The temporary name of a file being written; removed unless it was published.
pub(crate) struct Staged {
    temporary: PathBuf,
    target: PathBuf,
    published: bool,
    _half_made: HalfMade,
}

impl Staged {
    /// Reserves a name; creates nothing. Refuses an existing target unless `replace`.
    pub(crate) fn new(target: &Path, replace: bool) -> Result<Self> {
        if !replace && target.symlink_metadata().is_ok() {
            return Err(exists(target));
        }
        let name = target.file_name().unwrap_or_default().as_encoded_bytes();
        // No process id: each container begins to count anew. What has the name all the same is
        // another's: whoever creates this one fails.
        let random = RandomState::new().hash_one(()) as u32;
        let temporary = target.with_file_name(partial_name(name, random));
        let half_made = HalfMade::new(&temporary);
        Ok(Self { temporary, target: target.to_owned(), published: false, _half_made: half_made })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        &self.temporary
    }

    /// Gives the whole, synced file its own name, durably.
    pub(crate) fn publish(mut self, replace: bool) -> Result<()> {
        let fail = |source| Failure::io("the file cannot be put in place", &self.target, source);
        if replace {
            fs::rename(&self.temporary, &self.target).map_err(fail)?;
        } else {
            // Unlike a rename, a link never replaces a file that appeared meanwhile.
            match fs::hard_link(&self.temporary, &self.target) {
                Ok(()) => remove_if_there(&self.temporary).map_err(fail)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(exists(&self.target));
                }
                // A file system without links.
                Err(_) if self.target.symlink_metadata().is_err() => {
                    fs::rename(&self.temporary, &self.target).map_err(fail)?;
                }
                Err(error) => return Err(fail(error)),
            }
        }
        self.published = true;
        let parent = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let synced =
            fs::File::open(parent.unwrap_or(Path::new("."))).and_then(|dir| dir.sync_all());
        synced.map_err(|source| Failure::io("the directory cannot be synced", &self.target, source))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.published {
            // The error that led here is the one to tell.
            let _ = remove_if_there(&self.temporary);
        }
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn exists(path: &Path) -> Failure {
    let source = io::Error::from(io::ErrorKind::AlreadyExists);
    Failure::io("expected a new file, found one of that name", path, source)
        .advise("give another name, or --force to replace the file")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn another_writer_of_the_same_name_leaves_the_first_alone() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("f");
        let first = Staged::new(&target, false).unwrap();
        fs::write(first.path(), b"half").unwrap();
        let second = Staged::new(&target, false).unwrap();
        assert_ne!(first.path(), second.path());
        drop(second);
        assert_eq!(fs::read(first.path()).unwrap(), b"half");
    }
}
