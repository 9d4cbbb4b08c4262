//! Logs with a changed byte in their middle: RocksDB takes none for one that ends there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use atrest::HEADER_LEN;

use crate::support::{Engine, Form, Place};

/// No memtable is flushed, so that each has a log.
const MANY_LOGS: &str = ";write_buffer_size=65536;max_write_buffer_number=8;\
                         min_write_buffer_number_to_merge=6;avoid_flush_during_recovery=true";

/// Where the frames of a log in suite 3 are.
fn frames(log: &[u8]) -> Vec<Range<usize>> {
    let (mut at, mut frames) = (HEADER_LEN, Vec::new());
    while let Some(len) = log[at..].first_chunk() {
        let end = at + 4 + u32::from_be_bytes(*len) as usize + 16;
        frames.push(at..end);
        at = end;
    }
    frames
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "log")
}

/// A database that is not open, and can be put back.
struct Kept(Place, BTreeMap<PathBuf, Vec<u8>>);

impl Kept {
    /// A database of so many records, in many logs.
    fn of_records(form: Form, records: u32) -> Option<Self> {
        let mut place = Place::new(form)?;
        place.options += MANY_LOGS;
        let mut engine = place.engine();
        engine.run(&[&format!("put 0 {records} a")]);
        engine.quit();
        Some(Self::new(place))
    }

    /// The first log.
    fn log(&self) -> (PathBuf, Vec<u8>) {
        let (path, bytes) = self.1.iter().find(|(path, _)| is_log(path)).unwrap();
        (path.clone(), bytes.clone())
    }

    fn new(place: Place) -> Self {
        let files = place.everything().into_iter();
        let of_db = files.filter(|(path, _)| path.starts_with(place.db())).collect();
        Self(place, of_db)
    }

    fn put_back(&self) {
        std::fs::remove_dir_all(self.0.db()).unwrap();
        std::fs::create_dir(self.0.db()).unwrap();
        self.1.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    }

    /// Changes a byte of the middle frame of the first such file, and says which frame that is.
    fn damage(&self, which: impl Fn(&Path) -> bool) -> usize {
        let (path, bytes) = self.1.iter().find(|(path, _)| which(path)).unwrap();
        let frames = frames(bytes);
        let mut changed = bytes.clone();
        changed[frames[frames.len() / 2].start + 4] ^= 1;
        std::fs::write(path, changed).unwrap();
        frames.len() / 2
    }

    /// An engine on a damaged log.
    fn recover(&mut self, options: &str) -> Result<Engine, String> {
        self.put_back();
        self.damage(is_log);
        self.0.options = options.into();
        self.0.try_engine()
    }
}

#[test]
fn a_damaged_log_does_not_end_in_front_of_the_damage() {
    let Some(mut kept) = Kept::of_records(Form::FileSystem, 1500) else { return };
    let logs: Vec<_> = kept.1.iter().filter(|(path, _)| is_log(path)).collect();
    assert!(logs.len() > 1 && frames(logs[1].1).len() > 10);
    let (good, first) = (frames(logs[0].1).len() / 2, frames(logs[0].1).len());

    for mode in ["kAbsoluteConsistency", "kTolerateCorruptedTailRecords"] {
        let told = kept.recover(&format!("wal_recovery_mode={mode}")).unwrap_err();
        assert!(told.contains("damaged"), "{mode}: {told}");
    }
    // Not one record behind the damage, and every one in front of it.
    let mut engine = kept.recover("wal_recovery_mode=kPointInTimeRecovery").unwrap();
    engine.run(&[&format!("get 0 {good} a")]);
    for gone in good..1500 {
        assert!(engine.ask(&format!("get {gone} 1 a")).is_err(), "{gone} of {good}");
    }
    engine.run(&["put 5000 10 c", "reopen", &format!("get 0 {good} a"), "get 5000 10 c"]);
    engine.quit();
    let mut engine = kept.recover("wal_recovery_mode=kSkipAnyCorruptedRecords").unwrap();
    engine.run(&[&format!("get 0 {good} a"), &format!("get {first} {} a", 1500 - first)]);
    assert!(engine.ask(&format!("get {good} 1 a")).is_err());
    engine.quit();
}

/// It gets what is in front of the damage, and then hears of it.
#[test]
fn who_follows_a_damaged_log_misses_nothing_silently() {
    let Some(mut place) = Place::new(Form::FileSystem) else { return };
    place.options += MANY_LOGS;
    let mut engine = place.engine();
    engine.run(&["put 0 1500 a", "updates 1500"]);
    let kept = Kept::new(place);
    let good = kept.damage(is_log);
    let told = engine.ask(&format!("updates {good}")).unwrap_err();
    assert!(told.contains("Gap in sequence numbers"), "{told}");
}

/// More than a crash leaves: what was in it is lost, and what comes behind it has to be too.
#[test]
fn a_log_that_lost_its_header_is_not_empty() {
    for form in [Form::FileSystem, Form::Provider] {
        let Some(mut kept) = Kept::of_records(form, 1500) else { return };
        let (path, mut bytes) = kept.log();
        bytes[..HEADER_LEN].fill(0);
        let mut opened = |mode: &str| {
            kept.put_back();
            std::fs::write(&path, &bytes).unwrap();
            kept.0.options = format!("wal_recovery_mode={mode}");
            kept.0.try_engine()
        };
        assert!(opened("kAbsoluteConsistency").is_err());
        let mut engine = opened("kPointInTimeRecovery").unwrap();
        for gone in [0, 700, 1499] {
            assert!(engine.ask(&format!("get {gone} 1 a")).is_err(), "{form:?}: {gone}");
        }
        engine.quit();
    }
}

/// What a crash leaves.
#[test]
fn a_log_that_is_cut_ends_there() {
    let Some(mut kept) = Kept::of_records(Form::FileSystem, 400) else { return };
    let (path, bytes) = kept.log();
    let frames = frames(&bytes);
    let good = frames.len() / 2;
    for mode in ["kAbsoluteConsistency", "kPointInTimeRecovery"] {
        kept.put_back();
        std::fs::write(&path, &bytes[..frames[good].end - 1]).unwrap();
        kept.0.options = format!("wal_recovery_mode={mode}");
        let mut engine = kept.0.engine();
        engine.run(&[&format!("get 0 {good} a")]);
        assert!(engine.ask(&format!("get {good} 1 a")).is_err());
        engine.quit();
    }
}

#[test]
fn a_damaged_manifest_is_refused_and_no_table_vanishes() {
    let Some(mut place) = Place::new(Form::FileSystem) else { return };
    place.options += ";disable_auto_compactions=true";
    let mut engine = place.engine();
    for batch in 0..8 {
        engine.run(&[&format!("put {} 10 a", batch * 10), "flush"]);
    }
    engine.quit();
    let kept = Kept::new(place);
    kept.damage(|path| path.file_name().unwrap().to_str().unwrap().starts_with("MANIFEST"));
    let told = kept.0.try_engine().unwrap_err();
    assert!(told.contains("damaged"), "{told}");
    for path in kept.1.keys().filter(|path| path.extension().is_some_and(|it| it == "sst")) {
        assert!(path.exists(), "{}", path.display());
    }
    kept.put_back();
    let mut engine = kept.0.engine();
    engine.run(&["get 0 80 a"]);
    engine.quit();
}

/// RocksDB copies as many bytes of a log as it is told that there are.
#[test]
fn a_damaged_log_is_not_backed_up() {
    let Some(mut place) = Place::new(Form::FileSystem) else { return };
    place.options += MANY_LOGS;
    let mut engine = place.engine();
    engine.run(&["put 0 1500 a"]);
    let backup = |name: &str| format!("back-up {}", place.path("data").join(name).display());
    let (whole, damaged) = (backup("whole"), backup("damaged"));
    engine.run(&[&whole]);
    let kept = Kept::new(place);
    kept.damage(is_log);
    let told = engine.ask(&damaged).unwrap_err();
    assert!(told.contains("damaged"), "{told}");
}
