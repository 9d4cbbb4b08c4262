//! What a file system in memory holds: names, what they lead to, and which of both is
//! durable.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use atrest::vfs::{EntryKind, Links};

use super::faults::{Fault, Strike};
use super::{Crash, Op};

/// Links that lead to links before somebody gives up.
const HOPS_MAX: usize = 40;

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) inodes: Vec<Inode>,
    pub(super) names: BTreeMap<PathBuf, usize>,
    /// Names as of the last `sync_dir` of their directory.
    pub(super) durable: BTreeMap<PathBuf, usize>,
    /// What changed and was not made durable since, in order.
    pub(super) pending: Vec<Change>,
    /// Counts changes of what a crash leaves.
    pub(super) version: u64,
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
    pub(super) faults: Vec<Fault>,
    /// Whether one of them struck.
    pub(super) is_struck: bool,
    /// What the operation under way ends with although it was carried out.
    pub(super) late: Option<i32>,
    /// States between operations, if they are kept, each with its version.
    pub(super) points: Option<Vec<State>>,
    /// Time of the last change, in ns.
    ticks: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) node: Node,
    pub(super) data: Arc<Vec<u8>>,
    pub(super) synced: Arc<Vec<u8>>,
    /// After a failed fsync nothing that was written before it ever becomes durable for sure.
    pub(super) sync_failed: bool,
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

/// A change that a crash may take back.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Name(NameOp),
    /// So many bytes of an inode from this offset on.
    Data(usize, usize, usize),
}

#[derive(Clone, Debug)]
pub(super) enum NameOp {
    Add(PathBuf, usize),
    Remove(PathBuf),
    /// The old name of a rename goes, which it does not without the new one.
    Leave(PathBuf, usize),
    Exchange(PathBuf, PathBuf),
    /// Of a directory with all below it.
    Move(PathBuf, PathBuf),
}

impl Inode {
    pub(super) fn new(node: Node, mode: u32) -> Self {
        let (data, synced) = Default::default();
        let (owner, modified_ns, sync_failed) = ((1000, 1000), 0, false);
        Self { node, data, synced, sync_failed, mode, owner, modified_ns }
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
    /// The directories that have to be synced for it.
    fn touches(&self, dir: &Path) -> bool {
        let inside = |path: &PathBuf| path.parent() == Some(dir);
        match self {
            Self::Add(path, _) | Self::Remove(path) | Self::Leave(path, _) => inside(path),
            Self::Exchange(one, other) | Self::Move(one, other) => inside(one) || inside(other),
        }
    }

    pub(super) fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Add(path, inode) => drop(names.insert(path, inode)),
            Self::Remove(path) | Self::Leave(path, _) => drop(names.remove(&path)),
            Self::Exchange(one, other) => {
                // Without one of them, as after an outcome without its creation, nothing is left
                // to exchange.
                let (Some(first), Some(second)) =
                    (names.get(&one).copied(), names.get(&other).copied())
                else {
                    return;
                };
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
        self.keep_point();
        // Of an operation that failed by itself.
        self.late = None;
        let strike = Fault::strike(&mut self.faults, &op);
        self.is_struck |= strike.is_some();
        self.log.push(op);
        if self.fail_at == Some(at) {
            return Err(io::Error::other("injected"));
        }
        match strike {
            Some(Strike::Before(errno)) => return Err(io::Error::from_raw_os_error(errno)),
            Some(Strike::After(errno)) => self.late = Some(errno),
            Some(Strike::OtherBytes) | None => {}
        }
        Ok(())
    }

    /// The answer of an operation that was carried out.
    pub(super) fn end(&mut self) -> io::Result<()> {
        match self.late.take() {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }

    /// Everything without counts, faults and what was kept.
    pub(super) fn bare(&mut self) -> Self {
        let (points, log) = (self.points.take(), std::mem::take(&mut self.log));
        let mut bare = self.clone();
        (self.points, self.log) = (points, log);
        bare.locks.clear();
        bare.faults.clear();
        bare.late = None;
        (bare.stop_at, bare.fail_at, bare.stopped) = (None, None, false);
        bare
    }

    /// Keeps the state, if states are kept and this one is another than the last.
    pub(super) fn keep_point(&mut self) {
        let known = |points: &Vec<Self>| points.last().is_some_and(|p| p.version == self.version);
        if self.points.as_ref().is_some_and(|points| !known(points)) {
            let point = self.bare();
            self.points.get_or_insert_default().push(point);
        }
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
        self.version += 1;
        self.pending.push(Change::Name(op.clone()));
        op.apply(&mut self.names);
    }

    pub(super) fn append(&mut self, inode: usize, bytes: &[u8]) {
        let modified_ns = self.tick();
        let file = &mut self.inodes[inode];
        let offset = file.data.len();
        Arc::make_mut(&mut file.data).extend_from_slice(bytes);
        file.modified_ns = modified_ns;
        if !bytes.is_empty() {
            self.version += 1;
            self.pending.push(Change::Data(inode, offset, bytes.len()));
        }
    }

    /// Makes a file's bytes durable.
    pub(super) fn sync(&mut self, inode: usize) {
        self.version += 1;
        self.inodes[inode].synced = self.inodes[inode].data.clone();
        self.pending.retain(|change| !matches!(change, Change::Data(of, ..) if *of == inode));
    }

    /// Makes the names in a directory durable.
    pub(super) fn sync_names(&mut self, dir: &Path) {
        self.version += 1;
        let moved = |change: &Change| matches!(change, Change::Name(op @ NameOp::Move(..)) if op.touches(dir));
        // What changed below a directory that was moved cannot be told apart from its move.
        let all = self.pending.iter().any(moved);
        for change in std::mem::take(&mut self.pending) {
            match change {
                Change::Name(op) if all || op.touches(dir) => op.apply(&mut self.durable),
                other => self.pending.push(other),
            }
        }
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
        let ops = std::mem::take(&mut self.pending).into_iter().filter_map(|change| match change {
            Change::Name(op) => Some(op),
            Change::Data(..) => None,
        });
        for op in ops.take(crash.names) {
            op.apply(&mut names);
        }
        for inode in &mut self.inodes {
            if crash.data {
                inode.synced = inode.data.clone();
            } else {
                inode.data = inode.synced.clone();
            }
        }
        self.settle_as(names);
    }

    /// From now on this is what is there, durably.
    pub(super) fn settle_as(&mut self, names: BTreeMap<PathBuf, usize>) {
        self.version += 1;
        self.pending.clear();
        self.names = names.clone();
        self.durable = names;
        for inode in &mut self.inodes {
            inode.sync_failed = false;
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
