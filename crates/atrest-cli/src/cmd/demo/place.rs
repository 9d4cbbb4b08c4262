//! The directories of the demonstration, removed at its end unless they are to stay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use atrest::ErrorKind;

use crate::failure::{Failure, Result};
use crate::place::refuse_uri;
use crate::signal::HalfMade;

pub(super) struct Place {
    root: PathBuf,
    keep: bool,
    /// Ours to remove: a directory of the user's is only emptied of what we made.
    made_root: bool,
    _half_made: Vec<HalfMade>,
}

impl Place {
    /// In `dir`, which must not exist or be empty, or in a new temporary directory.
    pub(super) fn new(dir: Option<&Path>, keep: bool) -> Result<Self> {
        let Some(dir) = dir else {
            let made = tempfile::Builder::new().prefix("atrest-demo-").tempdir();
            let temp = std::env::temp_dir();
            let made =
                made.map_err(|e| Failure::io("the directory cannot be created", &temp, e))?.keep();
            return Self::make(made, keep, true);
        };
        refuse_uri(dir)?;
        let fail = |source| Failure::io("the directory cannot be used", dir, source);
        match fs::read_dir(dir) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    let what = "expected a new or empty directory, found files in it";
                    let error = atrest::Error::new(ErrorKind::InvalidArgument, what);
                    let failure = Failure::from(error.with_path(dir));
                    return Err(
                        failure.advise("give another directory, or none for a temporary one")
                    );
                }
                Self::make(dir.canonicalize().map_err(fail)?, true, false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir_all(dir).map_err(fail)?;
                Self::make(dir.canonicalize().map_err(fail)?, true, true)
            }
            Err(error) => Err(fail(error)),
        }
    }

    fn make(root: PathBuf, keep: bool, made_root: bool) -> Result<Self> {
        let mut place = Self { root, keep, made_root, _half_made: Vec::new() };
        place._half_made = place.ours().iter().map(|path| HalfMade::new(path)).collect();
        for dir in [place.store(), place.keys(), place.control()] {
            fs::create_dir(&dir)
                .map_err(|source| Failure::io("the directory cannot be created", &dir, source))?;
        }
        Ok(place)
    }

    fn ours(&self) -> Vec<PathBuf> {
        if self.made_root {
            vec![self.root.clone()]
        } else {
            vec![self.store(), self.keys(), self.control()]
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it stays.
    pub(super) fn is_kept(&self) -> bool {
        self.keep
    }

    /// The store: keyring and engine.
    pub(super) fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    fn keys(&self) -> PathBuf {
        self.root.join("key")
    }

    /// Where the same engine runs without encryption.
    pub(super) fn control(&self) -> PathBuf {
        self.root.join("unencrypted")
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.keys().join("cmek.key")
    }

    /// Where the key file goes when access is withdrawn.
    pub(super) fn key_file_away(&self) -> PathBuf {
        self.keys().join("withdrawn.key")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep {
            // A temporary directory that stays does no harm.
            self.ours().iter().for_each(|path| drop(fs::remove_dir_all(path)));
        }
    }
}
