//! A suite that lets a broken promise pass is worth nothing: each of these is noticed.

use std::ffi::OsStr;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::backup::{BackupTarget, DirectoryTarget, PutFile};
use atrest::keyring::{FilesBeside, KeyringImage, KeyringStorage, Location, MemoryStorage};
use atrest::vfs::{
    Attributes, DirEntry, EntryKind, FileStat, Links, ReadFile, Rename, Vfs, WriteFile,
};
use atrest::{ErrorKind, Result};
use atrest_testkit::{
    MemFs, backup_target_conformance, keyring_storage_conformance, vfs_conformance,
};

/// What a file system does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    CreateReplaces,
    LinksAreCopies,
    LinkIsNotMade,
    ExchangeReplaces,
    ExchangeIsNotMade,
    AttributesAreNotSet,
    RemoveDoesNothing,
    RemovesFullDirectories,
    RemovesFromOthers,
    LocksNobodyOut,
    NamesStayAsGiven,
    ListsWhatIsBelow,
    MissingIsEmpty,
}

const LIES: [Lie; 13] = [
    Lie::CreateReplaces,
    Lie::LinksAreCopies,
    Lie::LinkIsNotMade,
    Lie::ExchangeReplaces,
    Lie::ExchangeIsNotMade,
    Lie::AttributesAreNotSet,
    Lie::RemoveDoesNothing,
    Lie::RemovesFullDirectories,
    Lie::RemovesFromOthers,
    Lie::LocksNobodyOut,
    Lie::NamesStayAsGiven,
    Lie::ListsWhatIsBelow,
    Lie::MissingIsEmpty,
];

#[derive(Debug)]
struct Liar {
    mem: MemFs,
    lie: Lie,
}

#[deny(clippy::missing_trait_methods)]
impl Vfs for Liar {
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        if self.lie == Lie::CreateReplaces && self.mem.read(path).is_some() {
            self.mem.remove(path)?;
        }
        self.mem.create_new(path, mode)
    }

    fn open(&self, path: &Path, links: Links) -> io::Result<Box<dyn ReadFile>> {
        self.mem.open(path, links)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.mem.stat(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = match self.mem.list(dir) {
            Err(error)
                if self.lie == Lie::MissingIsEmpty && error.kind() == io::ErrorKind::NotFound =>
            {
                Vec::new()
            }
            other => other?,
        };
        if self.lie == Lie::ListsWhatIsBelow {
            for entry in entries.clone() {
                if entry.kind == EntryKind::Directory {
                    entries.extend(self.list(&entry.path)?);
                }
            }
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path, how: Rename) -> io::Result<()> {
        match (how, self.lie) {
            (Rename::Exchange, Lie::ExchangeReplaces) => self.mem.rename(from, to, Rename::Replace),
            (Rename::Exchange, Lie::ExchangeIsNotMade) => Ok(()),
            _ => self.mem.rename(from, to, how),
        }
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.lie {
            Lie::LinksAreCopies => {
                let data = self.mem.read(from).ok_or(io::ErrorKind::NotFound)?;
                self.mem.create_new(to, 0o600)?.append(&data)
            }
            Lie::LinkIsNotMade => Ok(()),
            _ => self.mem.hard_link(from, to),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match self.lie {
            Lie::RemoveDoesNothing => self.mem.stat(path).map(drop),
            Lie::RemovesFullDirectories => {
                for entry in self.mem.list(path).unwrap_or_default() {
                    self.remove(&entry.path)?;
                }
                self.mem.remove(path)
            }
            _ => self.mem.remove(path),
        }
    }

    fn remove_in(&self, dir: &Path, expected: &FileStat, name: &OsStr) -> io::Result<()> {
        match self.lie {
            Lie::RemovesFromOthers => self.mem.remove(&self.mem.canonical(dir)?.join(name)),
            _ => self.mem.remove_in(dir, expected, name),
        }
    }

    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        self.mem.create_dir(dir, mode)
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        match self.lie {
            Lie::AttributesAreNotSet => self.mem.stat(path).map(drop),
            _ => self.mem.set_attributes(path, attributes),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.mem.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        match self.lie {
            Lie::LocksNobodyOut => {
                drop(self.mem.lock(path)?);
                Ok(Box::new(()))
            }
            _ => self.mem.lock(path),
        }
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        match self.lie {
            Lie::NamesStayAsGiven => self.mem.canonical(path).map(|_| path.into()),
            _ => self.mem.canonical(path),
        }
    }
}

fn panics(run: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(run)).is_err()
}

#[test]
fn a_file_system_that_lies_is_caught() {
    let check = |lie| {
        let mem = MemFs::new("/d");
        mem.with_exchange();
        vfs_conformance(&Liar { mem, lie }, Path::new("/d"));
    };
    check(Lie::None);
    for lie in LIES {
        assert!(panics(|| check(lie)), "{lie:?} was not noticed");
    }
}

/// What a keyring's storage does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Slip {
    None,
    TakesStaleWriters,
    KeepsNoOlderImage,
    ForgetsNothing,
    ForgetsLaterOnes,
    LosesWhatIsBeside,
}

#[derive(Debug)]
struct Sloppy {
    inner: MemoryStorage,
    slip: Slip,
}

#[deny(clippy::missing_trait_methods)]
impl KeyringStorage for Sloppy {
    fn lock(&self) -> Result<()> {
        self.inner.lock()
    }

    fn load(&self) -> Result<Option<KeyringImage>> {
        self.inner.load()
    }

    fn commit(
        &self,
        bytes: &[u8],
        generation: u64,
        previous: Option<&KeyringImage>,
    ) -> Result<String> {
        let current = self.inner.load()?;
        let previous = match self.slip {
            Slip::TakesStaleWriters => current.as_ref(),
            _ => previous,
        };
        self.inner.commit(bytes, generation, previous)
    }

    fn settle_unknown(&self) -> Result<()> {
        self.inner.settle_unknown()
    }

    fn load_kept(&self, generation: u64) -> Result<Option<Vec<u8>>> {
        self.inner.load_kept(generation)
    }

    fn kept(&self) -> Result<Vec<u64>> {
        match self.slip {
            Slip::KeepsNoOlderImage => Ok(Vec::new()),
            _ => self.inner.kept(),
        }
    }

    fn forget_kept(&self, before: u64) -> Result<()> {
        match self.slip {
            Slip::ForgetsNothing => Ok(()),
            Slip::ForgetsLaterOnes => self.inner.forget_kept(u64::MAX),
            _ => self.inner.forget_kept(before),
        }
    }

    fn copies_aside(&self) -> Result<Vec<String>> {
        self.inner.copies_aside()
    }

    fn forget_aside(&self) -> Result<()> {
        self.inner.forget_aside()
    }

    fn check_mirrors(&self) -> Result<()> {
        self.inner.check_mirrors()
    }

    fn location(&self) -> Location {
        self.inner.location()
    }
}

#[deny(clippy::missing_trait_methods)]
impl FilesBeside for Sloppy {
    fn put_beside(&self, name: &str, bytes: &[u8]) -> Result<()> {
        match self.slip {
            Slip::LosesWhatIsBeside => Ok(()),
            _ => self.inner.put_beside(name, bytes),
        }
    }

    fn exists_beside(&self, name: &str) -> Result<bool> {
        self.inner.exists_beside(name)
    }

    fn load_beside(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.inner.load_beside(name)
    }

    fn remove_beside(&self, name: &str) -> Result<()> {
        self.inner.remove_beside(name)
    }
}

#[test]
fn a_keyring_storage_that_lies_is_caught() {
    let check = |slip| {
        keyring_storage_conformance(&|| Box::new(Sloppy { inner: MemoryStorage::new(), slip }));
    };
    check(Slip::None);
    for slip in [
        Slip::TakesStaleWriters,
        Slip::KeepsNoOlderImage,
        Slip::ForgetsNothing,
        Slip::ForgetsLaterOnes,
        Slip::LosesWhatIsBeside,
    ] {
        assert!(panics(|| check(slip)), "{slip:?} was not noticed");
    }
}

/// A target that shows files under way, or replaces finished ones.
#[derive(Debug)]
struct Hasty {
    inner: DirectoryTarget,
    mem: MemFs,
    replaces: bool,
}

struct HastyFile {
    inner: Box<dyn PutFile>,
    _shown: Option<Box<dyn WriteFile>>,
}

impl PutFile for HastyFile {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.inner.append(bytes)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.inner.finish()
    }
}

#[deny(clippy::missing_trait_methods)]
impl BackupTarget for Hasty {
    fn keyring(&self) -> Result<Box<dyn KeyringStorage>> {
        self.inner.keyring()
    }

    fn put(&self, name: &str) -> Result<Box<dyn PutFile>> {
        let path = Path::new("/d").join(name);
        if self.replaces {
            drop(self.mem.remove(&path));
        }
        let shown = (!self.replaces).then(|| self.mem.create_new(&path, 0o600));
        let shown = shown.transpose();
        let shown = shown.map_err(|e| atrest::Error::new(ErrorKind::Io(e.kind()), "taken"))?;
        Ok(Box::new(HastyFile { inner: self.inner.put(name)?, _shown: shown }))
    }

    fn open(&self, name: &str) -> Result<Box<dyn ReadFile>> {
        self.inner.open(name)
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        self.inner.list(folder)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.inner.remove(name)
    }

    fn is_exclusive(&self) -> bool {
        self.inner.is_exclusive()
    }

    fn is_empty(&self) -> Result<bool> {
        self.inner.is_empty()
    }

    fn settle(&self) -> Result<()> {
        self.inner.settle()
    }
}

#[test]
fn a_backup_target_that_lies_is_caught() {
    for replaces in [false, true] {
        assert!(panics(|| backup_target_conformance(&|| {
            let mem = MemFs::new("/d");
            let inner = DirectoryTarget::with_vfs("/d", Arc::new(mem.clone()));
            Box::new(Hasty { inner, mem, replaces })
        })));
    }
}
