//! Where backups go: a directory, or a prefix of an object store.

use std::path::{Path, PathBuf};

use atrest::backup::{BackupTarget, DirectoryTarget};
use atrest::{Error, ErrorKind};
use url::Url;

use crate::bucket::Bucket;
use crate::failure::{Failure, Result};

/// A destination.
#[derive(Debug)]
pub(crate) enum Place {
    Directory(PathBuf),
    Bucket(Bucket),
}

impl Place {
    /// The place that a path or URI names.
    pub(crate) fn parse(text: &Path) -> Result<Self> {
        let Some(uri) = text.to_str().filter(|text| is_uri(text)) else {
            return Ok(Self::Directory(text.to_owned()));
        };
        let refuse = |what: &str| Failure::new(ErrorKind::InvalidArgument, what);
        // It may hold a secret: not to be repeated.
        let uri = Url::parse(uri).map_err(|error| {
            refuse(&format!("the URI cannot be parsed: {error}"))
                .advise("write characters other than letters, digits and -._~/ as %XX")
        })?;
        if uri.scheme() != "file" {
            return Ok(Self::Bucket(Bucket::parse(uri)?));
        }
        match uri.to_file_path() {
            Ok(path) if uri.query().is_none() && uri.fragment().is_none() => {
                Ok(Self::Directory(path))
            }
            _ => Err(refuse("expected file:/// and an absolute path, found another file URI")
                .advise("give the path of the directory as it is")),
        }
    }

    /// The backups that are there.
    pub(crate) fn existing(&self) -> Result<Box<dyn BackupTarget>> {
        let dir = match self {
            Self::Directory(dir) => dir,
            Self::Bucket(bucket) => return Ok(Box::new(bucket.connect()?)),
        };
        match dir.metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(Box::new(DirectoryTarget::new(dir))),
            Ok(_) => {
                let what = "expected a directory of backups, found a file";
                Err(Error::new(ErrorKind::InvalidArgument, what).with_path(dir).into())
            }
            Err(source) => Err(Failure::io("the backups cannot be opened", dir, source)),
        }
    }

    /// The place for the backups of the store in `store`, created if needed.
    pub(super) fn prepared(&self, store: &Path) -> Result<Box<dyn BackupTarget>> {
        let dest = match self {
            Self::Directory(dir) => dir,
            Self::Bucket(bucket) => return Ok(Box::new(bucket.connect()?)),
        };
        let missing = dest.ancestors().take_while(|at| !at.as_os_str().is_empty() && !at.exists());
        let missing: Vec<_> = missing.collect();
        let fail = |e| Failure::io("the directory of backups cannot be created", dest, e);
        std::fs::create_dir_all(dest).map_err(fail)?;
        let inside =
            |dir: &Path| Some(dest.canonicalize().ok()?.starts_with(dir.canonicalize().ok()?));
        if inside(store) == Some(true) {
            // What was made just now, and nothing else.
            missing.iter().for_each(|made| drop(std::fs::remove_dir(made)));
            let what = "expected a directory outside of the store, found one inside";
            let error = Error::new(ErrorKind::InvalidArgument, what).with_path(dest);
            return Err(Failure::from(error).advise("give a directory on another disk"));
        }
        Ok(Box::new(DirectoryTarget::new(dest)))
    }

    /// An error of the backups here.
    pub(super) fn explain(&self, error: Error) -> Failure {
        match self {
            // Those of single files have a path of their own, or none.
            Self::Directory(_) => error.into(),
            Self::Bucket(bucket) => bucket.explain(error),
        }
    }

    /// An error of the backups as a whole.
    pub(crate) fn at(&self, error: Error) -> Failure {
        let dir = match self {
            Self::Directory(dir) => dir,
            Self::Bucket(bucket) => return bucket.explain(error),
        };
        let advice = match error.kind() {
            ErrorKind::KeyringMissing | ErrorKind::BrokenBackup => {
                Some("give the directory that `atrest backup create` wrote to, whole")
            }
            ErrorKind::Io(std::io::ErrorKind::DirectoryNotEmpty) => {
                Some("give a new or empty directory; each store has its own for backups")
            }
            _ => None,
        };
        let failure = Failure::from(error.with_path(dir));
        match advice {
            Some(advice) => failure.advise(advice),
            None => failure,
        }
    }

    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Directory(dir) => dir,
            Self::Bucket(bucket) => bucket.path(),
        }
    }
}

/// Refuses a URI where only a directory will do: nothing of that name is looked for, or made, on
/// the disk.
pub(crate) fn refuse_uri(dir: &Path) -> Result<()> {
    if dir.to_str().is_some_and(is_uri) {
        // It may hold a secret: not to be repeated.
        let what = "expected a directory, found a URI";
        return Err(Failure::new(ErrorKind::InvalidArgument, what).advise(
            "give the path of a directory; write ./ in front of one that looks like a URI",
        ));
    }
    Ok(())
}

/// Whether the text begins with a scheme and `://`. The directory of such a name is
/// reached as `./…`.
fn is_uri(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
    })
}
