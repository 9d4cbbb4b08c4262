//! What every engine has to show, of a table in a directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::{DataKeyId, FileKind, HEADER_LEN, Header, Integrity, Store};
use atrest_testkit::{Answer, Engine, engine_conformance, engine_survives_kills};
use datafusion::arrow::array::AsArray;
use object_store::local::LocalFileSystem;
use tokio::runtime::Runtime;

use crate::warehouse::{Tables, Way};

/// A table of records. Its files are in `v<n>`: one for each put, and after a compaction one for
/// each ten records.
struct Records<const BY_PARQUET: bool> {
    runtime: Runtime,
    tables: Tables,
    dir: PathBuf,
    version: u64,
}

impl<const BY_PARQUET: bool> Records<BY_PARQUET> {
    async fn create(tables: &Tables, version: u64) -> Answer<()> {
        let columns = "(number BIGINT, value VARCHAR, ten BIGINT) PARTITIONED BY (ten)";
        Ok(tables.create("records", columns, &format!("v{version}")).await?)
    }
}

impl<const BY_PARQUET: bool> Engine for Records<BY_PARQUET> {
    // Parquet's suites are its own.
    const INTEGRITY: &'static [Integrity] =
        if BY_PARQUET { &[Integrity::Authenticated] } else { &Integrity::ALL };

    fn open(store: &Store, dir: &Path) -> Answer<Self> {
        // The newest that is whole; what a killed compaction left of another goes.
        let named = |path: &Path| path.file_name()?.to_str()?.strip_prefix('v')?.parse().ok();
        let dirs: Vec<PathBuf> =
            fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Answer<_>>()?;
        let version = dirs.iter().filter_map(|path| named(path)).max().unwrap_or(0);
        for other in dirs.iter().filter(|path| named(path) != Some(version)) {
            fs::remove_dir_all(other)?;
        }
        let promised = store.keyring().settings().integrity.of(FileKind::Other);
        let way = if BY_PARQUET { Way::Parquet } else { Way::Store(promised) };
        let raw = Arc::new(LocalFileSystem::new_with_prefix(dir)?);
        let (runtime, tables) = (Runtime::new()?, Tables::new(raw, store.keyring(), way));
        runtime.block_on(async {
            Self::create(&tables, version).await?;
            // Reads its files, if it has any.
            tables.run("SELECT max(number) FROM records").await?;
            Answer::Ok(())
        })?;
        Ok(Self { runtime, tables, dir: dir.to_owned(), version })
    }

    fn put(&mut self, number: u64, value: &str) -> Answer<()> {
        let ten = number / 10;
        let sql = format!("INSERT INTO records VALUES ({number}, '{value}', {ten})");
        self.runtime.block_on(self.tables.run(&sql))?;
        Ok(())
    }

    fn get(&self, number: u64) -> Answer<Option<String>> {
        let ten = number / 10;
        let sql = format!("SELECT value FROM records WHERE ten = {ten} AND number = {number}");
        let batches = self.runtime.block_on(self.tables.run(&sql))?;
        let mut values = batches.iter().flat_map(|batch| batch.column(0).as_string_view().iter());
        let value = values.next().flatten().map(str::to_owned);
        assert!(values.next().is_none(), "{number} is there twice");
        Ok(value)
    }

    fn compact(&mut self) -> Answer<()> {
        let (old, new) = (format!("v{}", self.version), format!("v{}", self.version + 1));
        self.runtime.block_on(async {
            let making = format!("{new}.making");
            self.tables.copy("SELECT * FROM records", &making, "PARTITIONED BY (ten)").await?;
            fs::rename(self.dir.join(making), self.dir.join(&new))?;
            self.tables.run("DROP TABLE records").await?;
            self.version += 1;
            Self::create(&self.tables, self.version).await
        })?;
        fs::remove_dir_all(self.dir.join(old))?;
        Ok(())
    }

    /// By way of what names the footer's key, where Parquet encrypts.
    fn data_key(_store: &Store, path: &Path) -> Option<DataKeyId> {
        const MAGIC: &[u8] = b"\x89ATRF";
        let mut bytes = fs::read(path).unwrap();
        let at = bytes.windows(MAGIC.len()).position(|at| at == MAGIC);
        bytes.drain(..at.unwrap_or_else(|| panic!("no header in {}", path.display())));
        bytes.resize(HEADER_LEN, 0);
        if BY_PARQUET {
            bytes[176..].fill(0);
        }
        Some(Header::parse(&bytes).unwrap().data_key_id)
    }
}

#[test]
fn objects_live_with_rotation_revocation_and_compaction() {
    engine_conformance::<Records<false>>();
}

#[test]
fn parquet_lives_with_rotation_revocation_and_compaction() {
    engine_conformance::<Records<true>>();
}

#[test]
fn kill_9_loses_no_object() {
    engine_survives_kills::<Records<false>>("life::kill_9_loses_no_object");
}

#[test]
fn kill_9_loses_no_parquet_file() {
    engine_survives_kills::<Records<true>>("life::kill_9_loses_no_parquet_file");
}
