//! The system's files behind a counter, with what a system does now and then.

use std::sync::Mutex;

use super::*;

/// The system's files, counting what is read.
#[derive(Clone, Debug, Default)]
pub struct Counting {
    pub read: Arc<AtomicU64>,
    /// As if another file system was there.
    pub mount: Option<PathBuf>,
    /// A file that gets one more name at each listing of its directory.
    pub multiplies: Option<PathBuf>,
    /// Directories that were synced.
    pub synced: Arc<Mutex<Vec<PathBuf>>>,
}

#[derive(Debug)]
struct CountingFile(Box<dyn ReadFile>, Arc<AtomicU64>);

impl ReadFile for CountingFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let read = self.0.read_at(buf, offset)?;
        self.1.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }

    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }
}

#[deny(clippy::missing_trait_methods)]
impl Vfs for Counting {
    fn create_new(&self, path: &Path, mode: u32) -> std::io::Result<Box<dyn WriteFile>> {
        OsVfs.create_new(path, mode)
    }
    fn open(&self, path: &Path, links: Links) -> std::io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(CountingFile(OsVfs.open(path, links)?, self.read.clone())))
    }
    fn stat(&self, path: &Path) -> std::io::Result<FileStat> {
        OsVfs.stat(path)
    }
    fn list(&self, dir: &Path) -> std::io::Result<Vec<DirEntry>> {
        let multiplies = self.multiplies.as_deref();
        if let Some(path) = multiplies.filter(|path| path.parent() == Some(dir)) {
            let number = self.read.fetch_add(1, Ordering::Relaxed);
            std::fs::copy(path, dir.join(format!("new{number}.sst")))?;
        }
        OsVfs.list(dir)
    }
    fn rename(&self, from: &Path, to: &Path, how: Rename) -> std::io::Result<()> {
        OsVfs.rename(from, to, how)
    }
    fn hard_link(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        let is_below = |path: &Path| self.mount.as_ref().is_some_and(|at| path.starts_with(at));
        if is_below(from) != is_below(to) {
            return Err(std::io::ErrorKind::CrossesDevices.into());
        }
        OsVfs.hard_link(from, to)
    }
    fn remove(&self, path: &Path) -> std::io::Result<()> {
        OsVfs.remove(path)
    }
    fn remove_in(&self, dir: &Path, stat: &FileStat, name: &OsStr) -> std::io::Result<()> {
        OsVfs.remove_in(dir, stat, name)
    }
    fn create_dir(&self, dir: &Path, mode: u32) -> std::io::Result<()> {
        OsVfs.create_dir(dir, mode)
    }
    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> std::io::Result<()> {
        OsVfs.set_attributes(path, attributes)
    }
    fn sync_dir(&self, dir: &Path) -> std::io::Result<()> {
        self.synced.lock().unwrap().push(dir.into());
        OsVfs.sync_dir(dir)
    }
    fn lock(&self, path: &Path) -> std::io::Result<Box<dyn Send + Sync>> {
        OsVfs.lock(path)
    }
    fn canonical(&self, path: &Path) -> std::io::Result<PathBuf> {
        OsVfs.canonical(path)
    }
}

#[test]
fn an_incremental_backup_reads_only_what_is_new() {
    let bench = Bench::new();
    for number in 0..20 {
        bench.write(&format!("{number}.sst"), FileKind::Table, &[&pattern(500_000, number)]);
    }
    let counting = Counting::default();
    let fs = bench.fs.through(Arc::new(counting.clone()));
    let run = || {
        counting.read.store(0, Ordering::Relaxed);
        let snapshot = Snapshot::take(&store_of(&fs), bench.store.data()).unwrap();
        bench.chain().back_up(&store_of(&fs), &snapshot, &go_on).unwrap();
        counting.read.load(Ordering::Relaxed)
    };
    let whole = 20 * (500_000 + 4096) as u64;
    let full = run();
    assert!(full >= whole && full < whole + 20 * 3 * 4096, "{full}");
    bench.write("new.sst", FileKind::Table, &[&pattern(70_000, 99)]);
    let incremental = run();
    // 21 headers, and the new file with its header once more.
    assert!(incremental >= 70_000, "{incremental}");
    assert!(incremental <= 21 * 4096 + 70_000 + 2 * 4096, "{incremental}");
}

#[test]
fn every_name_that_a_restore_makes_is_durable() {
    let bench = Bench::new();
    bench.write("sub/a.sst", FileKind::Table, &[b"a"]);
    bench.back_up();
    let counting = Counting::default();
    let mut spec = RestoreSpec::new(bench.path("restored"), bench.store.kms());
    spec.vfs = Arc::new(counting.clone());
    bench.read_chain().unwrap().restore(&spec, &go_on).unwrap();
    let synced = counting.synced.lock().unwrap();
    let canonical: Vec<_> = synced.iter().filter_map(|dir| dir.canonicalize().ok()).collect();
    for dir in [bench.path(""), bench.path("restored"), bench.path("restored/sub")] {
        assert!(canonical.contains(&dir.canonicalize().unwrap()), "{dir:?}: {canonical:?}");
    }
}
