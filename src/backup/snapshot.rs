//! The files of a store at one moment, kept by hard links while they are copied.
//!
//! Files are linked and looked at until nothing came, went or moved meanwhile, so all of
//! them were there at one moment. Lengths are taken at the end of it: of manifests first,
//! then of logs, then of all else, so that what a manifest names is as long as it has to
//! be. A file that grows later is copied up to the length it had.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::staging::{self, Staging};
use crate::classify::Contents;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{FileKind, Header};
use crate::ids::StoreId;
use crate::names::is_temporary;
use crate::scan;
use crate::store::Store;
use crate::vfs::{EntryKind, FileStat, Links, ReadFile, Vfs};
use crate::walk::{Met, nested, walk};

/// Times that the files are linked before a store that never holds still is given up.
const ATTEMPTS_MAX: usize = 100;

/// The files of a store at one moment. While it lives, hard links in a directory
/// `KEYRING.staging.*` of the store keep what the engine removes; it takes them away when
/// it is dropped, and those that a killed process left when the next one is taken.
///
/// An engine whose files have to be consistent in a stronger sense than "every name and
/// length at one moment" takes it while it holds its own writes back: it needs no more
/// time than linking does.
#[derive(Debug)]
pub struct Snapshot {
    pub(super) store_id: StoreId,
    pub(super) generation: u64,
    pub(super) taken_ns: u64,
    pub(super) directories: Vec<(PathBuf, u32)>,
    /// By path.
    pub(super) files: Vec<SnapFile>,
    others: u64,
    _staging: Staging,
}

/// One file of it.
#[derive(Debug)]
pub(super) struct SnapFile {
    /// Relative to the store.
    pub(super) path: PathBuf,
    /// The link that keeps it.
    pub(super) link: PathBuf,
    pub(super) stat: FileStat,
    /// `None` for plaintext.
    pub(super) header: Option<Box<Header>>,
    /// Nothing was readable in it.
    pub(super) empty: bool,
}

struct Linked {
    link: PathBuf,
    inode: u64,
    what: Contents,
}

impl Snapshot {
    /// Links the files below `root`, the store's directory.
    ///
    /// Renames, links and removals through the store wait meanwhile.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), with `ResourceBusy` for a store whose files never stay for
    /// as long as it takes to link them; [`InvalidArgument`](ErrorKind::InvalidArgument)
    /// if another store or a backup lies inside.
    pub fn take(store: &Store, root: impl AsRef<Path>) -> Result<Self> {
        let fs = store.files();
        let (vfs, root) = (fs.vfs(), root.as_ref());
        staging::sweep(&**vfs, root)?;
        let staging = Staging::create(vfs.clone(), root)?;
        let mut linked: HashMap<PathBuf, Linked> = HashMap::new();
        for _ in 0..ATTEMPTS_MAX {
            let alone = fs.places().moves().alone();
            let taken_ns = fs.keyring().now_ns();
            let before = Listing::read(&**vfs, root)?;
            if !link_all(&**vfs, root, &staging, &before, &mut linked)? {
                continue;
            }
            let Some(lengths) = lengths(&**vfs, &mut linked, &before)? else { continue };
            let after = Listing::read(&**vfs, root)?;
            drop(alone);
            if before.same(&after) {
                let files = before.files.into_keys().zip(lengths);
                let files = files.map(|(path, stat)| SnapFile::new(path, stat, &mut linked));
                return Ok(Self {
                    store_id: fs.keyring().store_id(),
                    generation: fs.keyring().anchor().generation,
                    taken_ns,
                    files: files.collect(),
                    directories: before.directories.into_iter().collect(),
                    others: before.others,
                    _staging: staging,
                });
            }
        }
        let what = "the store's files never stayed while they were linked";
        Err(Error::new(ErrorKind::Io(io::ErrorKind::ResourceBusy), what).with_path(root))
    }

    /// Symbolic links, sockets and the like, which no backup holds.
    pub fn others(&self) -> u64 {
        self.others
    }
}

impl SnapFile {
    fn new(path: PathBuf, stat: FileStat, linked: &mut HashMap<PathBuf, Linked>) -> Self {
        // OK because every file of the listing was linked.
        let Linked { link, what, .. } = linked.remove(&path).expect("a linked file");
        let empty = matches!(what, Contents::Empty | Contents::Torn);
        let header = if let Contents::Encrypted(header) = what { Some(header) } else { None };
        Self { path, link, stat, header, empty }
    }
}

/// What lies below a directory.
pub(super) struct Listing {
    /// Relative paths.
    pub(super) files: BTreeMap<PathBuf, FileStat>,
    /// With their modes.
    pub(super) directories: BTreeMap<PathBuf, u32>,
    others: u64,
}

impl Listing {
    pub(super) fn read(vfs: &dyn Vfs, root: &Path) -> Result<Self> {
        let mut listing = Self { files: BTreeMap::new(), directories: BTreeMap::new(), others: 0 };
        walk(vfs, root, &mut |met, entry| listing.add(vfs, root, met, &entry.path))?;
        Ok(listing)
    }

    fn add(&mut self, vfs: &dyn Vfs, root: &Path, met: Met, path: &Path) -> Result<()> {
        let stat = match met {
            Met::File | Met::Directory => match vfs.stat(path) {
                Ok(stat) => stat,
                // Removed since: the second listing tells.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => {
                    let what = "the file's attributes are unknown";
                    return Err(Error::io(what, error).with_path(path));
                }
            },
            Met::NestedStore => return Err(nested(path)),
            Met::Link | Met::Other => {
                self.others += 1;
                return Ok(());
            }
            Met::Own => return Ok(()),
        };
        if path.file_name().is_some_and(|name| is_temporary(name.as_encoded_bytes())) {
            return Ok(());
        }
        // OK because a walk names what is below its root.
        let below = path.strip_prefix(root).expect("a path below the root").to_owned();
        match stat.kind {
            EntryKind::File => drop(self.files.insert(below, stat)),
            EntryKind::Directory => drop(self.directories.insert(below, stat.mode)),
            _ => self.others += 1,
        }
        Ok(())
    }

    fn same(&self, other: &Self) -> bool {
        let inode = |(path, stat): (_, &FileStat)| (path, stat.inode);
        self.files.len() == other.files.len()
            && self.files.iter().map(inode).eq(other.files.iter().map(inode))
            && self.directories.keys().eq(other.directories.keys())
    }
}

/// Links all files that are not linked yet, and reads their headers. False if one is gone.
fn link_all(
    vfs: &dyn Vfs,
    root: &Path,
    staging: &Staging,
    listing: &Listing,
    linked: &mut HashMap<PathBuf, Linked>,
) -> Result<bool> {
    linked.retain(|path, link| {
        let kept = listing.files.get(path).is_some_and(|stat| stat.inode == link.inode);
        if !kept {
            // What stays goes with the whole.
            drop(vfs.remove(&link.link));
        }
        kept
    });
    for (path, stat) in &listing.files {
        if linked.contains_key(path) {
            continue;
        }
        let from = root.join(path);
        let Some(link) = staging.link(&from)? else { return Ok(false) };
        let (now, what) = look(vfs, &link, &from)?;
        if now.inode != stat.inode {
            // Another file took the name.
            drop(vfs.remove(&link));
            return Ok(false);
        }
        linked.insert(path.clone(), Linked { link, inode: now.inode, what });
    }
    Ok(true)
}

fn look(vfs: &dyn Vfs, link: &Path, from: &Path) -> Result<(FileStat, Contents)> {
    let looked = scan::look(vfs, link).map_err(|error| error.with_path(from))?;
    match looked {
        Some((_, Contents::Unreadable(kind))) => {
            Err(Error::new(kind, "the file's header is not readable").with_path(from))
        }
        Some(found) => Ok(found),
        None => {
            let kind = ErrorKind::Io(io::ErrorKind::NotFound);
            Err(Error::new(kind, "the link of a file that is backed up is gone").with_path(link))
        }
    }
}

/// The attributes of all files now, in the order of the listing. `None` if one has got its
/// header meanwhile and has to be looked at again.
fn lengths(
    vfs: &dyn Vfs,
    linked: &mut HashMap<PathBuf, Linked>,
    listing: &Listing,
) -> Result<Option<Vec<FileStat>>> {
    let rank = |path: &Path| match linked.get(path).map(|link| &link.what) {
        Some(Contents::Encrypted(header)) => match header.kind {
            FileKind::Manifest => 0,
            FileKind::Log => 1,
            _ => 2,
        },
        // Nobody knows what a plaintext file is for.
        _ => 0,
    };
    let paths: Vec<&PathBuf> = listing.files.keys().collect();
    let mut order: Vec<(u8, usize)> =
        paths.iter().enumerate().map(|(index, path)| (rank(path), index)).collect();
    order.sort_unstable();
    let mut stats = vec![FileStat::default(); paths.len()];
    for (_, index) in order {
        let Some(found) = linked.get(paths[index].as_path()) else { return Ok(None) };
        let stat = vfs.stat(&found.link).map_err(|e| {
            Error::io("the file's attributes are unknown", e).with_path(&found.link)
        })?;
        if matches!(found.what, Contents::Empty | Contents::Torn)
            && stat.len >= crate::HEADER_LEN as u64
        {
            let gone = linked.remove(paths[index].as_path());
            drop(gone.map(|gone| vfs.remove(&gone.link)));
            return Ok(None);
        }
        stats[index] = stat;
    }
    Ok(Some(stats))
}

/// A file up to the length it had.
#[derive(Debug)]
pub(super) struct Capped {
    pub(super) file: Box<dyn ReadFile>,
    pub(super) len: u64,
}

#[deny(clippy::missing_trait_methods)]
impl ReadFile for Capped {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.len.saturating_sub(offset);
        let len = usize::try_from(rest).map_or(buf.len(), |rest| rest.min(buf.len()));
        self.file.read_at(&mut buf[..len], offset)
    }

    fn len(&self) -> io::Result<u64> {
        // A file that became shorter is no longer what it was.
        Ok(self.len.min(self.file.len()?))
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.file.will_need(offset, len);
    }
}

/// Opens the file of a snapshot.
pub(super) fn open_capped(vfs: &Arc<dyn Vfs>, file: &SnapFile) -> Result<Box<dyn ReadFile>> {
    let opened = vfs.open(&file.link, Links::Follow);
    let opened = opened.map_err(|e| Error::io("the file cannot be opened", e))?;
    Ok(Box::new(Capped { file: opened, len: file.stat.len }))
}
