//! The files of a store at one moment, kept by hard links while they are copied.
//!
//! Files are linked and looked at until nothing went or moved meanwhile, so all of them
//! were there at one moment. Lengths are taken in between: of manifests first, then of logs,
//! then of all else, so that what a manifest names is as long as it has to be. Of what came
//! meanwhile, files that name no others are taken along, since a manifest may name them;
//! for the others it begins anew. A file that grows later is copied up to the length it
//! had.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::lack::{LackEntry, LackReason};
use super::staging::{self, StagedLink, Staging};
use crate::classify::Contents;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{FileKind, Header};
use crate::ids::StoreId;
use crate::keyring::PlaintextPolicy;
use crate::names::{NameKind, is_temporary, kind_of};
use crate::scan;
use crate::store::Store;
use crate::vfs::{DirEntry, EntryKind, FileStat, Links, Map, ReadFile, Vfs};
use crate::walk::{Met, nested, walk};

/// Times that the files are linked before a store that never holds still is given up.
const ATTEMPTS_MAX: usize = 100;
/// Of these, times that nobody has to wait.
const ATTEMPTS_BESIDE: usize = 3;

/// The files of a store at one moment. While it lives, hard links in a directory
/// `KEYRING.staging.*` of the store, and in one of each file system that is mounted inside
/// of it, keep what the engine removes; it takes them away when
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
    pub(super) lacks: Vec<LackEntry>,
    others: u64,
    lost_found: Vec<PathBuf>,
    _staging: Staging,
}

/// One file of it.
#[derive(Debug)]
pub(super) struct SnapFile {
    /// Relative to the store.
    pub(super) path: PathBuf,
    /// What keeps it.
    pub(super) link: StagedLink,
    pub(super) stat: SnapStat,
    /// `None` for plaintext.
    pub(super) header: Option<Box<Header>>,
    /// Nothing was readable in it.
    pub(super) empty: bool,
}

/// What a backup keeps of a file's attributes. There may be millions of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct SnapStat {
    pub(super) len: u64,
    pub(super) inode: u64,
    pub(super) modified_ns: i64,
    pub(super) mode: u32,
}

impl From<FileStat> for SnapStat {
    fn from(stat: FileStat) -> Self {
        let FileStat { len, inode, modified_ns, mode, .. } = stat;
        Self { len, inode, modified_ns, mode }
    }
}

struct Linked {
    link: StagedLink,
    inode: u64,
    /// When its header was read.
    len: u64,
    what: Contents,
    /// As it is to be in the snapshot.
    stat: Option<SnapStat>,
}

impl Snapshot {
    /// Links the files below `root`, the store's directory.
    ///
    /// It is done beside the engine. Only where something goes or moves each time that the
    /// files are looked at, what the engine creates, renames, links and removes through the
    /// store waits for one look.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io), with `ResourceBusy` for a store whose files never stay for
    /// as long as it takes to look at them; [`InvalidArgument`](ErrorKind::InvalidArgument)
    /// if another store or a backup lies inside, or if a registered directory that is inside has
    /// not its marker: it may not be mounted.
    pub fn take(store: &Store, root: impl AsRef<Path>) -> Result<Self> {
        let fs = store.files();
        let (vfs, root) = (fs.vfs(), root.as_ref());
        check_inside(store, root)?;
        let first = Listing::read(&**vfs, root)?;
        for left in &first.stagings {
            staging::sweep(vfs, left)?;
        }
        let staging = Staging::create(vfs.clone(), root)?;
        let plaintext = fs.keyring().settings().plaintext == PlaintextPolicy::Allow;
        let mut taking = Taking { vfs: &**vfs, root, plaintext, staging, linked: BTreeMap::new() };
        taking.link(&first)?;
        drop(first);
        for attempt in 0..ATTEMPTS_MAX {
            let busy = attempt >= ATTEMPTS_BESIDE;
            if busy {
                taking.link(&Listing::read(&**vfs, root)?)?;
            }
            let alone = busy.then(|| fs.places().moves().alone());
            let taken_ns = fs.keyring().now_ns();
            let settled = taking.settle()?;
            drop(alone);
            let Some(listing) = settled else { continue };
            // What was taken away in between was not looked at.
            check_inside(store, root)?;
            let Listing { directories, links, others, lost_found, .. } = listing;
            let links = links.iter().map(|link| LackEntry::new(link, LackReason::Link));
            let Taking { staging, linked, .. } = taking;
            let mut files = Vec::with_capacity(linked.len());
            let all = linked.into_iter().map(|(path, linked)| SnapFile::new(path, linked));
            files.extend(all.filter(|file| !file.is_temporary()));
            return Ok(Self {
                store_id: fs.keyring().store_id(),
                generation: fs.keyring().anchor().generation,
                taken_ns,
                files,
                directories: directories.into_iter().collect(),
                lacks: links.chain(elsewhere(store, root)?).collect(),
                others,
                lost_found,
                _staging: staging,
            });
        }
        let what = "the store's files never stayed while they were looked at";
        Err(Error::new(ErrorKind::Io(io::ErrorKind::ResourceBusy), what).with_path(root))
    }

    /// Sockets, devices and the like, which no backup holds.
    pub fn others(&self) -> u64 {
        self.others
    }

    /// A file system's [`lost+found`](crate::walk::PassedBy::lost_found) that this process may
    /// not list, and of which no backup holds anything.
    pub fn lost_found(&self) -> &[PathBuf] {
        &self.lost_found
    }
}

fn canonical(store: &Store, root: &Path) -> Result<PathBuf> {
    let canonical = store.files().vfs().canonical(root);
    canonical.map_err(|e| Error::io("the directory is lost", e).with_path(root))
}

/// Whether the registered directories below the one that is backed up are there: where none is
/// mounted there are no files, and nothing else would tell that they are lacking.
fn check_inside(store: &Store, root: &Path) -> Result<()> {
    let root = canonical(store, root)?;
    let mut absent = store.directories().absent().into_iter();
    absent.find(|(dir, _)| dir.starts_with(&root)).map_or(Ok(()), |(_, error)| Err(error))
}

/// The store's directories that are not below the one that is backed up.
fn elsewhere(store: &Store, root: &Path) -> Result<Vec<LackEntry>> {
    let root = canonical(store, root)?;
    let all = store.directories().list();
    let others = all.iter().filter(|dir| !dir.starts_with(&root));
    Ok(others.map(|dir| LackEntry::new(dir, LackReason::Elsewhere)).collect())
}

impl SnapFile {
    /// Whether nobody can read it once this process ends.
    fn is_temporary(&self) -> bool {
        self.header.as_ref().is_some_and(|header| header.is_temporary())
    }

    fn new(path: PathBuf, linked: Linked) -> Self {
        let Linked { link, what, stat, .. } = linked;
        // OK because the files settle only when each has its attributes.
        let stat = stat.expect("the attributes of a file that settled");
        let empty = is_unreadable(&what);
        let header = if let Contents::Encrypted(header) = what { Some(header) } else { None };
        Self { path, link, stat, header, empty }
    }
}

/// What lies below a directory.
#[derive(Default)]
pub(super) struct Listing {
    /// Relative paths, with inodes.
    pub(super) files: BTreeMap<PathBuf, u64>,
    /// With their modes.
    pub(super) directories: BTreeMap<PathBuf, u32>,
    /// Symbolic links.
    pub(super) links: Vec<PathBuf>,
    pub(super) others: u64,
    lost_found: Vec<PathBuf>,
    /// Directories of links, with their whole paths.
    stagings: Vec<PathBuf>,
}

impl Listing {
    pub(super) fn read(vfs: &dyn Vfs, root: &Path) -> Result<Self> {
        let mut listing = Self::default();
        walk(vfs, root, &mut |met, entry| listing.add(vfs, root, met, entry))?;
        Ok(listing)
    }

    /// The rest, when the files, of which there may be millions, are known elsewhere.
    fn without_files(self) -> Self {
        Self { files: BTreeMap::new(), ..self }
    }

    fn add(&mut self, vfs: &dyn Vfs, root: &Path, met: Met, entry: &DirEntry) -> Result<()> {
        let path = &entry.path;
        // OK because a walk names what is below its root.
        let below = || path.strip_prefix(root).expect("a path below the root").to_owned();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
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
            Met::LostFound => {
                self.lost_found.push(below());
                return Ok(());
            }
            Met::Link => {
                self.links.push(below());
                return Ok(());
            }
            Met::Other => {
                self.others += 1;
                return Ok(());
            }
            Met::Own => {
                if entry.kind == EntryKind::Directory && kind_of(name) == Some(NameKind::Staging) {
                    self.stagings.push(path.clone());
                }
                return Ok(());
            }
        };
        if is_temporary(name) {
            return Ok(());
        }
        match stat.kind {
            EntryKind::File => drop(self.files.insert(below(), stat.inode)),
            EntryKind::Directory => drop(self.directories.insert(below(), stat.mode)),
            EntryKind::Link => self.links.push(below()),
            EntryKind::Other => self.others += 1,
        }
        Ok(())
    }
}

/// A snapshot being taken.
struct Taking<'a> {
    vfs: &'a dyn Vfs,
    root: &'a Path,
    /// Whether it is allowed.
    plaintext: bool,
    staging: Staging,
    linked: BTreeMap<PathBuf, Linked>,
}

impl Taking<'_> {
    /// All files and their lengths, as they were at one moment. `None` if something went
    /// away or moved meanwhile, or if what came may name what came after it: files that
    /// name no others are taken along instead.
    fn settle(&mut self) -> Result<Option<Listing>> {
        let before = Listing::read(self.vfs, self.root)?;
        self.linked.values_mut().for_each(|linked| linked.stat = None);
        if !self.link(&before)? || !self.lengths()? {
            return Ok(None);
        }
        let before = before.without_files();
        // All that the files name, as long as they were just now, is in this one.
        let after = Listing::read(self.vfs, self.root)?;
        let stayed = self.linked.iter().all(|(path, linked)| linked.is_at(path, &after))
            && before.directories.keys().all(|dir| after.directories.contains_key(dir));
        if !stayed || !self.link(&after)? {
            return Ok(None);
        }
        let mut added = self.linked.values().filter(|linked| linked.stat.is_none());
        if added.any(Linked::may_name_others) || !self.lengths()? {
            return Ok(None);
        }
        Ok(Some(after.without_files()))
    }

    /// Links all files that are not linked yet, and reads their headers. False if one is
    /// gone.
    fn link(&mut self, listing: &Listing) -> Result<bool> {
        let vfs = self.vfs;
        // The links stay, and go with the whole: others of their files' names may need them.
        self.linked.retain(|path, linked| linked.is_at(path, listing));
        for (path, inode) in &listing.files {
            if self.linked.contains_key(path) {
                continue;
            }
            let from = self.root.join(path);
            let Some(link) = self.staging.link(&from, *inode)? else { return Ok(false) };
            let (now, what) = look(vfs, &link.path(), &from)?;
            if now.inode != *inode {
                // Another file took the name.
                drop(vfs.remove(&link.path()));
                return Ok(false);
            }
            let what = what.where_plaintext_is(self.plaintext);
            let linked = Linked { link, inode: now.inode, len: now.len, what, stat: None };
            self.linked.insert(path.clone(), linked);
        }
        Ok(true)
    }

    /// Gives the attributes that they have now to those files that have none yet. False if one
    /// of which nothing was readable has grown, and has to be looked at again.
    fn lengths(&mut self) -> Result<bool> {
        for rank in Linked::RANKS {
            for (path, linked) in &mut self.linked {
                if linked.stat.is_some() || linked.rank() != rank {
                    continue;
                }
                let link = linked.link.path();
                let stat = self.vfs.stat(&link).map_err(|e| {
                    Error::io("the file's attributes are unknown", e).with_path(&link)
                })?;
                if is_unreadable(&linked.what) && stat.len != linked.len {
                    let path = path.clone();
                    self.linked.remove(&path);
                    return Ok(false);
                }
                linked.stat = Some(stat.into());
            }
        }
        Ok(true)
    }
}

impl Linked {
    const RANKS: std::ops::Range<u8> = 0..3;

    /// In which order lengths are taken: first those of files that name others.
    fn rank(&self) -> u8 {
        match &self.what {
            Contents::Encrypted(header) => match header.kind {
                FileKind::Manifest => 0,
                FileKind::Log => 1,
                _ => 2,
            },
            // It may be one that is being written, and named by others that are written meanwhile.
            what if is_unreadable(what) => 2,
            // Nobody knows what a plaintext file is for.
            _ => 0,
        }
    }

    fn may_name_others(&self) -> bool {
        self.rank() < 2
    }

    fn is_at(&self, path: &Path, listing: &Listing) -> bool {
        listing.files.get(path) == Some(&self.inode)
    }
}

/// Whether nothing could be read in a file so far.
fn is_unreadable(what: &Contents) -> bool {
    matches!(what, Contents::Empty | Contents::Torn)
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

    fn opened_len(&self) -> io::Result<u64> {
        Ok(self.len.min(self.file.opened_len()?))
    }

    fn will_need(&self, offset: u64, len: u64) {
        self.file.will_need(offset, len);
    }

    fn map(&self) -> Option<Map> {
        None
    }
}

/// Opens the file of a snapshot.
pub(super) fn open_capped(vfs: &Arc<dyn Vfs>, file: &SnapFile) -> Result<Box<dyn ReadFile>> {
    let opened = vfs.open(&file.link.path(), Links::Refuse);
    let opened = opened.map_err(|e| Error::io("the file cannot be opened", e))?;
    Ok(Box::new(Capped { file: opened, len: file.stat.len }))
}
