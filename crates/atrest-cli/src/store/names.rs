//! Names of files in a store, as a user gives them.

use std::path::{Component, Path, PathBuf};

use atrest::ErrorKind;
use atrest::names::is_reserved_path;

use crate::failure::{Failure, Result};

/// The path of `name` in the store, refused if it is the keyring's or leads out of the
/// store.
pub(super) fn resolve(dir: &Path, name: &str) -> Result<PathBuf> {
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
