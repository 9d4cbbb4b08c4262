//! Which files there are to rewrite.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::Reencrypt;
use crate::classify::Contents;
use crate::names::is_temporary;
use crate::scan::{Found, Visitor};
use crate::store::stale::{Judge, StaleFile, StaleReason, oldest_first};
use crate::vfs::Inode;

/// One file, whatever its names.
pub(super) struct Work {
    pub(super) file: StaleFile,
    /// Its other names that it has to keep.
    pub(super) others: Vec<Box<Path>>,
    /// If it has several.
    pub(super) inode: Option<Inode>,
    /// The names that were met.
    pub(super) names: u64,
    /// Those that it had when it was first met.
    pub(super) links: u64,
}

impl Work {
    /// The names of the file that were met, but for those that backups gave it.
    pub(super) fn names(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&*self.file.path).chain(self.others.iter().map(|other| &**other))
    }

    /// The files that were found, oldest first.
    pub(super) fn of(found: Vec<Collect<'_>>) -> Vec<Self> {
        let mut names: HashMap<Inode, u64> = HashMap::new();
        let mut files = Vec::new();
        for part in found {
            part.names.into_iter().for_each(|(inode, met)| *names.entry(inode).or_default() += met);
            files.extend(part.files);
        }
        files.sort_unstable_by(|(one, ..), (other, ..)| oldest_first(one, other));
        let mut works: Vec<Self> = Vec::with_capacity(files.len());
        let mut known: HashMap<Inode, usize> = HashMap::new();
        for (file, inode, links) in files {
            if let Some(at) = inode.and_then(|inode| known.get(&inode)) {
                works[*at].others.push(file.path);
                continue;
            }
            if let Some(inode) = inode {
                known.insert(inode, works.len());
            }
            let names = inode.and_then(|inode| names.get(&inode).copied()).unwrap_or(1);
            works.push(Self { file, others: Vec::new(), inode, names, links });
        }
        works
    }
}

pub(super) struct Collect<'a> {
    judge: &'a Judge,
    how: &'a Reencrypt<'a>,
    /// With inode and number of links.
    files: Vec<(StaleFile, Option<Inode>, u64)>,
    /// How often files with several names were met.
    names: HashMap<Inode, u64>,
    leftovers: Vec<PathBuf>,
}

impl<'a> Collect<'a> {
    pub(super) fn new(judge: &'a Judge, how: &'a Reencrypt<'a>) -> Self {
        Self { judge, how, files: Vec::new(), names: HashMap::new(), leftovers: Vec::new() }
    }

    /// What killed runs left.
    pub(super) fn take_leftovers(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.leftovers)
    }
}

impl Visitor for Collect<'_> {
    fn file(&mut self, found: &Found<'_>) {
        if is_temporary(found.name) {
            self.leftovers.push(found.path());
            return;
        }
        self.staged(found);
        let path = || found.path().into_boxed_path();
        let stale = if self.how.to_plaintext {
            self.judge.any(path, &found.stat, &found.what)
        } else if matches!(found.what, Contents::Plaintext | Contents::Unwritten)
            && self.how.plaintext.is_none()
        {
            None
        } else {
            self.judge.stale(path, &found.stat, &found.what)
        };
        let wanted = |file: &StaleFile| match (file.reason, self.how.plaintext) {
            (StaleReason::Plaintext, Some(spec_of)) => spec_of(&file.path).is_some(),
            _ => true,
        };
        let stale = stale.filter(wanted);
        let stat = &found.stat;
        self.files.extend(stale.map(|file| (file, stat.shared_inode(), stat.links)));
    }

    // Only the backup reads it, and the name that the engine gave it is met as well.
    fn staged(&mut self, found: &Found<'_>) {
        if let Some(inode) = found.stat.shared_inode() {
            *self.names.entry(inode).or_default() += 1;
        }
    }

    // Rewriting what it leads to would leave the link behind.
    fn link(&mut self, _path: &Path) {}
}
