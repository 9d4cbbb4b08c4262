//! The one check of a manifest: when it is written, read, verified and restored.
//! `docs/FORMAT.md` section 13, M1 to M10.

use std::collections::{HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use super::{Entry, Manifest, What, relative};
use crate::backup::lack::{LackEntry, LackReason};
use crate::backup::object::Object;
use crate::backup::objects::physical_len;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::{PlaintextPolicy, Settings};
use crate::suite::Integrity;
use crate::suite::layout::Layout;
use crate::suite::limits::BODY_LEN_MAX;
use crate::suite::log::FRAME_LEN_MAX;

/// Most keyspaces, and longest name of one in bytes: those of a keyring.
const KEYSPACES_MAX: usize = 65_536;
const NAME_LEN_MAX: usize = 256;
/// Modes without what would give a file of the store to somebody else's rights.
pub(in crate::backup) const FILE_MODES: u32 = 0o777;
/// The same of directories, where the other bits say who owns and removes files.
pub(in crate::backup) const DIRECTORY_MODES: u32 = 0o3777;

/// What is wrong, and with which path.
type Fault<'a> = (&'static str, Option<&'a [u8]>);
type Checked<'a> = Result<(), Fault<'a>>;

impl Manifest {
    /// Refuses, with an error of `kind`, what no backup has, or what could not be restored.
    /// An authenticated manifest is checked like any other: what is written where its paths
    /// say must stay inside.
    pub(super) fn check(&self, kind: ErrorKind) -> Result<()> {
        self.settings.check().map_err(|refused| refused.or(kind))?;
        let settings = Settings::try_from(&self.settings).map_err(|what| Error::new(kind, what))?;
        let checked = self
            .check_place()
            .and_then(|()| self.check_keyspaces())
            .and_then(|()| self.check_paths())
            .and_then(|()| self.check_files(&settings))
            .and_then(|()| self.check_lacks());
        checked.map_err(|(what, path)| match path {
            Some(path) => Error::new(kind, what).with_path(relative(path)),
            None => Error::new(kind, what),
        })
    }

    fn check_place(&self) -> Checked<'_> {
        if self.number == 0 || (self.number == 1) != (self.previous == [0; 32]) {
            return Err(("the manifest's number and predecessor do not fit", None));
        }
        Ok(())
    }

    fn check_keyspaces(&self) -> Checked<'_> {
        let is_name = |name: &String| {
            (1..=NAME_LEN_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
        };
        let unique: HashSet<&String> = self.keyspaces.iter().filter(|name| is_name(name)).collect();
        let count = self.keyspaces.len();
        if !(1..=KEYSPACES_MAX).contains(&count) || unique.len() != count {
            return Err(("the manifest's keyspaces are none, too many, or named wrongly", None));
        }
        Ok(())
    }

    fn check_paths(&self) -> Checked<'_> {
        let ordered = self.directories.windows(2).all(|pair| pair[0].path < pair[1].path)
            && self.files.windows(2).all(|pair| pair[0].path < pair[1].path);
        if !ordered {
            return Err(("the manifest's paths are not in order, or not unique", None));
        }
        let known: HashSet<&[u8]> = self.directories.iter().map(|it| &*it.path).collect();
        let directories = self.directories.iter().map(|it| (&it.path, it.mode, DIRECTORY_MODES));
        let files = self.files.iter().map(|file| (&file.path, file.mode, FILE_MODES));
        for (path, mode, allowed) in directories.chain(files) {
            if !is_inside(path) {
                return Err(("a path of the manifest leads out of the store", Some(path)));
            }
            let parent = path.iter().rposition(|byte| *byte == b'/').map(|end| &path[..end]);
            if parent.is_some_and(|parent| !known.contains(parent)) {
                return Err(("the manifest lacks a directory of this path", Some(path)));
            }
            if mode & !allowed != 0 {
                return Err(("the manifest gives a mode that no backup has", Some(path)));
            }
        }
        match self.files.iter().find(|file| known.contains(&*file.path)) {
            Some(file) => {
                Err(("a path of the manifest is a file and a directory", Some(&file.path)))
            }
            None => Ok(()),
        }
    }

    fn check_files(&self, settings: &Settings) -> Checked<'_> {
        let mut copies: HashMap<_, &Entry> = HashMap::new();
        for file in &self.files {
            let Some(what) = file.what() else {
                return Err(("a file of the manifest is described wrongly", Some(&file.path)));
            };
            if !self.describes(file, what) {
                return Err(("a file of the manifest is described wrongly", Some(&file.path)));
            }
            let weak = match what {
                What::Empty => continue,
                What::Plaintext => settings.plaintext != PlaintextPolicy::Allow,
                What::Encrypted { suite, kind, .. } => {
                    let promised = settings.integrity.of(kind);
                    promised == Integrity::Authenticated && !suite.is_authenticated()
                }
            };
            if weak {
                let what = "a file of the manifest is weaker than the store's settings allow";
                return Err((what, Some(&file.path)));
            }
            let first = copies.entry(file.object.id).or_insert(file);
            if !first.is_copied_as(file) {
                return Err(("a copy is described in two ways", Some(&file.path)));
            }
        }
        Ok(())
    }

    fn describes(&self, file: &Entry, what: What) -> bool {
        let object = &file.object;
        let layout = match what {
            What::Empty | What::Plaintext => {
                let bare = [file.suite, file.chunk_log2, file.kind] == [0; 3]
                    && file.keyspace == 0
                    && file.file_id == [0; 16]
                    && object.identity == [0; 32];
                if !bare {
                    return false;
                }
                Layout::Stream
            }
            What::Encrypted { suite, chunk_log2, .. } => {
                match Layout::parse(suite.number(), chunk_log2) {
                    Ok(layout) if object.identity != [0; 32] => layout,
                    _ => return false,
                }
            }
        };
        if what == What::Empty {
            return *object == Object::default();
        }
        (file.keyspace as usize) < self.keyspaces.len()
            && object.id != [0; 16]
            && (1..=self.number).contains(&object.held_by)
            && is_stream_of(object, layout)
            && object.physical_len == physical_len(object.stream_len)
    }

    fn check_lacks(&self) -> Checked<'_> {
        if !self.lacks.windows(2).all(|pair| pair[0].path < pair[1].path) {
            return Err(("what the manifest lacks is not in order, or not unique", None));
        }
        match self.lacks.iter().find(|lack| !self.can_lack(lack)) {
            Some(lack) => Err(("what the manifest lacks is described wrongly", Some(&lack.path))),
            None => Ok(()),
        }
    }

    fn can_lack(&self, lack: &LackEntry) -> bool {
        let file = self.files.binary_search_by(|file| file.path.cmp(&lack.path));
        let what = file.ok().and_then(|at| self.files[at].what());
        match lack.why() {
            None => false,
            Some(LackReason::Elsewhere) => is_elsewhere(&lack.path),
            Some(LackReason::Unfinished | LackReason::Link | LackReason::KeyDestroyed) => {
                is_inside(&lack.path) && what.is_none()
            }
            Some(LackReason::Emptied) => what == Some(What::Empty),
            Some(LackReason::Torn) => {
                // What has an end is copied to its end, or not at all.
                matches!(what, Some(What::Encrypted { suite, .. }) if !suite.has_end())
            }
        }
    }
}

/// Whether a file of this layout can have such a stream.
fn is_stream_of(object: &Object, layout: Layout) -> bool {
    let &Object { len, stream_len, .. } = object;
    if len > BODY_LEN_MAX || stream_len > BODY_LEN_MAX {
        return false;
    }
    if !layout.suite().keeps_appends() {
        return stream_len == len;
    }
    let Some(lengths) = stream_len.checked_sub(len) else { return false };
    let frames = lengths / 4;
    lengths % 4 == 0 && frames <= len && len <= frames.saturating_mul(FRAME_LEN_MAX as u64)
}

fn is_inside(path: &[u8]) -> bool {
    let path = relative(path);
    is_plain(&path, &path) && !crate::names::is_reserved_path(path)
}

fn is_elsewhere(path: &[u8]) -> bool {
    let path = relative(path);
    match path.strip_prefix("/") {
        Ok(below) => below.as_os_str().is_empty() || is_plain(below, &path),
        Err(_) => false,
    }
}

/// Whether all parts of `below` are names, and `path`, which ends in it, says so in the one
/// way there is.
fn is_plain(below: &Path, path: &Path) -> bool {
    let plain = below.components().all(|part| matches!(part, Component::Normal(_)));
    let again: PathBuf = path.components().collect();
    plain
        && !below.as_os_str().is_empty()
        && again.as_os_str() == path.as_os_str()
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}
