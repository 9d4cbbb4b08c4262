//! What every engine over a store has to show.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use atrest::keyring::IntegrityPolicy;
use atrest::kms::{KeyFile, generate_key_file};
use atrest::{DataKeyId, ErrorKind, Header, Integrity, Options, Store};
use tempfile::TempDir;

/// What an engine answers.
pub type Answer<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// An engine over a store, as [`engine_conformance`] drives it. Dropping it closes it.
pub trait Engine: Sized {
    /// What it is promised of files.
    const INTEGRITY: &'static [Integrity] = &Integrity::ALL;

    /// Opens the engine in `dir`, which exists, or creates it there.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn open(store: &Store, dir: &Path) -> Answer<Self>;

    /// Writes a record, durable when this returns. Numbers come in order, from 0 on, and one
    /// that failed comes again.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn put(&mut self, number: u64, value: &str) -> Answer<()>;

    /// Reads a record from the disk: what a cache answers shows nothing.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn get(&self, number: u64) -> Answer<Option<String>>;

    /// Moves all records into new files and removes the old ones.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn compact(&mut self) -> Answer<()>;

    /// The data key of one of its files; `None` for one that holds no data.
    fn data_key(_store: &Store, path: &Path) -> Option<DataKeyId> {
        let bytes = fs::read(path).unwrap();
        let parsed = (!bytes.is_empty()).then(|| Header::parse(&bytes));
        parsed
            .map(|header| header.unwrap_or_else(|e| panic!("{}: {e}", path.display())).data_key_id)
    }
}

/// Holds an engine to what encryption at rest is: nothing to read on the disk; a rotation that
/// shows in new files; old files read, and moved to the new key by compaction; a wrong
/// customer's key refused; one that is withdrawn from a working engine stops it, and given back
/// lets it go on.
///
/// # Panics
/// If the engine shows anything else.
pub fn engine_conformance<E: Engine>() {
    for integrity in E::INTEGRITY {
        lives::<E>(*integrity);
        stops_and_goes_on::<E>(*integrity);
    }
    refuses_a_wrong_key::<E>();
}

/// Words of every record, in no file.
const KNOWN: [&str; 2] = ["whale number", "sings in the deep"];

fn value(number: u64) -> String {
    format!("the {} {number} {}", KNOWN[0], KNOWN[1])
}

struct Place {
    dir: TempDir,
    integrity: Integrity,
}

impl Place {
    fn new(integrity: Integrity) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("data/engine")).unwrap();
        generate_key_file(dir.path().join("cmek.key")).unwrap();
        Self { dir, integrity }
    }

    fn store(&self) -> Store {
        store(self.dir.path(), self.integrity).unwrap()
    }

    fn engine_dir(&self) -> PathBuf {
        engine_dir(self.dir.path())
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut dirs = vec![self.engine_dir()];
        let mut files = Vec::new();
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { &mut dirs } else { &mut files }.push(path);
            }
        }
        files
    }

    fn data_keys<E: Engine>(&self, store: &Store) -> BTreeSet<DataKeyId> {
        self.files().iter().filter_map(|path| E::data_key(store, path)).collect()
    }

    fn show_nothing(&self) {
        let files = self.files();
        assert!(!files.is_empty(), "the engine has no files");
        for path in files {
            let bytes = fs::read(&path).unwrap();
            for word in KNOWN {
                let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
                assert!(!found, "{word:?} stands in {}", path.display());
            }
        }
    }
}

fn engine_dir(dir: &Path) -> PathBuf {
    dir.join("data/engine")
}

fn store(dir: &Path, integrity: Integrity) -> atrest::Result<Store> {
    let mut options = Options::default();
    options.settings.integrity = IntegrityPolicy::all(integrity);
    let kms = KeyFile::new(dir.join("cmek.key"))?;
    Store::open_or_create(dir.join("data"), Arc::new(kms), options)
}

fn put<E: Engine>(engine: &mut E, numbers: std::ops::Range<u64>) {
    for number in numbers {
        engine.put(number, &value(number)).unwrap();
    }
}

fn has<E: Engine>(engine: &E, count: u64) {
    for number in 0..count {
        assert_eq!(engine.get(number).unwrap(), Some(value(number)));
    }
}

fn lives<E: Engine>(integrity: Integrity) {
    let place = Place::new(integrity);
    let store = place.store();
    let mut engine = E::open(&store, &place.engine_dir()).unwrap();
    put(&mut engine, 0..100);
    has(&engine, 100);
    place.show_nothing();
    drop(engine);
    let old = store.keys().active_id().unwrap();
    assert_eq!(place.data_keys::<E>(&store), [old].into());

    // Rotated while the engine is closed, and while it works.
    let newer = store.keys().rotate().unwrap();
    let mut engine = E::open(&store, &place.engine_dir()).unwrap();
    put(&mut engine, 100..150);
    assert!(place.data_keys::<E>(&store).contains(&newer), "no file under the new key");
    let newest = store.keys().rotate().unwrap();
    put(&mut engine, 150..160);
    has(&engine, 160);
    engine.compact().unwrap();
    has(&engine, 160);
    put(&mut engine, 160..170);
    assert_eq!(place.data_keys::<E>(&store), [newest].into(), "what compaction left");
    drop(engine);
    place.show_nothing();
    has(&E::open(&store, &place.engine_dir()).unwrap(), 170);
}

fn stops_and_goes_on<E: Engine>(integrity: Integrity) {
    let place = Place::new(integrity);
    let store = place.store();
    let mut engine = E::open(&store, &place.engine_dir()).unwrap();
    put(&mut engine, 0..20);
    for _ in 0..2 {
        store.access().revoke().unwrap();
        assert!(engine.get(3).is_err(), "a read without the customer's key");
        assert!(engine.put(20, &value(20)).is_err(), "a write without the customer's key");
        store.access().restore().unwrap();
        has(&engine, 20);
    }
    put(&mut engine, 20..40);
    has(&engine, 40);
    drop(engine);
    store.access().revoke().unwrap();
    assert!(E::open(&store, &place.engine_dir()).is_err(), "opened without the customer's key");
    store.access().restore().unwrap();
    has(&E::open(&store, &place.engine_dir()).unwrap(), 40);
}

fn refuses_a_wrong_key<E: Engine>() {
    let place = Place::new(Integrity::Authenticated);
    let store = place.store();
    put(&mut E::open(&store, &place.engine_dir()).unwrap(), 0..3);
    store.close().unwrap();
    let (key, away) = (place.dir.path().join("cmek.key"), place.dir.path().join("away.key"));
    fs::rename(&key, &away).unwrap();
    generate_key_file(&key).unwrap();
    let refused = self::store(place.dir.path(), place.integrity).unwrap_err().kind();
    assert!(matches!(refused, ErrorKind::Kms(_) | ErrorKind::WrongStoreKey), "{refused:?}");
    // Another store's keys open nothing of this one.
    let other = Place::new(Integrity::Authenticated);
    let foreign = E::open(&other.store(), &place.engine_dir());
    assert!(foreign.and_then(|engine| engine.get(0)).is_err(), "opened with another store's keys");
    fs::rename(&away, &key).unwrap();
    has(&E::open(&place.store(), &place.engine_dir()).unwrap(), 3);
}

const KILLS: u64 = 50;
const CHILD: &str = "ATREST_KILLED_ENGINE";

/// Kills a process that writes, 50 times, with `SIGKILL`: no record that `put` acknowledged is
/// lost, and none is wrong. `test` is the name of the test that calls this, as the test binary
/// lists it: the same test is the process that is killed.
///
/// # Panics
/// If a record is lost.
pub fn engine_survives_kills<E: Engine>(test: &str) {
    let Some(dir) = std::env::var_os(CHILD) else { return kill::<E>(test) };
    let dir = Path::new(&dir);
    let store = store(dir, Integrity::Authenticated).unwrap();
    let mut engine = E::open(&store, &engine_dir(dir)).unwrap();
    for number in count(&engine).. {
        engine.put(number, &value(number)).unwrap();
        eprintln!("acknowledged {number}");
        if number % 97 == 96 {
            engine.compact().unwrap();
        }
    }
}

fn count<E: Engine>(engine: &E) -> u64 {
    (0..).find(|number| engine.get(*number).unwrap().is_none()).unwrap()
}

fn kill<E: Engine>(test: &str) {
    let place = Place::new(Integrity::Authenticated);
    place.store().close().unwrap();
    let mut acknowledged = 0;
    for round in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(CHILD, place.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        // What else it says, a panic say, is shown.
        let mut numbers = lines.filter_map(|line| {
            let number = line.strip_prefix("acknowledged ").and_then(|number| number.parse().ok());
            number.or_else(|| {
                eprintln!("{line}");
                None
            })
        });
        for _ in 0..=round * 7 % 20 {
            let number: u64 = numbers.next().expect("the engine went on");
            acknowledged = number + 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What was said and not yet read.
        acknowledged = numbers.last().map_or(acknowledged, |number| number + 1);
        let store = place.store();
        let engine = E::open(&store, &place.engine_dir()).unwrap();
        let found = count(&engine);
        assert!(found >= acknowledged, "round {round}: {acknowledged} acknowledged, {found} found");
        has(&engine, found);
    }
    assert!(acknowledged > KILLS);
    place.show_nothing();
}
