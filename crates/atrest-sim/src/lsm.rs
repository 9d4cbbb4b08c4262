//! A small storage engine: a log, tables, and a manifest that is replaced by a rename.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use atrest::{ErrorKind, FileKind, FileSpec, Reader, Result, Store, Suite, Writer};

use crate::site::DIR;

const MANIFEST: &str = "lsm-MANIFEST";

/// Records by key.
pub(crate) type Records = BTreeMap<u8, String>;

/// An open engine.
pub(crate) struct Lsm {
    tables: Vec<u64>,
    log_id: u64,
    log: Option<Writer>,
    memory: Records,
}

/// What the manifest names: tables, the newest last, and the log.
fn manifest(store: &Store) -> Result<(Vec<u64>, u64)> {
    let path = Path::new(DIR).join(MANIFEST);
    let text = match store.files().open(&path) {
        Ok(reader) => whole(&reader)?,
        Err(error) if error.kind() == ErrorKind::Io(std::io::ErrorKind::NotFound) => {
            return Ok((Vec::new(), 0));
        }
        Err(error) => return Err(error),
    };
    let text = String::from_utf8_lossy(&text);
    // OK because the suite authenticates what it was.
    let mut ids: Vec<u64> = text.split(' ').map(|id| id.parse().expect("a number")).collect();
    let log_id = ids.pop().unwrap_or(0);
    Ok((ids, log_id))
}

/// All records that are on the disk.
pub(crate) fn read_all(store: &Store) -> Result<Records> {
    let (tables, log_id) = manifest(store)?;
    let mut all = Records::new();
    for id in tables {
        all.extend(parse(&whole(&store.files().open(path(id))?)?));
    }
    all.extend(read_log(store, log_id)?);
    Ok(all)
}

fn read_log(store: &Store, log_id: u64) -> Result<Records> {
    let mut records = Records::new();
    if log_id != 0 {
        let log = store.files().open(path(log_id))?;
        let (mut frame, mut number) = (Vec::new(), 0);
        while log.read_frame(number, &mut frame)? {
            records.extend(parse(&frame));
            number += 1;
        }
    }
    Ok(records)
}

impl Lsm {
    /// Opens it, or makes a new one.
    pub(crate) fn open(store: &Store) -> Result<Self> {
        let (tables, log_id) = manifest(store)?;
        let memory = read_log(store, log_id)?;
        let mut engine = Self { tables, log_id, log: None, memory };
        let keep: Vec<_> =
            engine.tables.iter().chain([&engine.log_id]).map(|id| path(*id)).collect();
        // The manifest that was read may be one that a power cut takes back.
        store.files().sync_dir(DIR)?;
        for entry in store.files().list(DIR)? {
            let name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("lsm-") && name != MANIFEST && !keep.contains(&entry.path) {
                store.files().remove(&entry.path)?;
            }
        }
        let (tables, memory) = (engine.tables.clone(), engine.memory.clone());
        engine.commit(store, tables, &memory)?;
        Ok(engine)
    }

    /// Durable when it returns.
    pub(crate) fn put(&mut self, key: u8, value: &str) -> Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        log.append(&text(&Records::from([(key, value.into())])))?;
        log.sync()?;
        self.memory.insert(key, value.into());
        Ok(())
    }

    /// What is in memory becomes a table.
    pub(crate) fn flush(&mut self, store: &Store) -> Result<()> {
        let (tables, memory) = (self.tables.clone(), self.memory.clone());
        self.commit(store, tables, &memory)
    }

    /// All tables become one.
    pub(crate) fn compact(&mut self, store: &Store) -> Result<()> {
        self.commit(store, Vec::new(), &read_all(store)?)
    }

    fn commit(&mut self, store: &Store, mut tables: Vec<u64>, records: &Records) -> Result<()> {
        let files = store.files();
        let (table, log_id) = (self.log_id + 1, self.log_id + 2);
        self.log = None;
        if !records.is_empty() {
            let spec = FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks).chunk_len(4096);
            write(store, &path(table), spec, &text(records))?;
            tables.push(table);
        }
        let spec = FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog);
        let mut log = files.reuse_for_write(path(log_id), spec)?;
        log.sync()?;
        let new = Path::new(DIR).join("lsm-MANIFEST.new");
        let ids: Vec<_> = tables.iter().chain([&log_id]).map(u64::to_string).collect();
        let spec = FileSpec::new(FileKind::Manifest).suite(Suite::Aes256GcmChunks);
        write(store, &new, spec, ids.join(" ").as_bytes())?;
        // Tables and log have their names before the manifest says so.
        files.sync_dir(DIR)?;
        files.rename(&new, Path::new(DIR).join(MANIFEST))?;
        files.sync_dir(DIR)?;
        self.log = Some(log);
        let old = std::mem::replace(&mut self.tables, tables).into_iter().chain([self.log_id]);
        let old: Vec<_> = old.filter(|id| *id != 0 && !self.tables.contains(id)).collect();
        (self.log_id, self.memory) = (log_id, Records::new());
        for id in old {
            files.remove(path(id))?;
        }
        Ok(())
    }
}

fn write(store: &Store, path: &Path, spec: FileSpec, bytes: &[u8]) -> Result<()> {
    let mut writer = store.files().reuse_for_write(path, spec)?;
    writer.append(bytes)?;
    writer.finish().map(drop)
}

fn path(id: u64) -> PathBuf {
    Path::new(DIR).join(format!("lsm-{id}"))
}

fn whole(reader: &Reader) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(reader.len()?).unwrap_or(0)];
    reader.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn text(records: &Records) -> Vec<u8> {
    let lines = records.iter().map(|(key, value)| format!("{key} {value}\n"));
    lines.collect::<String>().into_bytes()
}

fn parse(bytes: &[u8]) -> Records {
    let text = String::from_utf8_lossy(bytes);
    let record = |line: &str| {
        let (key, value) = line.split_once(' ')?;
        Some((key.parse().ok()?, value.to_owned()))
    };
    text.lines().filter_map(record).collect()
}
