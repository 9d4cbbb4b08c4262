//! The operations of the file system in memory.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use atrest::vfs::{
    Attributes, DirEntry, EntryKind, FileStat, Links, ReadFile, Rename, Vfs, WriteFile,
};

use super::faults::Fault;
use super::state::{Inode, NameOp, Node, State};
use super::{MemFs, Op, name};

impl Vfs for MemFs {
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        let mut state = self.state();
        state.begin(Op::Create(name(path)))?;
        let path = state.resolve(path, Links::Refuse)?;
        if state.names.contains_key(&path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.check_parent(&path)?;
        let name = name(&path);
        let inode = state.add(path, Inode::new(Node::File, mode & 0o7777));
        Ok(Box::new(MemFile { fs: self.clone(), inode, name }))
    }

    fn open(&self, path: &Path, links: Links) -> io::Result<Box<dyn ReadFile>> {
        let mut state = self.state();
        state.begin(Op::Open(name(path)))?;
        let path = state.resolve(path, links)?;
        let inode = state.find(&path)?;
        match state.inodes[inode].node {
            Node::File => Ok(Box::new(MemFile { fs: self.clone(), inode, name: name(&path) })),
            Node::Directory => Err(io::ErrorKind::IsADirectory.into()),
            Node::Link(_) => Err(io::Error::other("a symbolic link")),
        }
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let mut state = self.state();
        state.begin(Op::Stat(name(path)))?;
        let path = state.resolve(path, Links::Refuse)?;
        let at = state.find(&path)?;
        let inode = &state.inodes[at];
        Ok(FileStat {
            kind: inode.kind(),
            len: inode.data.len() as u64,
            device: 1,
            inode: at as u64 + 1,
            links: state.names.values().filter(|other| **other == at).count() as u64,
            modified_ns: inode.modified_ns,
            mode: inode.mode,
            owner: Some(inode.owner),
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.state();
        state.begin(Op::List)?;
        let real = state.resolve(dir, Links::Follow)?;
        if state.inodes[state.find(&real)?].node != Node::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(&*real));
        let entries = inside.map(|(path, inode)| DirEntry {
            path: dir.join(path.file_name().unwrap()),
            len: state.inodes[*inode].data.len() as u64,
            kind: state.inodes[*inode].kind(),
        });
        let entries = entries.collect();
        if let Some(path) = state.vanish.take() {
            state.names.remove(&path);
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path, how: Rename) -> io::Result<()> {
        let mut state = self.state();
        match how {
            Rename::Replace => {
                state.begin(Op::Rename(name(from), name(to)))?;
                state.replace(from, to)?;
            }
            Rename::Exchange if state.can_exchange => {
                state.begin(Op::Exchange(name(from), name(to)))?;
                state.exchange(from, to)?;
            }
            _ => return Err(io::ErrorKind::Unsupported.into()),
        }
        state.end()
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::Link(name(to)))?;
        let from = state.resolve(from, Links::Refuse)?;
        let to = state.resolve(to, Links::Refuse)?;
        let inode = state.find(&from)?;
        if state.no_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if state.inodes[inode].node == Node::Directory {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if state.names.contains_key(&to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.check_parent(&to)?;
        state.change(NameOp::Add(to, inode));
        state.end()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::Remove(name(path)))?;
        let path = state.resolve(path, Links::Refuse)?;
        let inode = state.find(&path)?;
        if state.inodes[inode].node == Node::Directory && !state.is_empty(&path) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.change(NameOp::Remove(path));
        state.end()
    }

    fn remove_in(&self, dir: &Path, expected: &FileStat, name: &OsStr) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::Remove(name.to_string_lossy().into_owned()))?;
        let dir = state.resolve(dir, Links::Refuse)?;
        let at = state.find(&dir)?;
        if state.inodes[at].node != Node::Directory || at as u64 + 1 != expected.inode {
            return Err(io::Error::other("another directory"));
        }
        let path = dir.join(name);
        let inode = state.find(&path)?;
        if state.inodes[inode].node == Node::Directory {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        state.change(NameOp::Remove(path));
        state.end()
    }

    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::CreateDir(name(dir)))?;
        let dir = state.resolve(dir, Links::Refuse)?;
        match state.names.get(&dir).map(|inode| &state.inodes[*inode].node) {
            Some(Node::Directory) => return Ok(()),
            Some(_) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => state.check_parent(&dir)?,
        }
        state.add(dir, Inode::new(Node::Directory, mode & 0o7777));
        Ok(())
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::SetAttributes(name(path)))?;
        let path = state.resolve(path, Links::Refuse)?;
        let inode = state.find(&path)?;
        let inode = &mut state.inodes[inode];
        if matches!(inode.node, Node::Link(_)) {
            return Err(io::Error::other("a symbolic link"));
        }
        inode.owner = attributes.owner.unwrap_or(inode.owner);
        inode.mode = attributes.mode.map_or(inode.mode, |mode| mode & 0o7777);
        inode.modified_ns = attributes.modified_ns.unwrap_or(inode.modified_ns);
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::SyncDir)?;
        let dir = state.resolve(dir, Links::Follow)?;
        state.find(&dir)?;
        state.sync_names(&dir);
        state.end()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let mut state = self.state();
        state.begin(Op::Lock)?;
        let path = state.resolve(path, Links::Refuse)?;
        let there = state.names.get(&path).map(|inode| state.inodes[*inode].kind());
        if there.is_some_and(|kind| kind != EntryKind::File) {
            return Err(io::Error::other("no file"));
        }
        state.check_parent(&path)?;
        if !state.locks.insert(path.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if !state.names.contains_key(&path) {
            // Nobody cares whether an empty file outlives a crash.
            state.settle(&path, Inode::new(Node::File, 0o600));
        }
        Ok(Box::new(Lock(self.clone(), path)))
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        let state = self.state();
        let path = state.resolve(path, Links::Follow)?;
        state.find(&path)?;
        Ok(path)
    }
}

impl State {
    fn replace(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let from = self.resolve(from, Links::Refuse)?;
        let to = self.resolve(to, Links::Refuse)?;
        let inode = self.find(&from)?;
        self.check_parent(&to)?;
        let is_dir = self.inodes[inode].node == Node::Directory;
        if let Some(old) = self.names.get(&to).copied() {
            match (is_dir, self.inodes[old].kind() == EntryKind::Directory) {
                _ if old == inode => return Ok(()),
                (true, false) => return Err(io::ErrorKind::NotADirectory.into()),
                (false, true) => return Err(io::ErrorKind::IsADirectory.into()),
                (true, true) if !self.is_empty(&to) => {
                    return Err(io::ErrorKind::DirectoryNotEmpty.into());
                }
                _ => {}
            }
        }
        if is_dir {
            self.change(NameOp::Move(from, to));
            return Ok(());
        }
        // Both changes are one to a process; a crash may keep the first alone.
        self.change(NameOp::Add(to, inode));
        self.change(NameOp::Leave(from, inode));
        Ok(())
    }

    fn exchange(&mut self, one: &Path, other: &Path) -> io::Result<()> {
        let one = self.resolve(one, Links::Refuse)?;
        let other = self.resolve(other, Links::Refuse)?;
        for path in [&one, &other] {
            if self.inodes[self.find(path)?].node == Node::Directory {
                return Err(io::ErrorKind::Unsupported.into());
            }
        }
        // Atomic, so that a crash takes back both names or none.
        self.change(NameOp::Exchange(one, other));
        Ok(())
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
        let op = Op::Read(self.name.clone(), buf.len());
        let other_bytes = Fault::will_garble(&state.faults, &op);
        state.begin(op)?;
        let data = &state.inodes[self.inode].data;
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        let read = buf.len().min(data.len() - start);
        buf[..read].copy_from_slice(&data[start..start + read]);
        if let Some(byte) = buf[..read].get_mut(read / 2).filter(|_| other_bytes) {
            *byte ^= 0x10;
        }
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
        // What cannot be written whole is written in part.
        let at = state.log.len();
        let room = state.room.unwrap_or(usize::MAX).min(buf.len());
        let begun = state.begin(Op::Append(self.name.clone(), buf.len()));
        let dead = state.stop_at.is_some_and(|stop| at > stop);
        let written = match begun {
            Ok(()) => room,
            Err(_) if dead => 0,
            Err(_) => room / 2,
        };
        if !dead {
            state.append(self.inode, &buf[..written]);
            state.room = state.room.map(|room| room - written);
        }
        begun?;
        if written < buf.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut state = self.fs.state();
        let again = state.inodes[self.inode].sync_failed;
        assert!(!again, "{} is synced again after a failed sync", self.name);
        let begun = state.begin(Op::Sync(self.name.clone(), self.inode));
        if begun.is_err() && !state.stopped {
            state.inodes[self.inode].sync_failed = true;
        }
        begun?;
        state.sync(self.inode);
        state.end()
    }
}
