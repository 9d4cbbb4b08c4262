//! The model: which version of each record was attempted and which acknowledged, in a file that
//! outlives a kill of the engine.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

const ENTRY: usize = 13;
const ATTEMPT: u8 = 1;
const ACKNOWLEDGED: u8 = 2;

#[derive(Debug, Default)]
struct Known {
    attempted: AtomicU64,
    acknowledged: AtomicU64,
}

/// What every record was and may be. One writer for each key; any number of readers.
#[derive(Debug)]
pub struct Journal {
    file: File,
    keys: Vec<Known>,
}

impl Journal {
    /// Goes on with what is there, written anew without what is no longer of interest.
    pub(crate) fn open(path: &Path, keys: u32) -> io::Result<Self> {
        let keys: Vec<_> = (0..keys).map(|_| Known::default()).collect();
        let before = if path.exists() { std::fs::read(path)? } else { Vec::new() };
        for entry in before.chunks_exact(ENTRY) {
            let (kind, key, version) = parse(entry);
            let known = &keys[key as usize];
            let to = if kind == ATTEMPT { &known.attempted } else { &known.acknowledged };
            to.store(version, Ordering::SeqCst);
        }
        let mut compact = Vec::new();
        for (key, known) in (0..).zip(&keys) {
            compact.extend(entry(ATTEMPT, key, known.attempted.load(Ordering::SeqCst)));
            compact.extend(entry(ACKNOWLEDGED, key, known.acknowledged.load(Ordering::SeqCst)));
        }
        let new = path.with_extension("new");
        std::fs::write(&new, compact)?;
        std::fs::rename(&new, path)?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)?, keys })
    }

    pub(crate) fn keys(&self) -> u32 {
        self.keys.len() as u32
    }

    /// The next version of a record, which may be there from now on.
    pub(crate) fn attempt(&self, key: u32) -> io::Result<u64> {
        let version = self.attempted(key) + 1;
        (&self.file).write_all(&entry(ATTEMPT, key, version))?;
        self.keys[key as usize].attempted.store(version, Ordering::SeqCst);
        Ok(version)
    }

    /// That version, or a later one, has to be there from now on.
    pub(crate) fn acknowledge(&self, key: u32, version: u64) -> io::Result<()> {
        (&self.file).write_all(&entry(ACKNOWLEDGED, key, version))?;
        self.keys[key as usize].acknowledged.store(version, Ordering::SeqCst);
        Ok(())
    }

    pub(crate) fn attempted(&self, key: u32) -> u64 {
        self.keys[key as usize].attempted.load(Ordering::SeqCst)
    }

    /// The version that a record has to be of at least.
    pub fn acknowledged(&self, key: u32) -> u64 {
        self.keys[key as usize].acknowledged.load(Ordering::SeqCst)
    }

    /// What every record was at least.
    pub fn all_acknowledged(&self) -> Vec<u64> {
        (0..self.keys()).map(|key| self.acknowledged(key)).collect()
    }

    /// Holds what was read to the model: `least` was acknowledged before the read began.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge(
        &self,
        key: u32,
        least: u64,
        read: Option<&[u8]>,
        len_max: usize,
    ) -> Result<(), String> {
        let most = self.attempted(key);
        let found = match read {
            None => 0,
            Some(bytes) => version_of(bytes, key, len_max).ok_or_else(|| {
                format!(
                    "record {key}: {} bytes that nobody wrote, expected version {least} to {most}",
                    bytes.len()
                )
            })?,
        };
        if (least..=most).contains(&found) {
            Ok(())
        } else {
            Err(format!("record {key}: expected version {least} to {most}, found {found}"))
        }
    }
}

fn entry(kind: u8, key: u32, version: u64) -> [u8; ENTRY] {
    let mut entry = [kind; ENTRY];
    entry[1..5].copy_from_slice(&key.to_le_bytes());
    entry[5..].copy_from_slice(&version.to_le_bytes());
    entry
}

fn parse(entry: &[u8]) -> (u8, u32, u64) {
    let key = entry[1..5].try_into().map(u32::from_le_bytes).unwrap_or_default();
    let version = entry[5..].try_into().map(u64::from_le_bytes).unwrap_or_default();
    (entry[0], key, version)
}

/// The content of a version: its key and number, and bytes that follow from them.
pub(crate) fn content(key: u32, version: u64, len_max: usize) -> Vec<u8> {
    let mut rng = crate::Rng::new(u64::from(key) << 32 ^ version);
    let len = 12 + rng.below(len_max as u64 - 11) as usize;
    let mut bytes = Vec::with_capacity(len + 8);
    bytes.extend(key.to_le_bytes());
    bytes.extend(version.to_le_bytes());
    while bytes.len() < len {
        bytes.extend(rng.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn version_of(bytes: &[u8], key: u32, len_max: usize) -> Option<u64> {
    let version = u64::from_le_bytes(bytes.get(4..12)?.try_into().ok()?);
    (bytes == content(key, version, len_max)).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::{Journal, content};

    #[test]
    fn what_was_not_acknowledged_may_be_there_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let journal = Journal::open(&path, 2).unwrap();
        for version in 1..=3 {
            assert_eq!(journal.attempt(1).unwrap(), version);
        }
        journal.acknowledge(1, 2).unwrap();
        // A killed process leaves the file alone.
        drop(journal);
        let journal = Journal::open(&path, 2).unwrap();
        let judge = |version: u64| {
            let bytes = (version > 0).then(|| content(1, version, 100));
            journal.judge(1, journal.acknowledged(1), bytes.as_deref(), 100).is_ok()
        };
        assert_eq!([0, 1, 2, 3, 4].map(judge), [false, false, true, true, false]);
        let mut other = content(1, 2, 100);
        other[5] ^= 1;
        assert!(journal.judge(1, 2, Some(&other), 100).is_err());
        assert!(journal.judge(1, 2, Some(&content(0, 2, 100)), 100).is_err(), "another record");
        assert!(journal.judge(0, 0, None, 100).is_ok());
        assert_eq!(journal.attempt(1).unwrap(), 4);
    }
}
