//! No keystream is used twice, whatever fails: every file is looked at after every step. (The
//! library's own oracle, which ends a test at a second use, is in these tests as well.)

use std::collections::HashMap;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use atrest::keyring::{DirectoryStorage, IntegrityPolicy};
use atrest::{HEADER_LEN, Integrity, Keyring, Options, Store};
use atrest_raft_engine::{EncryptedFileSystem, Log, LogWriter};
use atrest_testkit::{Engine as _, MemFs, ScriptedKms};
use raft_engine::Config;
use raft_engine::env::{FileSystem, Handle, Permission, WriteExt};

use crate::support::{Raft, config, has, text};

/// What was seen under each salt, which stands for the key.
#[derive(Default)]
struct Watch(HashMap<Vec<u8>, Vec<u8>>);

impl Watch {
    fn look(&mut self, file: &[u8]) {
        if file.len() < HEADER_LEN {
            return;
        }
        assert!(file.starts_with(b"\x89ATRF"), "a file without a header");
        let seen = self.0.entry(file[96..128].to_vec()).or_default();
        let both = seen.len().min(file.len());
        assert!(seen[..both] == file[..both], "two ciphertexts in one place under one key");
        if file.len() > both {
            *seen = file.to_vec();
        }
    }
}

#[test]
#[should_panic(expected = "two ciphertexts")]
fn the_watch_sees_what_is_cut_and_written_again() {
    let mut file = vec![7; HEADER_LEN + 10];
    file[..5].copy_from_slice(b"\x89ATRF");
    let mut watch = Watch::default();
    watch.look(&file);
    file.truncate(HEADER_LEN + 4);
    watch.look(&file);
    file.extend_from_slice(&[7, 7, 8]);
    watch.look(&file);
}

/// One log as the engine writes it: a failed write is taken back and comes again, with other bytes.
struct Life {
    mem: MemFs,
    files: EncryptedFileSystem,
    log: Arc<Log>,
    writer: LogWriter,
    written: Vec<u8>,
    watch: Watch,
}

const LOG: &str = "/store/0000000000000001.raftlog";

fn insist<T, E>(mut attempt: impl FnMut() -> Result<T, E>) -> T {
    attempt().or_else(|_| attempt()).unwrap_or_else(|_| panic!("it failed twice"))
}

impl Life {
    fn new(mem: &MemFs, files: EncryptedFileSystem) -> Self {
        let log = Arc::new(insist(|| files.create(LOG)));
        let writer = files.new_writer(log.clone()).unwrap();
        Self { mem: mem.clone(), files, log, writer, written: Vec::new(), watch: Watch::default() }
    }

    fn look(&mut self) {
        let is_log = |(name, _): &(String, Vec<u8>)| name.contains(".raftlog");
        self.mem.files().into_iter().filter(is_log).for_each(|(_, file)| self.watch.look(&file));
    }

    fn write(&mut self, number: usize) {
        for attempt in 0..3 {
            let bytes = vec![number as u8 ^ attempt << 6; 100 + 37 * number];
            let at = self.written.len();
            let written = self.writer.write_all(&bytes);
            self.look();
            match written {
                Ok(()) => return self.written.extend(bytes),
                Err(_) => {
                    self.writer.seek(SeekFrom::Start(at as u64)).unwrap();
                    // The engine gives up this write if that fails too.
                    let _taken_back = self.writer.truncate(at);
                    self.look();
                }
            }
        }
        panic!("it failed three times");
    }

    /// The next life of the engine, which cuts what is torn.
    fn reopen(&mut self) {
        self.log = Arc::new(insist(|| self.files.open(LOG, Permission::ReadWrite)));
        let len = self.written.len();
        if insist(|| self.log.file_size()) != len {
            insist(|| self.log.truncate(len));
        }
        self.writer = self.files.new_writer(self.log.clone()).unwrap();
        assert_eq!(insist(|| self.writer.seek(SeekFrom::End(0))), len as u64);
        self.look();
    }

    fn read(&self) -> Vec<u8> {
        insist(|| {
            let mut bytes = Vec::new();
            self.files.new_reader(self.log.clone())?.read_to_end(&mut bytes).map(|_| bytes)
        })
    }
}

#[test]
fn failed_writes_cuts_and_reopenings_repeat_no_keystream() {
    for integrity in Integrity::ALL {
        let mut failing = 0;
        loop {
            let mem = MemFs::new("/store");
            let mut options = Options::default();
            options.background = false;
            options.settings.integrity = IntegrityPolicy::all(integrity);
            let storage = DirectoryStorage::with_vfs("/store", Arc::new(mem.clone()));
            let keyring = Keyring::create(storage, ScriptedKms::new("customer"), options).unwrap();
            let store = Store::over_vfs(keyring, Arc::new(mem.clone())).unwrap();
            let first = mem.next_op();
            mem.fail_at(first + failing);

            let mut life = Life::new(&mem, EncryptedFileSystem::new(&store));
            for number in 0..9 {
                life.write(number);
                if number % 3 == 2 {
                    life.reopen();
                }
            }
            // Cut, and gone on with other bytes.
            life.written.truncate(300);
            insist(|| life.writer.truncate(300));
            for number in 20..23 {
                life.write(number);
            }
            let all_done = mem.next_op() <= first + failing;
            assert_eq!(life.read(), life.written);
            life.reopen();
            assert_eq!(life.read(), life.written);
            assert!(life.watch.0.len() >= 4, "each opening and the cut get a key");
            if all_done {
                break;
            }
            failing += 1;
        }
        assert!(failing > 40, "{failing}");
    }
}

#[test]
fn a_recycled_log_has_a_key_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("raft")).unwrap();
    let kms = ScriptedKms::new("customer");
    let store = Store::create(dir.path(), kms, Options::default()).unwrap();
    let mut watch = Watch::default();
    let config = || Config { enable_log_recycle: true, ..config(&dir.path().join("raft")) };
    let mut names = 0;
    for life in 0..3 {
        let mut raft = Raft::with(&store, config()).unwrap();
        for number in life * 100..(life + 1) * 100 {
            raft.put(number, &text(number)).unwrap();
            if number % 10 == 9 {
                raft.0.purge_expired_files().unwrap();
            }
            look(&mut watch, &dir.path().join("raft"));
        }
        has(&raft, (life + 1) * 100);
        names = fs::read_dir(dir.path().join("raft")).unwrap().count();
    }
    assert!(watch.0.len() > names + 5, "{} keys, {names} files", watch.0.len());
}

fn look(watch: &mut Watch, dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        watch.look(&fs::read(entry.unwrap().path()).unwrap());
    }
}
