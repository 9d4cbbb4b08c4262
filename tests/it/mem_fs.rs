//! A file system in memory that counts operations, fails or stops at any of them, and
//! shows what a crash leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use atrest::vfs::{DirEntry, ReadFile, Vfs, WriteFile};

#[derive(Clone, Debug, Default)]
pub struct MemFs(Arc<Mutex<State>>);

#[derive(Clone, Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    /// Names as of the last `sync_dir`, and what changed since.
    durable: BTreeMap<PathBuf, usize>,
    pending: Vec<NameOp>,
    log: Vec<Op>,
    stop_at: Option<usize>,
    fail_at: Option<usize>,
    /// Bytes that still fit.
    room: Option<usize>,
    locks: BTreeSet<PathBuf>,
    vanish: Option<PathBuf>,
    no_links: bool,
    can_exchange: bool,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    data: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone, Debug)]
enum NameOp {
    Add(PathBuf, usize),
    Remove(PathBuf),
    Exchange(PathBuf, PathBuf),
}

/// One operation, with the file's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Create(String),
    Open(String),
    Read(String, usize),
    Append(String, usize),
    /// Name at creation, and inode.
    Sync(String, usize),
    Rename(String, String),
    Link(String),
    Exchange(String, String),
    Remove(String),
    List,
    SyncDir,
    Lock,
}

/// What a crash leaves of the changes that were not made durable.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// How many of the pending changes of names survive, in order.
    pub names: usize,
    /// Whether bytes that were not synced survive.
    pub data: bool,
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

impl MemFs {
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// A copy of everything, without locks, counts and faults.
    pub fn fork(&self) -> Self {
        let mut state = self.state().clone();
        state.log.clear();
        state.locks.clear();
        (state.stop_at, state.fail_at) = (None, None);
        Self(Arc::new(Mutex::new(state)))
    }

    /// From operation `at` on nothing happens any more, as if the process was killed.
    pub fn stop_at(&self, at: usize) {
        self.state().stop_at = Some(at);
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

    pub fn log(&self) -> Vec<Op> {
        self.state().log.clone()
    }

    pub fn clear_log(&self) {
        self.state().log.clear();
    }

    /// Every outcome that a crash now may have.
    pub fn crashes(&self) -> Vec<(Crash, Self)> {
        let pending = self.state().pending.len();
        let outcomes = (0..=pending).flat_map(|names| [false, true].map(|data| (names, data)));
        outcomes.map(|(names, data)| self.crash(Crash { names, data })).collect()
    }

    fn crash(&self, crash: Crash) -> (Crash, Self) {
        let fork = self.fork();
        {
            let mut state = fork.state();
            let mut names = state.durable.clone();
            for op in state.pending.drain(..).take(crash.names) {
                op.apply(&mut names);
            }
            state.names = names.clone();
            state.durable = names;
            for inode in &mut state.inodes {
                if crash.data {
                    inode.synced = inode.data.clone();
                } else {
                    inode.data = inode.synced.clone();
                }
            }
        }
        (crash, fork)
    }

    /// Names and contents.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        state.names.iter().map(|(path, i)| (name(path), state.inodes[*i].data.clone())).collect()
    }

    /// The content of a file, if it is there.
    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(path).map(|inode| state.inodes[*inode].data.clone())
    }

    /// Puts a file there, durably, whatever was there.
    pub fn put(&self, path: &Path, data: &[u8]) {
        let mut state = self.state();
        state.inodes.push(Inode { data: data.into(), synced: data.into() });
        let inode = state.inodes.len() - 1;
        state.names.insert(path.into(), inode);
        state.durable.insert(path.into(), inode);
    }

    /// Somebody else removes this file right after the next listing.
    pub fn vanish_after_list(&self, path: &Path) {
        self.state().vanish = Some(path.into());
    }

    pub fn delete(&self, path: &Path) {
        let mut state = self.state();
        state.names.remove(path).unwrap();
        state.durable.remove(path);
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
        }
    }
}

impl State {
    fn begin(&mut self, op: Op) -> io::Result<()> {
        let at = self.log.len();
        if self.stop_at.is_some_and(|stop| at >= stop) {
            return Err(io::Error::other("the process was killed"));
        }
        self.log.push(op);
        if self.fail_at == Some(at) {
            return Err(io::Error::other("injected"));
        }
        Ok(())
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, op: NameOp) {
        self.pending.push(op.clone());
        op.apply(&mut self.names);
    }
}

impl Vfs for MemFs {
    fn create_new(&self, path: &Path, _mode: u32) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.state();
        state.begin(Op::Create(name(path)))?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.inodes.push(Inode::default());
        let inode = state.inodes.len() - 1;
        state.change(NameOp::Add(path.into(), inode));
        Ok(Box::new(MemFile { fs: self.clone(), inode, name: name(path) }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let mut state = self.state();
        state.begin(Op::Open(name(path)))?;
        let inode = state.find(path)?;
        Ok(Box::new(MemFile { fs: self.clone(), inode, name: name(path) }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::Rename(name(from), name(to)))?;
        let inode = state.find(from)?;
        // Atomic on every file system in use: both changes are one.
        state.names.remove(from);
        state.names.insert(to.into(), inode);
        state.pending.push(NameOp::Add(to.into(), inode));
        state.pending.push(NameOp::Remove(from.into()));
        Ok(())
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::Link(name(to)))?;
        let inode = state.find(from)?;
        if state.no_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.change(NameOp::Add(to.into(), inode));
        Ok(())
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.can_exchange {
            return Err(io::ErrorKind::Unsupported.into());
        }
        state.begin(Op::Exchange(name(one), name(other)))?;
        state.find(one)?;
        state.find(other)?;
        // Atomic, so that a crash takes back both names or none.
        state.change(NameOp::Exchange(one.into(), other.into()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::Remove(name(path)))?;
        state.find(path)?;
        state.change(NameOp::Remove(path.into()));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state();
        state.begin(Op::List)?;
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entries = inside.map(|(path, inode)| DirEntry {
            path: path.clone(),
            len: state.inodes[*inode].data.len() as u64,
            is_file: true,
        });
        let entries = entries.collect();
        if let Some(path) = state.vanish.take() {
            state.names.remove(&path);
        }
        Ok(entries)
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::SyncDir)?;
        state.durable = state.names.clone();
        state.pending.clear();
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state();
        state.begin(Op::Lock)?;
        if !state.locks.insert(path.into()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock(self.clone(), path.into())))
    }
}

struct Lock(MemFs, PathBuf);

impl Drop for Lock {
    fn drop(&mut self) {
        self.0.state().locks.remove(&self.1);
    }
}

#[derive(Debug)]
struct MemFile {
    fs: MemFs,
    inode: usize,
    name: String,
}

impl ReadFile for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.fs.state();
        state.begin(Op::Read(self.name.clone(), buf.len()))?;
        let data = &state.inodes[self.inode].data;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let read = buf.len().min(data.len() - start);
        buf[..read].copy_from_slice(&data[start..start + read]);
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.fs.state().inodes[self.inode].data.len() as u64)
    }
}

impl WriteFile for MemFile {
    fn append(&mut self, buf: &[u8]) -> io::Result<()> {
        let mut state = self.fs.state();
        let state = &mut *state;
        let data = &mut state.inodes[self.inode].data;
        // What cannot be written whole is written in part.
        let at = state.log.len();
        let torn = state.stop_at == Some(at) || state.fail_at == Some(at);
        let room = state.room.unwrap_or(usize::MAX).min(buf.len());
        let written = if torn { room / 2 } else { room };
        if state.stop_at.is_none_or(|stop| at <= stop) {
            data.extend_from_slice(&buf[..written]);
            state.room = state.room.map(|room| room - written);
        }
        state.begin(Op::Append(self.name.clone(), buf.len()))?;
        if written < buf.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.fs.state();
        state.begin(Op::Sync(self.name.clone(), self.inode))?;
        let inode = &mut state.inodes[self.inode];
        inode.synced = inode.data.clone();
        Ok(())
    }
}
