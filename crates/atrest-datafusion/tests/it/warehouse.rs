//! Sessions of DataFusion over encrypted tables, in a directory or in a bucket.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::{DirectoryStorage, KeyringStorage, RetireOutcome};
use atrest::kms::{KeyFile, generate_key_file};
use atrest::{DataKeyId, Integrity, Keyring, Options};
use atrest_datafusion::{ParquetFiles, ParquetKeys};
use atrest_object_store::v0_13::{EncryptedStore, ObjectStoreKeyringStorage};
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::error::DataFusionError;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;
use tokio::task::block_in_place;

use crate::moto::{self, Server};

/// How tables are encrypted.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// All objects, by the store below the session.
    Store(Integrity),
    /// Parquet's columns, by `ParquetKeys`.
    Parquet,
}

pub const WAYS: [Way; 3] =
    [Way::Store(Integrity::Confidential), Way::Store(Integrity::Authenticated), Way::Parquet];

enum Encryption {
    None,
    Store(EncryptedStore),
    Parquet(ParquetKeys),
}

/// A session whose tables are at `s3://tables/`.
pub struct Tables {
    pub session: SessionContext,
    raw: Arc<dyn ObjectStore>,
    encryption: Encryption,
    /// What each table says of its files.
    pub options: String,
}

impl Tables {
    /// Without encryption.
    pub fn plain(raw: Arc<dyn ObjectStore>) -> Self {
        Self::over(raw.clone(), raw, Encryption::None)
    }

    pub fn new(raw: Arc<dyn ObjectStore>, keyring: &Keyring, way: Way) -> Self {
        match way {
            Way::Store(integrity) => {
                let store = EncryptedStore::new(raw.clone(), keyring.clone());
                let store = store.with_integrity(integrity);
                Self::over(raw, Arc::new(store.clone()), Encryption::Store(store))
            }
            Way::Parquet => {
                let keys = ParquetKeys::new(keyring, "tables").unwrap();
                Self::over(raw.clone(), raw, Encryption::Parquet(keys))
            }
        }
    }

    fn over(
        raw: Arc<dyn ObjectStore>,
        store: Arc<dyn ObjectStore>,
        encryption: Encryption,
    ) -> Self {
        // Small, so that a query has many of them; and one after the other.
        let config = SessionConfig::new().with_batch_size(100).with_target_partitions(1);
        // Whatever is remembered is answered without the customer's key.
        let runtime = RuntimeEnvBuilder::new()
            .with_metadata_cache_limit(0)
            .with_file_statistics_cache_limit(0)
            .build_arc()
            .unwrap();
        let session = SessionContext::new_with_config_rt(config, runtime);
        session
            .register_object_store(ObjectStoreUrl::parse("s3://tables").unwrap().as_ref(), store);
        let mut options = "'format.compression' 'uncompressed', \
             'format.max_row_group_size' '100'"
            .to_owned();
        if let Encryption::Parquet(keys) = &encryption {
            let factory = Arc::new(keys.clone());
            session.runtime_env().register_parquet_encryption_factory("atrest", factory);
            options += ", 'format.crypto.factory_id' 'atrest'";
        }
        Self { session, raw, encryption, options }
    }

    pub async fn run(&self, sql: &str) -> Result<Vec<RecordBatch>, DataFusionError> {
        self.session.sql(sql).await?.collect().await
    }

    /// An answer as a text.
    pub async fn ask(&self, sql: &str) -> String {
        let batches = self.run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        pretty_format_batches(&batches).unwrap().to_string()
    }

    /// Makes a table of the files below `place`. `columns` may end with how they are partitioned.
    pub async fn create(
        &self,
        name: &str,
        columns: &str,
        place: &str,
    ) -> Result<(), DataFusionError> {
        let options = &self.options;
        let sql = format!(
            "CREATE EXTERNAL TABLE {name} {columns} STORED AS PARQUET \
             LOCATION 's3://tables/{place}/' OPTIONS ({options})"
        );
        self.run(&sql).await.map(drop)
    }

    /// Writes what a query answers below `place`, partitioned as `by` says.
    pub async fn copy(&self, query: &str, place: &str, by: &str) -> Result<(), DataFusionError> {
        let options = &self.options;
        let sql = format!(
            "COPY ({query}) TO 's3://tables/{place}/' STORED AS PARQUET {by} OPTIONS ({options})"
        );
        self.run(&sql).await.map(drop)
    }

    /// Rewrites a table, which nobody reads meanwhile.
    pub async fn rewrite(&self, name: &str, from: &str, to: &str) -> Result<(), DataFusionError> {
        self.copy(&format!("SELECT * FROM {name}"), to, "").await?;
        self.run(&format!("DROP TABLE {name}")).await?;
        let old: Vec<_> = self.raw.list(Some(&from.into())).try_collect().await?;
        for file in old {
            self.raw.delete(&file.location).await?;
        }
        // Its files say which columns there are.
        self.create(name, "", to).await
    }

    /// The data keys that files are under.
    pub async fn data_keys(&self) -> BTreeSet<DataKeyId> {
        match &self.encryption {
            Encryption::None => BTreeSet::new(),
            Encryption::Store(store) => {
                let usage = store.usage(None).await.unwrap();
                assert_eq!(usage.plaintext.objects + usage.unreadable.objects, 0, "{usage:?}");
                usage.keys.into_keys().collect()
            }
            Encryption::Parquet(keys) => {
                keys.usage(&self.places()).await.unwrap().into_keys().collect()
            }
        }
    }

    /// What becomes of the replaced data keys.
    pub async fn retire(&self) -> Vec<RetireOutcome> {
        let mut outcomes = Vec::new();
        if let Encryption::Parquet(keys) = &self.encryption {
            // The hold goes first.
            keys.retire(&self.places(), Duration::ZERO).await.unwrap();
        }
        // Seen unused, and then destroyed.
        for _ in 0..2 {
            let retired = match &self.encryption {
                Encryption::None => return outcomes,
                Encryption::Store(store) => store.retire(Duration::ZERO).await.unwrap(),
                Encryption::Parquet(keys) => {
                    keys.retire(&self.places(), Duration::ZERO).await.unwrap()
                }
            };
            outcomes = retired.keys.into_iter().map(|key| key.outcome).collect();
        }
        outcomes
    }

    fn places(&self) -> [ParquetFiles; 1] {
        [ParquetFiles { store: self.raw.clone(), prefix: Default::default() }]
    }
}

/// Where a warehouse is, with its keyring.
pub struct Place {
    pub dir: TempDir,
    bucket: Option<(Arc<Server>, &'static str)>,
    pub raw: Arc<dyn ObjectStore>,
}

impl Place {
    pub fn local() -> Self {
        let dir = customer();
        let data = dir.path().join("data");
        std::fs::create_dir(&data).unwrap();
        Self { raw: Arc::new(LocalFileSystem::new_with_prefix(data).unwrap()), dir, bucket: None }
    }

    /// A bucket of its own; `None` where there is no server, which was said then.
    pub fn bucket(name: &'static str) -> Option<Self> {
        let server = moto::server(name)?;
        let raw = Arc::new(server.bucket(name).build().unwrap());
        Some(Self { dir: customer(), bucket: Some((server, name)), raw })
    }

    pub fn key_path(&self) -> std::path::PathBuf {
        self.dir.path().join("cmek.key")
    }

    fn storage(&self) -> Arc<dyn KeyringStorage> {
        match &self.bucket {
            None => Arc::new(DirectoryStorage::new(self.dir.path().join("data"))),
            Some((server, name)) => {
                // A client of its own: the storage blocks.
                let store = Arc::new(server.reach(name).build().unwrap());
                Arc::new(ObjectStoreKeyringStorage::new(store, &Default::default()).unwrap())
            }
        }
    }

    /// Opens the keyring beside the tables, or creates it.
    pub fn keyring(&self, options: Options) -> Keyring {
        let kms = Arc::new(KeyFile::new(self.key_path()).unwrap());
        block_in_place(|| Keyring::open_or_create(self.storage(), kms, options)).unwrap()
    }

    /// Opens it with a key that is not the customer's.
    pub fn keyring_by_another_key(&self) -> atrest::Error {
        let path = self.dir.path().join("another.key");
        generate_key_file(&path).unwrap();
        let kms = Arc::new(KeyFile::new(path).unwrap());
        let opened = Keyring::open_read_only(self.storage(), kms, Options::default());
        opened.err().unwrap()
    }

    /// All bytes that are kept: every file of the directory, every object of the bucket.
    pub async fn everything(&self) -> Vec<(String, Vec<u8>)> {
        if self.bucket.is_none() {
            return files(&self.dir.path().join("data"));
        }
        everything_in(&*self.raw).await
    }
}

/// A directory with the customer's key.
fn customer() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    generate_key_file(dir.path().join("cmek.key")).unwrap();
    dir
}

pub async fn everything_in(store: &dyn ObjectStore) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for object in store.list(None).try_collect::<Vec<_>>().await.unwrap() {
        let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
        all.push((object.location.to_string(), bytes.to_vec()));
    }
    all
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push((path.display().to_string(), std::fs::read(&path).unwrap())),
        }
    }
    all
}
