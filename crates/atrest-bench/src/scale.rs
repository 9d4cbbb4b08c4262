//! `atrest-bench scale`: what a store costs that is as large as they get: many files, data keys,
//! keyspaces. The figures of docs/SCALE.md.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use atrest::backup::{Chain, DirectoryTarget};
use atrest::keyring::{DirectoryStorage, Keyring, Options};
use atrest::kms::{KeyFile, Kms, generate_key_file};
use atrest::store::{Reencrypt, StalePolicy};
use atrest::{FileKind, FileSpec, Store};
use clap::Args;

type Any<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Files in one directory.
const TOGETHER: u64 = 10_000;
/// Data keys that the files are under.
const KEYS: u64 = 10;

/// How large, and where.
#[derive(Args, Debug)]
pub struct Scale {
    /// Files of the store with files; 0 leaves that out.
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    files: u64,
    /// Data keys of the large keyrings; 0 leaves them out.
    #[arg(long, value_name = "N", default_value_t = 262_144)]
    keys: usize,
    /// Keyspaces of the second one of them.
    #[arg(long, value_name = "N", default_value_t = 65_536)]
    keyspaces: usize,
    /// Also makes a full and an incremental backup of all files, to their ends. Each copy is synced:
    /// hours for a million on a disk, minutes where that costs nothing (`--dir /dev/shm/scale`).
    #[arg(long)]
    whole_backups: bool,
    /// Where to work. The directory is made and removed again.
    #[arg(long, value_name = "DIR", default_value = "/tmp/atrest-scale")]
    dir: PathBuf,
}

impl Scale {
    /// Measures, and prints each figure when it is there.
    ///
    /// # Errors
    /// What the store says.
    pub fn run(&self) -> Any<()> {
        std::fs::create_dir(&self.dir)?;
        let measured = self.measure();
        std::fs::remove_dir_all(&self.dir)?;
        measured
    }

    fn measure(&self) -> Any<()> {
        let key = self.dir.join("cmek.key");
        generate_key_file(&key)?;
        let kms: Arc<dyn Kms> = Arc::new(KeyFile::new(&key)?);
        if self.keys > 0 {
            for keyspaces in [1, self.keyspaces.min(self.keys / 4)] {
                println!("\n{} data keys in {keyspaces} keyspaces", self.keys);
                keyring(&self.dir.join(format!("keys-{keyspaces}")), &kms, self.keys, keyspaces)?;
            }
        }
        if self.files > 0 {
            println!("\n{} files under {KEYS} data keys", self.files);
            self.files(&self.dir.join("files"), &kms)?;
        }
        Ok(())
    }

    /// A store with many small files, ten thousand in a directory.
    fn files(&self, dir: &Path, kms: &Arc<dyn Kms>) -> Any<()> {
        std::fs::create_dir(dir)?;
        let store = Store::create(dir, kms.clone(), options())?;
        measured("files made", || make(&store, dir, self.files))?;
        // Two more than files are under, so that there is something to retire.
        store.keys().rotate()?;
        store.keys().rotate()?;
        store.close()?;
        let reading = Store::open_read_only(dir, kms.clone(), options())?;
        let renewal = reading.renewal();
        for turn in ["status, keys list: a look", "the same once more"] {
            timed(turn, || Ok(renewal.scan_usage(&|_| {})?))?;
        }
        let policy = StalePolicy::older_than(Duration::ZERO);
        let stale =
            measured("all stale files, listed", || Ok(renewal.stale_files(&policy, &|_| {})?))?;
        println!("{:44} {:9}", "of which stale", stale.as_slice().len());
        drop(stale);
        drop(reading);
        let store = Store::open(dir, kms.clone(), options())?;
        let renewal = store.renewal();
        timed("usage of an open store, first time", || Ok(renewal.usage()?))?;
        timed("usage of an open store, later", || Ok(renewal.usage()?))?;
        for turn in ["retire: the first of two", "retire: the second"] {
            timed(turn, || Ok(renewal.retire(None, Duration::ZERO, &|_| {})?))?;
        }
        // Stopped before the first file is rewritten.
        let stop = AtomicBool::new(true);
        let mut how = Reencrypt::default();
        how.policy = policy;
        how.cancel = Some(&stop);
        timed("re-encryption until its first file", || Ok(renewal.reencrypt(&how)?))?;
        let until_first = |work: &dyn Fn(atrest::progress::OnProgress<'_>)| {
            work(&|_| ControlFlow::Break(()));
            Ok(())
        };
        measured("verification until its first file", || {
            until_first(&|on| drop(atrest::verify::verify(store.files(), dir, on)))
        })?;
        let go_on = |_| ControlFlow::Continue(());
        timed("verification of all files", || {
            Ok(atrest::verify::verify(store.files(), dir, &go_on)?)
        })?;
        let backups = dir.with_extension("backups");
        std::fs::create_dir(&backups)?;
        let chain = Chain::open_or_create(DirectoryTarget::new(&backups), kms.clone())?;
        measured("backup until its first copy", || {
            until_first(&|on| drop(store.backups().add(&chain, dir, on)))
        })?;
        if self.whole_backups {
            for turn in ["a full backup", "an incremental backup of nothing new"] {
                timed(turn, || Ok(store.backups().add(&chain, dir, &go_on)?))?;
            }
        }
        drop(chain);
        Ok(std::fs::remove_dir_all(&backups)?)
    }
}

/// Runs `work` and prints its time, that of processors, and the most memory that it added.
fn measured<T>(what: &str, work: impl FnOnce() -> Any<T>) -> Any<T> {
    let before = resident_kib("VmRSS:");
    // Forgets the peak so far.
    drop(std::fs::write("/proc/self/clear_refs", "5"));
    let (begun, used) = (Instant::now(), processor_s());
    let done = work()?;
    let (took, used) = (begun.elapsed(), processor_s() - used);
    let mib = resident_kib("VmHWM:").saturating_sub(before) as f64 / 1024.0;
    println!("{what:44} {:9.2} s {used:9.2} s {mib:8.1} MiB more", took.as_secs_f64());
    Ok(done)
}

/// The same where nobody wants what comes of it.
fn timed<T>(what: &str, work: impl FnOnce() -> Any<T>) -> Any<()> {
    measured(what, work).map(drop)
}

fn resident_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

/// Of all threads, in the kernel too, in steps of 10 ms.
fn processor_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // What is in front of the last bracket may hold blanks.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn options() -> Options {
    let mut options = Options::default();
    options.background = false;
    options
}

/// A keyring with as many data keys as it may have.
fn keyring(dir: &Path, kms: &Arc<dyn Kms>, keys: usize, keyspaces: usize) -> Any<()> {
    std::fs::create_dir(dir)?;
    // Room for the rotations that are measured.
    let room = 2 * keyspaces + 8;
    let image = atrest::internals::many_keys(kms.clone(), keys - room, keyspaces)?;
    println!("{:44} {:9.2} MiB", "the keyring", image.len() as f64 / (1 << 20) as f64);
    std::fs::write(dir.join("KEYRING"), image)?;
    let open = || -> Any<Keyring> {
        Ok(Keyring::open(DirectoryStorage::new(dir), kms.clone(), options())?)
    };
    measured("opened at a new place: all keys rotate", open)?.close()?;
    let keyring = measured("opened", open)?;
    timed("status", || Ok(keyring.status()))?;
    measured("a commit: one keyspace rotates", || Ok(keyring.keys().rotate()?))?;
    measured("another one", || Ok(keyring.keys().rotate()?))?;
    measured("the store key rotates", || Ok(keyring.keys().rotate_store_key()?))?;
    let all: Vec<_> = keyring.status().data_keys.iter().map(|key| key.id).collect();
    measured("all keys held, as for a copy", || Ok(keyring.holds().register("all", &all)?))?;
    measured("the hold released", || Ok(keyring.holds().release("all")?))?;
    measured("revoked", || Ok(keyring.access().revoke()?))?;
    measured("restored", || Ok(keyring.access().restore()?))?;
    keyring.close()?;
    let store = Store::open(dir, kms.clone(), options())?;
    let renewal = store.renewal();
    timed("retire: all old keys begin to", || {
        Ok(renewal.retire(None, Duration::ZERO, &|_| {})?)
    })?;
    let retired = measured("retire: all old keys are destroyed", || {
        Ok(renewal.retire(None, Duration::ZERO, &|_| {})?)
    })?;
    println!("{:44} {:9}", "keys destroyed", retired.destroyed().count());
    Ok(())
}

/// Ten files made by the library, one under each key, and as many copies of each as are asked
/// for: making each would take hours of `fsync`.
fn make(store: &Store, dir: &Path, count: u64) -> Any<()> {
    let mut templates = Vec::new();
    for key in 0..KEYS {
        let path = dir.join(format!("template-{key}"));
        let mut writer = store.files().create_new(&path, FileSpec::new(FileKind::Table))?;
        writer.append(&[7; 100])?;
        writer.finish()?;
        templates.push(std::fs::read(&path)?);
        std::fs::remove_file(&path)?;
        store.keys().rotate()?;
    }
    let mut path = String::new();
    for number in 0..count {
        path.clear();
        write!(path, "dir-{}", number / TOGETHER)?;
        if number.is_multiple_of(TOGETHER) {
            std::fs::create_dir(dir.join(&path))?;
        }
        write!(path, "/{number:08}.sst")?;
        std::fs::write(dir.join(&path), &templates[(number % KEYS) as usize])?;
    }
    Ok(())
}
