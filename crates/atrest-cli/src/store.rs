//! A store in a directory: opening it, and the names of files in it.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use atrest::keyring::{DirectoryStorage, KmsSet};
use atrest::kms::Kms;
use atrest::names::is_reserved_path;
use atrest::{ErrorKind, Keyring, Options};

use crate::failure::{Failure, Result};

/// Options of a command that opens a store for a moment: what is due is done by the
/// command itself, not by a thread.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.background = false;
    options
}

pub(crate) fn open(dir: &Path, kms: impl Into<KmsSet>) -> Result<Keyring> {
    Ok(Keyring::open(storage(dir)?, kms, options()).map_err(|error| with_dir(error, dir))?)
}

pub(crate) fn open_read_only(dir: &Path, kms: Arc<dyn Kms>) -> Result<Keyring> {
    let keyring = Keyring::open_read_only(storage(dir)?, kms, options());
    Ok(keyring.map_err(|error| with_dir(error, dir))?)
}

/// The keyring's place in an existing directory. An opening must not leave a lock file
/// in a directory that never was a store.
pub(crate) fn storage(dir: &Path) -> Result<DirectoryStorage> {
    match dir.metadata() {
        Ok(metadata) if !metadata.is_dir() => {
            let what = "expected a directory, found a file";
            return Err(atrest::Error::new(ErrorKind::InvalidArgument, what).with_path(dir).into());
        }
        Ok(_) => {}
        Err(source) => return Err(Failure::io("the store cannot be opened", dir, source)),
    }
    let storage = DirectoryStorage::new(dir);
    atrest::keyring::KeyringInfo::read(&storage).map_err(|error| with_dir(error, dir))?;
    Ok(storage)
}

fn with_dir(error: atrest::Error, dir: &Path) -> atrest::Error {
    error.with_path(dir)
}

/// The path of `name` in the store, refused if it is the keyring's or leads out of the
/// store.
pub(crate) fn resolve(dir: &Path, name: &str) -> Result<PathBuf> {
    let refuse = |what: &str| {
        Err(Failure::new(ErrorKind::InvalidArgument, format!("{name:?}: {what}"))
            .advise("give a name relative to the store, such as report.pdf or db/000017.sst"))
    };
    let path = Path::new(name);
    if name.is_empty() || name.ends_with('/') {
        return refuse("expected the name of a file");
    }
    if name.chars().any(char::is_control) {
        return refuse("expected a name without control characters");
    }
    if !path.components().all(|part| matches!(part, Component::Normal(_))) {
        return refuse("expected a name inside the store, found a path that leads out of it");
    }
    if is_reserved_path(path) {
        return refuse("the name, or a part of it, belongs to the keyring");
    }
    let full = dir.join(path);
    let parent = full.parent().unwrap_or(dir);
    match (parent.canonicalize(), dir.canonicalize()) {
        (Ok(parent), Ok(dir)) if !parent.starts_with(&dir) => {
            refuse("expected a name inside the store, found a link that leads out of it")
        }
        (Err(source), _) | (_, Err(source)) => {
            Err(Failure::io("the directory of the file does not open", parent, source))
        }
        _ if full.is_symlink() => refuse("expected a file, found a symbolic link"),
        _ => Ok(full),
    }
}
