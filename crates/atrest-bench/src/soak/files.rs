//! `EncryptedFs` as an engine uses it: a record is a file, replaced by a rename.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atrest::backup::{Chain, DirectoryTarget, RestoreSpec};
use atrest::kms::Kms;
use atrest::store::{Reencrypt, StalePolicy};
use atrest::{ErrorKind, FileKind, FileSpec, Options, Store, Suite};
use atrest_soak::{Any, Engine, Journal, Wrong, options};

pub(super) struct Files {
    store: Store,
    dir: PathBuf,
    kms: Arc<dyn Kms>,
}

impl Files {
    pub(super) fn open(dir: &Path, kms: Arc<dyn Kms>) -> atrest::Result<Self> {
        let store = Store::open_or_create(dir, kms.clone(), options())?;
        Ok(Self { store, dir: dir.into(), kms })
    }
}

fn name(key: u32) -> String {
    format!("{key:06}.sst")
}

fn read(store: &Store, dir: &Path, key: u32) -> Any<Option<Vec<u8>>> {
    let reader = match store.files().open(dir.join(name(key))) {
        Ok(reader) => reader,
        Err(error) if error.kind() == ErrorKind::Io(std::io::ErrorKind::NotFound) => {
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let mut bytes = vec![0; reader.len()? as usize];
    reader.read_exact_at(&mut bytes, 0)?;
    Ok(Some(bytes))
}

impl Engine for Files {
    fn len_max(&self) -> usize {
        60_000
    }

    fn put(&self, key: u32, value: &[u8]) -> Any<()> {
        let files = self.store.files();
        let new = self.dir.join(format!("{key:06}.new"));
        // Of a process that was killed, or a disk that was full.
        if new.try_exists()? {
            files.remove(&new)?;
        }
        let suite = Suite::ALL[key as usize % 3];
        let spec = FileSpec::new(FileKind::Table).suite(suite).file_id(u64::from(key));
        let mut writer = files.create_new(&new, spec)?;
        for piece in value.chunks(7_001) {
            writer.append(piece)?;
        }
        writer.finish()?;
        files.rename(&new, self.dir.join(name(key)))?;
        files.sync_dir(&self.dir)?;
        Ok(())
    }

    fn get(&self, key: u32) -> Any<Option<Vec<u8>>> {
        read(&self.store, &self.dir, key)
    }

    fn store(&self) -> &Store {
        &self.store
    }

    fn renew(&self) -> Any<u64> {
        let mut how = Reencrypt::default();
        how.policy = StalePolicy::older_than(Duration::ZERO);
        how.threads = 2;
        let renewal = self.store.renewal();
        let report = renewal.reencrypt(&how)?;
        if let Some((path, error)) = report.failed.into_iter().next() {
            return Err(format!("re-encryption of {}: {error}", path.display()).into());
        }
        Ok(renewal.retire(None, Duration::ZERO, &|_| {})?.destroyed().count() as u64)
    }

    fn back_up(&self, scratch: &Path, journal: &Journal) -> Any<u64> {
        let (chain, restored) = (scratch.join("chain"), scratch.join("restored"));
        // What a killed one left behind goes on, up to a few backups in one chain.
        if count(&chain) >= 5 {
            std::fs::remove_dir_all(&chain)?;
        }
        std::fs::create_dir_all(&chain)?;
        let go_on = |_| ControlFlow::Continue(());
        let least = journal.all_acknowledged();
        let chain = Chain::open_or_create(DirectoryTarget::new(&chain), self.kms.clone())?;
        self.store.backups().add(&chain, &self.dir, &go_on)?;
        drop(chain);
        let keys = vec![self.kms.clone()];
        let chain = Chain::open_read_only(DirectoryTarget::new(scratch.join("chain")), keys)?;
        if restored.exists() {
            std::fs::remove_dir_all(&restored)?;
        }
        chain.restore(&RestoreSpec::new(&restored, self.kms.clone()), &go_on)?;
        let store = Store::open_read_only(&restored, self.kms.clone(), Options::default())?;
        for (key, least) in (0..).zip(&least) {
            let found = read(&store, &restored, key)?;
            let judged = journal.judge(key, *least, found.as_deref(), self.len_max());
            judged.map_err(|error| Wrong(format!("restored {error}")))?;
        }
        drop(store);
        std::fs::remove_dir_all(&restored)?;
        Ok(least.len() as u64)
    }

    fn close(&self) {
        drop(self.store.clone().close());
    }
}

fn count(chain: &Path) -> usize {
    let entries = std::fs::read_dir(chain).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"backup.")).count()
}
