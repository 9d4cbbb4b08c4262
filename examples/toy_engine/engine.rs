//! A toy LSM engine on a `Store`.
//!
//! - The log is in suite 3: each append is a frame that a sync makes durable, and a crash in the
//!   middle of one costs that one only.
//! - Tables are in suite 2: a changed, cut or swapped one is refused. (Read whole here; a real
//!   engine reads its blocks at any offset, and only the chunks they touch are decrypted.)
//! - The manifest is replaced by a rename. It alone says which files count.
//! - Keys are nowhere: a new file gets the newest data key, so compaction moves data to it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::kms::Kms;
use atrest::{Expect, FileKind, FileSpec, Options, Reader, Store, Suite, Writer};

pub type Any<T> = Result<T, Box<dyn std::error::Error>>;
pub type Records = BTreeMap<String, String>;

pub struct Engine {
    pub store: Store,
    dir: PathBuf,
    /// What the manifest names: tables, the newest last, and the log.
    tables: Vec<u64>,
    pub log_id: u64,
    log: Option<Writer>,
    /// What is in the log.
    memory: Records,
}

impl Engine {
    pub fn open(dir: &Path, kms: Arc<dyn Kms>) -> Any<Self> {
        let store = Store::open_or_create(dir, kms, Options::default())?;
        let (tables, log_id, log, memory) = Default::default();
        let mut engine = Self { store, dir: dir.into(), tables, log_id, log, memory };
        let manifest = dir.join("MANIFEST");
        if manifest.try_exists()? {
            let bytes = engine.read(&manifest, FileKind::Manifest, 0)?;
            (engine.tables, engine.log_id) = serde_json::from_slice(&bytes)?;
            engine.replay()?;
        }
        // A process that died before its sync left a manifest that a power cut may take back.
        engine.store.files().sync_dir(dir)?;
        // What the manifest does not name was being written at the crash. Files of the keyring
        // are not listed.
        for entry in engine.store.files().list(dir)? {
            let mut named = engine.tables.iter().chain([&engine.log_id]);
            if entry.path != manifest && !named.any(|id| engine.path(*id) == entry.path) {
                engine.store.files().remove(entry.path)?;
            }
        }
        // Nothing is appended to a log after a crash: its records become a table.
        engine.commit(engine.tables.clone(), engine.memory.clone())?;
        Ok(engine)
    }

    fn replay(&mut self) -> Any<()> {
        let log = self.open_file(&self.path(self.log_id), FileKind::Log, self.log_id)?;
        let (mut frame, mut number) = (Vec::new(), 0);
        while log.read_frame(number, &mut frame)? {
            self.memory.extend([serde_json::from_slice::<(String, String)>(&frame)?]);
            number += 1;
        }
        if let Some(torn) = log.torn() {
            // A crash cuts the last append; else this is damage to tell people about.
            println!("the log ends after {number} records: {:?}", torn.reason);
        }
        Ok(())
    }

    /// Durable when it returns.
    pub fn put(&mut self, key: &str, value: &str) -> Any<()> {
        let log = self.log.as_mut().ok_or("a commit failed before")?;
        log.append(&serde_json::to_vec(&(key, value))?)?;
        log.sync()?;
        self.memory.insert(key.into(), value.into());
        Ok(())
    }

    pub fn all(&self) -> Any<Records> {
        let mut all = Records::new();
        for id in &self.tables {
            let bytes = self.read(&self.path(*id), FileKind::Table, *id)?;
            all.extend(serde_json::from_slice::<Records>(&bytes)?);
        }
        all.extend(self.memory.clone());
        Ok(all)
    }

    /// All tables become one.
    pub fn compact(&mut self) -> Any<()> {
        self.commit(Vec::new(), self.all()?)
    }

    /// Writes a table and a log, lets the manifest name them, then removes what it named before.
    fn commit(&mut self, mut tables: Vec<u64>, records: Records) -> Any<()> {
        let (table, log_id) = (self.log_id + 1, self.log_id + 2);
        if !records.is_empty() {
            self.write(&self.path(table), FileKind::Table, table, &serde_json::to_vec(&records)?)?;
            tables.push(table);
        }
        let spec = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog).file_id(log_id);
        let mut log = self.store.files().create_new(self.path(log_id), spec)?;
        log.sync()?;
        let new = self.dir.join("MANIFEST.new");
        self.write(&new, FileKind::Manifest, 0, &serde_json::to_vec(&(&tables, log_id))?)?;
        // What the manifest names is there before it says so.
        self.store.files().sync_dir(&self.dir)?;
        self.store.files().rename(new, self.dir.join("MANIFEST"))?;
        self.store.files().sync_dir(&self.dir)?;
        self.log = Some(log);
        let old = std::mem::replace(&mut self.tables, tables).into_iter().chain([self.log_id]);
        for id in old.filter(|id| *id != 0 && !self.tables.contains(id)) {
            self.store.files().remove(self.path(id))?;
        }
        (self.log_id, self.memory) = (log_id, Records::new());
        Ok(())
    }

    fn write(&self, path: &Path, kind: FileKind, id: u64, bytes: &[u8]) -> Any<()> {
        let spec = FileSpec::new(kind).suite(Suite::Aes256GcmChunks).file_id(id);
        let mut writer = self.store.files().create_new(path, spec)?;
        writer.append(bytes)?;
        writer.finish()?;
        Ok(())
    }

    /// Refuses another file of the store that was put in this one's place.
    fn open_file(&self, path: &Path, kind: FileKind, id: u64) -> atrest::Result<Reader> {
        let expect = Expect { kind: Some(kind), file_id: Some(id.into()) };
        self.store.files().open_expecting(path, &expect)
    }

    fn read(&self, path: &Path, kind: FileKind, id: u64) -> Any<Vec<u8>> {
        let reader = self.open_file(path, kind, id)?;
        let mut bytes = vec![0; usize::try_from(reader.len()?)?];
        reader.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    pub fn path(&self, id: u64) -> PathBuf {
        self.dir.join(format!("{id:06}"))
    }
}
