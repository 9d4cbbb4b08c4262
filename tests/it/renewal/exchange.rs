//! Renames that somebody else comes between, who works past the library.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use atrest::backup::Snapshot;
use atrest::store::{CommitHook, Reencrypt, ReencryptReport, Skipped, StalePolicy};
use atrest::vfs::{Attributes, DirEntry, FileStat, Links, OsVfs, ReadFile, Rename, Vfs, WriteFile};
use atrest::{EncryptedFs, Error, ErrorKind, FileKind, FileSpec, PlaintextPolicy, Store};

use super::write;
use crate::support::{TestStore, store_of};

/// What is about to happen.
pub enum Call<'a> {
    Create(&'a Path),
    Stat(&'a Path),
    List(&'a Path),
    Rename(&'a Path, Rename),
    SyncDir,
}

/// Told of a file that is about to be opened, or read at an offset.
type Read = dyn Fn(&Path, Option<u64>) + Send + Sync;
type Before = dyn Fn(&Call<'_>) -> io::Result<()> + Send + Sync;

/// The operating system's files; somebody is asked before each call, and may do something
/// of his own or make it fail.
#[derive(Clone)]
pub struct Between {
    before: Arc<Before>,
    /// As if another device was mounted there.
    pub mounted: Option<PathBuf>,
    /// Whether the greatest names are listed first.
    pub descending: bool,
    pub read: Option<Arc<Read>>,
}

struct Told(Box<dyn ReadFile>, PathBuf, Arc<Read>);

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Told")
    }
}

impl ReadFile for Told {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        (self.2)(&self.1, Some(offset));
        self.0.read_at(buf, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
}

impl Between {
    pub fn new(before: impl Fn(&Call<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { before: Arc::new(before), mounted: None, descending: false, read: None }
    }

    pub fn reading(read: impl Fn(&Path, Option<u64>) + Send + Sync + 'static) -> Self {
        Self { read: Some(Arc::new(read)), ..Self::new(|_| Ok(())) }
    }
}

impl fmt::Debug for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Between")
    }
}

#[deny(clippy::missing_trait_methods)]
impl Vfs for Between {
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        (self.before)(&Call::Create(path))?;
        OsVfs.create_new(path, mode)
    }
    fn open(&self, path: &Path, links: Links) -> io::Result<Box<dyn ReadFile>> {
        let Some(read) = &self.read else { return OsVfs.open(path, links) };
        read(path, None);
        Ok(Box::new(Told(OsVfs.open(path, links)?, path.into(), read.clone())))
    }
    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        (self.before)(&Call::Stat(path))?;
        let mut stat = OsVfs.stat(path)?;
        if self.mounted.as_ref().is_some_and(|mounted| path.starts_with(mounted)) {
            stat.device += 1;
        }
        Ok(stat)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        (self.before)(&Call::List(dir))?;
        let mut entries = OsVfs.list(dir)?;
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        if self.descending {
            entries.reverse();
        }
        Ok(entries)
    }
    fn rename(&self, from: &Path, to: &Path, how: Rename) -> io::Result<()> {
        (self.before)(&Call::Rename(from, how))?;
        OsVfs.rename(from, to, how)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsVfs.hard_link(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        OsVfs.remove(path)
    }
    fn remove_in(&self, dir: &Path, expected: &FileStat, name: &OsStr) -> io::Result<()> {
        OsVfs.remove_in(dir, expected, name)
    }
    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        OsVfs.create_dir(dir, mode)
    }
    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        OsVfs.set_attributes(path, attributes)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        (self.before)(&Call::SyncDir)?;
        OsVfs.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        OsVfs.lock(path)
    }
    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        OsVfs.canonical(path)
    }
}

fn all<'a>() -> Reencrypt<'a> {
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    how
}

fn read(fs: &EncryptedFs, path: &Path) -> Vec<u8> {
    let reader = fs.open(path).unwrap();
    let mut bytes = vec![0; reader.len().unwrap() as usize];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn leftovers(store: &TestStore) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(store.data()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().as_encoded_bytes().starts_with(b".")).collect()
}

/// A file "a" under a key that was replaced, with `newer` that somebody will put in its
/// place, re-encrypted through `between`.
fn reencrypt_between(newer: &[&str], between: &Between) -> (TestStore, ReencryptReport) {
    let store = TestStore::new();
    let fs = store.fs();
    write(&fs, &store.data().join("a"), b"old");
    fs.keyring().keys().rotate().unwrap();
    for name in newer {
        write(&fs, &store.data().join(name), name.as_bytes());
    }
    drop(fs);
    let fs = open(&store, between);
    let report = store_of(&fs).renewal().reencrypt(&all()).unwrap();
    (store, report)
}

fn open(store: &TestStore, between: &Between) -> EncryptedFs {
    let files = Store::over_vfs(store.keyring(), Arc::new(between.clone())).unwrap();
    files.files().clone()
}

fn replace_by(aside: &Path, newer: &str) {
    std::fs::rename(aside.with_file_name(newer), aside.with_file_name("a")).unwrap();
}

fn broken() -> io::Result<()> {
    Err(io::Error::other("the disk does not answer"))
}

#[test]
fn without_an_exchange_only_a_hook_lets_a_file_be_replaced() {
    let no_exchange = Between::new(|call| match call {
        Call::Rename(_, Rename::Exchange) => Err(io::ErrorKind::Unsupported.into()),
        _ => Ok(()),
    });
    let (store, report) = reencrypt_between(&[], &no_exchange);
    let path = store.data().join("a");
    assert_eq!(
        (report.files, &report.skipped[..]),
        (0, &[(path.clone(), Skipped::NoExchange)][..])
    );
    assert!(leftovers(&store).is_empty());
    struct Alone;
    impl CommitHook for Alone {
        fn commit(
            &self,
            _: &Path,
            _: &Path,
            replace: &mut dyn FnMut() -> Result<(), Error>,
        ) -> Result<(), Error> {
            replace()
        }
    }
    let fs = open(&store, &no_exchange);
    let mut how = all();
    how.commit = Some(&Alone);
    assert_eq!(store_of(&fs).renewal().reencrypt(&how).unwrap().files, 1);
    assert_eq!(read(&fs, &path), b"old");
    assert!(leftovers(&store).is_empty());
}

#[test]
fn a_newer_file_outlives_a_look_that_fails_after_the_exchange() {
    for forever in [false, true] {
        let exchanges = AtomicUsize::new(0);
        let looks = AtomicUsize::new(0);
        let between = Between::new(move |call| match call {
            Call::Rename(aside, Rename::Exchange) => {
                if exchanges.fetch_add(1, Ordering::Relaxed) == 0 {
                    replace_by(aside, "newer");
                }
                Ok(())
            }
            Call::Stat(path)
                if path.file_name().unwrap().as_encoded_bytes().starts_with(b".")
                    && exchanges.load(Ordering::Relaxed) > 0
                    && (forever || looks.fetch_add(1, Ordering::Relaxed) == 0) =>
            {
                broken()
            }
            _ => Ok(()),
        });
        let (store, report) = reencrypt_between(&["newer"], &between);
        assert_eq!((report.files, report.failed.len()), (0, 1), "{report:?}");
        let fs = store.fs();
        assert_eq!(read(&fs, &store.data().join("a")), b"newer");
        // What is left is proven to be nobody's, and goes.
        let report = store_of(&fs).renewal().reencrypt(&all()).unwrap();
        assert!(report.failed.is_empty(), "{report:?}");
        assert!(leftovers(&store).is_empty());
        assert_eq!(read(&fs, &store.data().join("a")), b"newer");
    }
}

/// What takes the first name's place becomes no name of the second.
#[test]
fn a_newer_file_takes_no_other_names_from_the_old_one() {
    let store = TestStore::new();
    let fs = store.fs();
    let [a, b] = ["a", "b"].map(|name| store.data().join(name));
    write(&fs, &a, b"old");
    std::fs::hard_link(&a, &b).unwrap();
    fs.keyring().keys().rotate().unwrap();
    write(&fs, &store.data().join("newer"), b"newer");
    drop(fs);
    let exchanged = AtomicUsize::new(0);
    let other = b.clone();
    let between = Between::new(move |call| match call {
        Call::Rename(_, Rename::Exchange) => {
            exchanged.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
        Call::Stat(path) if *path == other && exchanged.swap(0, Ordering::Relaxed) > 0 => {
            std::fs::rename(other.with_file_name("newer"), other.with_file_name("a"))
        }
        _ => Ok(()),
    });
    let fs = open(&store, &between);
    store_of(&fs).renewal().reencrypt(&all()).unwrap();
    assert_eq!((read(&fs, &a), read(&fs, &b)), (b"newer".to_vec(), b"old".to_vec()));
    assert!(leftovers(&store).is_empty());
}

#[test]
fn the_newest_of_two_stands_and_the_other_is_kept_and_told() {
    let exchanges = AtomicUsize::new(0);
    let between = Between::new(move |call| {
        if let Call::Rename(aside, Rename::Exchange) = call {
            match exchanges.fetch_add(1, Ordering::Relaxed) {
                0 => replace_by(aside, "newer"),
                1 => replace_by(aside, "newest"),
                _ => {}
            }
        }
        Ok(())
    });
    let (store, report) = reencrypt_between(&["newer", "newest"], &between);
    let fs = store.fs();
    assert_eq!(read(&fs, &store.data().join("a")), b"newest");
    let [(_, error)] = &report.failed[..] else { panic!("{report:?}") };
    assert_eq!(error.kind(), ErrorKind::ForeignFile);
    let [aside] = &leftovers(&store)[..] else { panic!("one file is left aside") };
    assert_eq!(error.path(), Some(&**aside));
    // Nobody knows whether the engine misses it, so no run removes it.
    let report = store_of(&fs).renewal().reencrypt(&all()).unwrap();
    let [(path, error)] = &report.failed[..] else { panic!("{report:?}") };
    assert_eq!((path, error.kind()), (aside, ErrorKind::ForeignFile));
    assert_eq!((report.leftovers_removed, read(&fs, aside)), (0, b"newer".to_vec()));
}

#[test]
fn plaintext_that_grows_while_it_is_copied_is_skipped() {
    let store = TestStore::new();
    let (path, grown) = (store.data().join("a"), AtomicUsize::new(0));
    let growing = path.clone();
    // Behind the last piece, when the copy looks whether there is more.
    let between = Between::reading(move |path, offset| {
        if path == growing && offset == Some(10) && grown.fetch_add(1, Ordering::SeqCst) == 0 {
            std::fs::write(path, b"ten bytes.and more").unwrap();
        }
    });
    let fs = open(&store, &between);
    let mut settings = fs.keyring().settings();
    settings.plaintext = PlaintextPolicy::Allow;
    fs.keyring().keys().configure(&settings).unwrap();
    std::fs::write(&path, b"ten bytes.").unwrap();
    let spec_of = |_: &Path| Some(FileSpec::new(FileKind::Other));
    let mut how = all();
    how.plaintext = Some(&spec_of);
    let report = store_of(&fs).renewal().reencrypt(&how).unwrap();
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(report.skipped, [(path.clone(), Skipped::Changed)]);
    assert_eq!(store_of(&fs).renewal().reencrypt(&how).unwrap().files, 1);
    assert_eq!(read(&fs, &path), b"ten bytes.and more");
}

/// Tells of a rename that has begun, and is told to go on.
struct Gate {
    begun: Sender<()>,
    go_on: Mutex<Receiver<()>>,
    ended: Mutex<Receiver<()>>,
    let_go: Sender<()>,
}

#[test]
fn a_rename_that_began_before_the_walk_saves_its_key() {
    let store = TestStore::new();
    for dir in ["1-to", "2-from"] {
        std::fs::create_dir(store.data().join(dir)).unwrap();
    }
    let (begun, has_begun) = channel();
    let (let_go, go_on) = channel();
    let (end, ended) = channel();
    let gate = Gate { begun, go_on: go_on.into(), ended: ended.into(), let_go };
    // The rename ends when the walk is past the new directory and not yet in the old one;
    // or after a while, if the walk waits for it.
    let between = Between::new(move |call| {
        let wait = Duration::from_millis(500);
        match call {
            Call::Rename(from, Rename::Replace) if from.ends_with("f") => {
                gate.begun.send(()).unwrap();
                let _ = gate.go_on.lock().unwrap().recv_timeout(wait);
            }
            Call::List(dir) if dir.ends_with("2-from") => {
                let _ = gate.let_go.send(());
                let _ = gate.ended.lock().unwrap().recv_timeout(wait);
            }
            _ => {}
        }
        Ok(())
    });
    let fs = open(&store, &between);
    let old = write(&fs, &store.data().join("2-from/f"), b"1");
    fs.keyring().keys().rotate().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fs.rename(store.data().join("2-from/f"), store.data().join("1-to/f")).unwrap();
            let _ = end.send(());
        });
        has_begun.recv().unwrap();
        let retired =
            store_of(&fs).renewal().retire(None, Duration::from_secs(1), &|_| {}).unwrap();
        let of_key = retired.keys.iter().find(|key| key.id == old).unwrap();
        assert_eq!(of_key.outcome, atrest::keyring::RetireOutcome::InUse);
    });
}

/// Each listing of the store is held up until a rename elsewhere has ended.
#[test]
fn no_rename_waits_for_a_snapshot_of_files_that_stay() {
    let (store, waited) = (TestStore::new(), Arc::new(AtomicUsize::new(0)));
    let (data, fast) = (store.data(), store.dir.path().join("fast"));
    std::fs::create_dir(&fast).unwrap();
    let engine: Arc<Mutex<Option<EncryptedFs>>> = Arc::default();
    let (hook, late, dir) = (engine.clone(), waited.clone(), data.clone());
    let between = Between::new(move |call| {
        let engine = hook.lock().unwrap().clone();
        let (Call::List(listed), Some(fs)) = (call, engine) else { return Ok(()) };
        if *listed == dir {
            let (fast, (ended, end)) = (fast.clone(), channel());
            std::thread::spawn(move || {
                let renamed = fs.rename(fast.join("a"), fast.join("b"));
                let renamed = renamed.and_then(|()| fs.rename(fast.join("b"), fast.join("a")));
                drop(ended.send(renamed));
            });
            match end.recv_timeout(Duration::from_secs(5)) {
                Ok(renamed) => renamed.unwrap(),
                Err(_) => drop(late.fetch_add(1, Ordering::SeqCst)),
            }
        }
        Ok(())
    });
    let fs = open(&store, &between);
    write(&fs, &data.join("table"), b"stays");
    write(&fs, &store.dir.path().join("fast/a"), b"moves");
    *engine.lock().unwrap() = Some(fs.clone());
    drop(Snapshot::take(&store_of(&fs), &data).unwrap());
    assert_eq!(waited.load(Ordering::SeqCst), 0);
    *engine.lock().unwrap() = None;
}

/// Not an assertion but a measurement: how long an engine's renames wait while a snapshot of
/// 20,000 files is taken and a file comes every 100 ms, and how long the snapshot takes.
#[test]
#[ignore = "a measurement"]
fn how_long_renames_wait_for_a_snapshot() {
    let store = TestStore::new();
    let data = store.data();
    let fs = open(&store, &Between::new(|_| Ok(())));
    for number in 0..20_000 {
        write(&fs, &data.join(format!("{number}.sst")), b"one of many");
    }
    write(&fs, &data.join("MANIFEST"), b"replaced again and again");
    let (engine, done) = (fs.clone(), Arc::new(std::sync::atomic::AtomicBool::new(false)));
    let (until, dir) = (done.clone(), data.clone());
    let working = std::thread::spawn(move || {
        let (mut longest, mut count) = (Duration::ZERO, 0_u32);
        while !until.load(Ordering::SeqCst) {
            write(&engine, &dir.join(format!("new-{count}.sst")), b"new");
            let next = dir.join("MANIFEST.next");
            write(&engine, &next, b"replaced again and again");
            let begun = std::time::Instant::now();
            engine.rename(&next, dir.join("MANIFEST")).unwrap();
            longest = longest.max(begun.elapsed());
            count += 1;
            std::thread::sleep(Duration::from_millis(100));
        }
        (longest, count)
    });
    let begun = std::time::Instant::now();
    let taken = Snapshot::take(&store_of(&fs), &data);
    let took = begun.elapsed();
    done.store(true, Ordering::SeqCst);
    let (longest, count) = working.join().unwrap();
    println!("snapshot {took:?}, longest rename of {count}: {longest:?}");
    drop(taken.unwrap());
}
