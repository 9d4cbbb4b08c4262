//! What a file system in memory holds: names, what they lead to, and which of both is
//! durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use atrest::vfs::{EntryKind, Links};

use super::{Crash, Op};

/// Links that lead to links before somebody gives up.
const HOPS_MAX: usize = 40;

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<PathBuf, usize>,
    /// Names as of the last `sync_dir`, and what changed since.
    pub(super) durable: BTreeMap<PathBuf, usize>,
    pub(super) pending: Vec<NameOp>,
    pub(super) log: Vec<Op>,
    pub(super) stop_at: Option<usize>,
    pub(super) stopped: bool,
    pub(super) fail_at: Option<usize>,
    /// Bytes that still fit.
    pub(super) room: Option<usize>,
    pub(super) locks: BTreeSet<PathBuf>,
    pub(super) vanish: Option<PathBuf>,
    pub(super) no_links: bool,
    pub(super) can_exchange: bool,
    /// Time of the last change, in ns.
    ticks: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) node: Node,
    pub(super) data: Vec<u8>,
    pub(super) synced: Vec<u8>,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) modified_ns: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File,
    Directory,
    Link(PathBuf),
}

#[derive(Clone, Debug)]
pub(super) enum NameOp {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Exchange(PathBuf, PathBuf),
    /// Of a directory with all below it.
    Move(PathBuf, PathBuf),
}

impl Inode {
    pub(super) fn new(node: Node, mode: u32) -> Self {
        let (data, synced) = (Vec::new(), Vec::new());
        Self { node, data, synced, mode, owner: (1000, 1000), modified_ns: 0 }
    }

    pub(super) fn kind(&self) -> EntryKind {
        match self.node {
            Node::File => EntryKind::File,
            Node::Directory => EntryKind::Directory,
            Node::Link(_) => EntryKind::Link,
        }
    }
}

impl NameOp {
    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Add(path, inode) => drop(names.insert(path, inode)),
            Self::Remove(path) => drop(names.remove(&path)),
            Self::Exchange(one, other) => {
                let (first, second) = (names[&one], names[&other]);
                names.insert(one, second);
                names.insert(other, first);
            }
            Self::Move(from, to) => {
                let moved: Vec<PathBuf> =
                    names.keys().filter(|path| path.starts_with(&from)).cloned().collect();
                for path in moved {
                    let below = path.strip_prefix(&from).unwrap();
                    let new =
                        if below.as_os_str().is_empty() { to.clone() } else { to.join(below) };
                    let inode = names.remove(&path).unwrap();
                    names.insert(new, inode);
                }
            }
        }
    }
}

impl State {
    pub(super) fn begin(&mut self, op: Op) -> io::Result<()> {
        let at = self.log.len();
        if self.stop_at.is_some_and(|stop| at >= stop) {
            self.stopped = true;
            return Err(io::Error::other("the process was killed"));
        }
        self.log.push(op);
        if self.fail_at == Some(at) {
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }

    pub(super) fn tick(&mut self) -> i64 {
        self.ticks += 1;
        1_700_000_000_000_000_000 + self.ticks * 1_000_000
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The directory that `path` is in must be there.
    pub(super) fn check_parent(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
        match self.inodes[self.find(parent)?].node {
            Node::Directory => Ok(()),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn is_empty(&self, dir: &Path) -> bool {
        !self.names.keys().any(|path| path != dir && path.starts_with(dir))
    }

    pub(super) fn add(&mut self, path: PathBuf, mut inode: Inode) -> usize {
        inode.modified_ns = self.tick();
        self.inodes.push(inode);
        let inode = self.inodes.len() - 1;
        self.change(NameOp::Add(path, inode));
        inode
    }

    pub(super) fn change(&mut self, op: NameOp) {
        self.pending.push(op.clone());
        op.apply(&mut self.names);
    }

    /// Adds something durably, with the directories it needs.
    pub(super) fn settle(&mut self, path: &Path, inode: Inode) {
        if let Some(parent) = path.parent() {
            self.settle_dir(parent);
        }
        self.inodes.push(inode);
        let inode = self.inodes.len() - 1;
        self.names.insert(path.into(), inode);
        self.durable.insert(path.into(), inode);
    }

    pub(super) fn settle_dir(&mut self, dir: &Path) {
        if !self.names.contains_key(dir) {
            self.settle(dir, Inode::new(Node::Directory, 0o755));
        }
    }

    pub(super) fn crash(&mut self, crash: Crash) {
        let mut names = self.durable.clone();
        for op in self.pending.drain(..).take(crash.names) {
            op.apply(&mut names);
        }
        self.names = names.clone();
        self.durable = names;
        for inode in &mut self.inodes {
            if crash.data {
                inode.synced = inode.data.clone();
            } else {
                inode.data = inode.synced.clone();
            }
        }
    }

    /// The path through all symbolic links; of the last part only if they are followed.
    pub(super) fn resolve(&self, path: &Path, links: Links) -> io::Result<PathBuf> {
        let mut done = PathBuf::from("/");
        let mut left: Vec<OsString> = Vec::new();
        push_parts(&mut left, path);
        let mut hops = 0;
        while let Some(part) = left.pop() {
            if part == ".." {
                done.pop();
                continue;
            }
            let at = done.join(&part);
            let node = self.names.get(&at).map(|inode| &self.inodes[*inode].node);
            match node {
                Some(Node::Link(target)) if !left.is_empty() || links == Links::Follow => {
                    hops += 1;
                    if hops > HOPS_MAX {
                        return Err(io::Error::other("too many symbolic links"));
                    }
                    if target.is_absolute() {
                        done = PathBuf::from("/");
                    }
                    push_parts(&mut left, target);
                }
                _ => done = at,
            }
        }
        Ok(done)
    }
}

/// Puts the parts of a path on a stack, the first one on top.
fn push_parts(left: &mut Vec<OsString>, path: &Path) {
    let parts = path.components().rev().filter_map(|part| match part {
        Component::Normal(part) => Some(part.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    left.extend(parts);
}
