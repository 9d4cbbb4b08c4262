//! A file system in memory that counts operations, fails or stops at any of them, and
//! shows what a crash leaves.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use state::{Change, Inode, Node, State};

mod faults;
mod images;
mod state;
mod vfs;

pub use faults::{Fault, How, OpKind};
pub use images::{Chance, Image};

/// A file system in memory. A clone is the same one.
///
/// What was not made durable is lost in a [crash](Self::crashes): bytes since the last sync
/// of a file, names since the last sync of their directory. Operations are numbered from 0 in
/// the order in which they begin, for [`stop_at`](Self::stop_at) and
/// [`fail_at`](Self::fail_at).
#[derive(Clone, Debug)]
pub struct MemFs(Arc<Mutex<State>>);

/// One operation, with names without their directories.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// A file was created.
    Create(String),
    /// A file was opened.
    Open(String),
    /// So many bytes were asked for.
    Read(String, usize),
    /// So many bytes were appended.
    Append(String, usize),
    /// The name at creation, and what names the file whatever it is called.
    Sync(String, usize),
    /// From and to.
    Rename(String, String),
    /// The new name.
    Link(String),
    /// Both names.
    Exchange(String, String),
    /// A file or directory was removed.
    Remove(String),
    /// Attributes were asked for.
    Stat(String),
    /// Attributes were set.
    SetAttributes(String),
    /// A directory was created.
    CreateDir(String),
    /// A directory was listed.
    List,
    /// A directory was made durable.
    SyncDir,
    /// A lock was taken.
    Lock,
}

/// What a crash leaves of the changes that were not made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// How many of the pending changes of names survive, in order.
    pub names: usize,
    /// Whether bytes that were not synced survive.
    pub data: bool,
}

impl MemFs {
    /// A file system with one empty directory.
    pub fn new(dir: impl AsRef<Path>) -> Self {
        let mut state = State::default();
        state.settle_dir(dir.as_ref());
        Self(Arc::new(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A copy of everything, without locks, counts and faults.
    #[must_use]
    pub fn fork(&self) -> Self {
        let fork = self.state().bare();
        Self(Arc::new(Mutex::new(fork)))
    }

    /// From operation `at` on nothing happens any more, as if the process was killed. Of
    /// bytes that are appended just then a half arrives.
    pub fn stop_at(&self, at: usize) {
        self.state().stop_at = Some(at);
    }

    /// Whether an operation was refused because of [`stop_at`](Self::stop_at).
    pub fn is_stopped(&self) -> bool {
        self.state().stopped
    }

    /// The next process begins, after one that was killed, if it was: its locks are free.
    pub fn revive(&self) -> bool {
        let mut state = self.state();
        let was_stopped = std::mem::take(&mut state.stopped);
        state.stop_at = None;
        if was_stopped {
            state.locks.clear();
        }
        was_stopped
    }

    /// Operations so far: the number of the next one.
    pub fn next_op(&self) -> usize {
        self.state().log.len()
    }

    /// Operation `at` fails, those after it work.
    pub fn fail_at(&self, at: usize) {
        self.state().fail_at = Some(at);
    }

    /// Has no hard links from now on, as FAT.
    pub fn without_links(&self) {
        self.state().no_links = true;
    }

    /// Exchanges files from now on, as most file systems do.
    pub fn with_exchange(&self) {
        self.state().can_exchange = true;
    }

    /// Lets `room` more bytes fit.
    pub fn room(&self, room: Option<usize>) {
        self.state().room = room;
    }

    /// The operations so far.
    pub fn log(&self) -> Vec<Op> {
        self.state().log.clone()
    }

    /// Forgets them: the next one is number 0.
    pub fn clear_log(&self) {
        self.state().log.clear();
    }

    /// Every outcome that a crash now may have.
    pub fn crashes(&self) -> Vec<(Crash, Self)> {
        let is_name = |change: &&Change| matches!(change, Change::Name(_));
        let pending = self.state().pending.iter().filter(is_name).count();
        let outcomes = (0..=pending).flat_map(|names| [false, true].map(|data| (names, data)));
        outcomes.map(|(names, data)| self.crash(Crash { names, data })).collect()
    }

    fn crash(&self, crash: Crash) -> (Crash, Self) {
        let fork = self.fork();
        fork.state().crash(crash);
        (crash, fork)
    }

    /// Names, without their directories, and contents of all files.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let named = state.names.iter().filter_map(|(path, inode)| {
            let inode = &state.inodes[*inode];
            (inode.node == Node::File).then(|| (name(path), inode.data.to_vec()))
        });
        named.collect()
    }

    /// The content of a file, if it is there.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(path).map(|inode| state.inodes[*inode].data.to_vec())
    }

    /// Puts a file there, durably, whatever was there.
    pub fn put(&self, path: &Path, data: &[u8]) {
        let bytes = Arc::new(data.to_vec());
        let inode = Inode { data: bytes.clone(), synced: bytes, ..Inode::new(Node::File, 0o644) };
        self.state().settle(path, inode);
    }

    /// Makes sure that a directory is there, durably.
    pub fn put_dir(&self, dir: &Path) {
        self.state().settle_dir(dir);
    }

    /// Puts a symbolic link there, durably, whatever was there.
    pub fn put_link(&self, path: &Path, target: impl Into<PathBuf>) {
        self.state().settle(path, Inode::new(Node::Link(target.into()), 0o777));
    }

    /// Somebody else removes this file right after the next listing.
    pub fn vanish_after_list(&self, path: &Path) {
        self.state().vanish = Some(path.into());
    }

    /// Somebody else removes a file now, durably.
    pub fn delete(&self, path: &Path) {
        let mut state = self.state();
        state.names.remove(path).unwrap();
        state.durable.remove(path);
    }
}

/// What is there after a process was killed and the machine crashed.
#[derive(Debug)]
pub struct After {
    /// The operation at which it was killed.
    pub step: usize,
    /// Whether it had said that all was well.
    pub done: bool,
    /// What the crash left.
    pub crash: Crash,
    /// The file system, as the next process finds it.
    pub fs: MemFs,
}

/// Runs `run` on copies of `base`, killed before its first operation, its second and so on
/// until it ends by itself, and gives every outcome of a crash at that moment to `check`.
/// What `run` returns lives until then. Returns the number of operations.
pub fn kill_everywhere<T, E: Debug>(
    base: &MemFs,
    run: impl Fn(&MemFs) -> Result<T, E>,
    check: impl Fn(After),
) -> usize {
    let mut step = 0;
    loop {
        let mem = base.fork();
        mem.stop_at(step);
        let outcome = run(&mem);
        let (done, stopped) = (outcome.is_ok(), mem.is_stopped());
        for (crash, fs) in mem.crashes() {
            check(After { step, done, crash, fs });
        }
        if !stopped {
            assert!(done, "it fails even when nobody stops it: {:?}", outcome.err());
            return step;
        }
        step += 1;
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
