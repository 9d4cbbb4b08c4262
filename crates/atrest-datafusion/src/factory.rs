//! The keys of Parquet files, as DataFusion asks for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use atrest::keyring::Hold;
use atrest::{DataKeyId, Error, ErrorKind, Keyring, KeyspaceId, Result};
use datafusion_common::DataFusionError;
use datafusion_common::config::EncryptionFactoryOptions;
use datafusion_execution::parquet_encryption::EncryptionFactory;
use object_store::path::Path;
use parquet::arrow::ArrowSchemaConverter;
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::encryption::encrypt::FileEncryptionProperties;
use parquet::errors::ParquetError;
use tokio::task::spawn_blocking;

use crate::sealed::{self, Sealer};

/// Keys from a keyring for DataFusion's Parquet files. A clone shares everything.
///
/// Each file gets a random key for its footer and one for each column, sealed under the active
/// data key and named in the file. `name` names the set of files in the keyring: the data keys
/// that they were ever written under have a [hold](atrest::keyring::Holds) of the name
/// `parquet/<name>/<number>`, so that nobody destroys them who does not look at these files;
/// [`retire`](Self::retire) does.
#[derive(Clone)]
pub struct ParquetKeys {
    inner: Arc<Inner>,
    columns: Arc<BTreeMap<String, KeyspaceId>>,
}

struct Inner {
    keyring: Keyring,
    name: String,
    /// One change of the holds at a time.
    holding: Mutex<()>,
    /// Files that are being written: the writer has the properties until all is encrypted, and
    /// sends the last of it after that.
    writing: Mutex<Vec<InWork>>,
}

type InWork = (BTreeSet<DataKeyId>, Weak<FileEncryptionProperties>);

impl ParquetKeys {
    /// Keys from `keyring` for the set of files that `name` names. No two sets of one keyring
    /// **MUST** have one name: retiring what one does not need would forget the other.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a name that is empty, longer than 200
    /// bytes or has a `/`.
    pub fn new(keyring: &Keyring, name: &str) -> Result<Self> {
        if name.is_empty() || name.len() > 200 || name.contains('/') {
            let what = format!("expected a name of 1 to 200 bytes without '/', found {name:?}");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        let inner = Inner {
            keyring: keyring.clone(),
            name: name.to_owned(),
            holding: Mutex::default(),
            writing: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner), columns: Arc::default() })
    }

    /// Puts a column, and all that is below it, under the data keys of a keyspace, in new files of
    /// every table that has such a column: shredding the keyspace destroys the column in all of
    /// them, and leaves the others. By default every key is under the default keyspace.
    #[must_use]
    pub fn with_column(mut self, column: &str, keyspace: KeyspaceId) -> Self {
        Arc::make_mut(&mut self.columns).insert(column.to_owned(), keyspace);
        self
    }

    /// The keyring.
    pub fn keyring(&self) -> &Keyring {
        &self.inner.keyring
    }

    /// The holds of these files by their numbers. The newest has the data keys of new files; what
    /// older ones have beside them is on its way out.
    pub(crate) fn holds(&self) -> BTreeMap<u64, Hold> {
        let (holds, prefix) = (self.keyring().holds().list().into_iter(), self.hold_name(""));
        let number = |hold: &Hold| hold.name.strip_prefix(&prefix)?.parse().ok();
        holds.filter_map(|hold| Some((number(&hold)?, hold))).collect()
    }

    pub(crate) fn hold_name(&self, number: impl fmt::Display) -> String {
        format!("parquet/{}/{number}", self.inner.name)
    }

    /// Keeps others from changing the holds, in this process.
    pub(crate) fn holding(&self) -> MutexGuard<'_, ()> {
        self.inner.holding.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The data keys of files that this process is writing.
    pub(crate) fn writing(&self) -> BTreeSet<DataKeyId> {
        self.files_in_work().iter().flat_map(|(keys, _)| keys.iter().copied()).collect()
    }

    fn files_in_work(&self) -> MutexGuard<'_, Vec<InWork>> {
        let mut files = self.inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|(_, properties)| properties.strong_count() > 0);
        files
    }

    /// The keyspace of a leaf, which is that of the longest path configured above it.
    fn keyspace_of(&self, leaf: &str) -> KeyspaceId {
        let mut above = std::iter::successors(Some(leaf), |path| Some(path.rsplit_once('.')?.0));
        above.find_map(|path| self.columns.get(path)).copied().unwrap_or_default()
    }

    /// The columns that get keys: all, or none in a table that is partitioned by columns. Of those
    /// DataFusion does not tell whether the file has them or its path alone, and Parquet takes no key for
    /// a column that is not there.
    fn leaves_with_keys(&self, schema: &Schema, path: &Path) -> Result<Vec<String>> {
        let leaves = leaves(schema)?;
        let mut names =
            path.parts().filter_map(|part| Some(part.as_ref().split_once('=')?.0.to_owned()));
        let Some(by) = names.find(|name| schema.field_with_name(name).is_ok()) else {
            return Ok(leaves);
        };
        match leaves.iter().find(|leaf| self.keyspace_of(leaf) != KeyspaceId::default()) {
            Some(leaf) => {
                let what = format!("a table partitioned by {by:?} has no keyspace for {leaf:?}");
                Err(Error::new(ErrorKind::InvalidArgument, what).with_path(path.as_ref()))
            }
            None => Ok(Vec::new()),
        }
    }

    async fn encryption(
        &self,
        schema: &Schema,
        path: &Path,
    ) -> Result<Arc<FileEncryptionProperties>> {
        let keyring = self.keyring();
        let mut sealers = BTreeMap::new();
        let mut seal = |keyspace| {
            let sealer = match sealers.entry(keyspace) {
                std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(Sealer::new(keyring, keyspace)?)
                }
            };
            sealer.seal()
        };
        let footer = seal(KeyspaceId::default())?;
        let mut properties =
            FileEncryptionProperties::builder(footer.key).with_footer_key_metadata(footer.metadata);
        // All of them: beside columns with keys Parquet leaves the others in plaintext. Each by
        // itself: one that shares the footer's key would be read on after a revocation. Without
        // any, the footer's key encrypts all.
        for leaf in self.leaves_with_keys(schema, path)? {
            let column = seal(self.keyspace_of(&leaf))?;
            properties =
                properties.with_column_key_and_metadata(&leaf, column.key, column.metadata);
        }
        let properties = properties.build().map_err(refused_by_parquet)?;
        let keys: BTreeSet<_> = sealers.values().map(|sealer| sealer.data_key).collect();
        self.files_in_work().push((keys.clone(), Arc::downgrade(&properties)));
        // Before anything is written. Until then the sealers keep the data keys.
        self.hold(&keys).await?;
        Ok(properties)
    }

    /// Holds data keys of new files: one commit of the keyring after a rotation.
    async fn hold(&self, keys: &BTreeSet<DataKeyId>) -> Result<()> {
        if self.lacking(keys).1.is_empty() {
            return Ok(());
        }
        let (this, keys) = (self.clone(), keys.clone());
        blocking(move || {
            let _alone = this.holding();
            // Another process may have a newer hold, and be about to give up this one.
            this.keyring().reload()?;
            this.hold_in_newest(&keys)
        })
        .await
    }

    /// Registers what the newest hold lacks, be it in an older one: that goes.
    pub(crate) fn hold_in_newest(&self, keys: &BTreeSet<DataKeyId>) -> Result<()> {
        let (number, missing) = self.lacking(keys);
        if missing.is_empty() {
            return Ok(());
        }
        self.keyring().holds().register(&self.hold_name(number), &missing)
    }

    /// The number of the newest hold, 0 before there is one, and which of the data keys it lacks.
    fn lacking(&self, keys: &BTreeSet<DataKeyId>) -> (u64, Vec<DataKeyId>) {
        let newest = self.holds().pop_last();
        let (number, held) = newest.map_or((0, Vec::new()), |(number, hold)| (number, hold.keys));
        (number, keys.iter().filter(|id| !held.contains(id)).copied().collect())
    }
}

/// The paths of all columns that hold values.
fn leaves(schema: &Schema) -> Result<Vec<String>> {
    let parquet = ArrowSchemaConverter::new().convert(schema).map_err(refused_by_parquet)?;
    Ok(parquet.columns().iter().map(|column| column.path().string()).collect())
}

fn refused_by_parquet(error: ParquetError) -> Error {
    Error::new(ErrorKind::InvalidArgument, "Parquet has no such file").with_source(error)
}

/// Runs what commits to the keyring in a thread that may wait.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = spawn_blocking(work).await;
    done.map_err(|e| Error::io("the work on the keyring ended", std::io::Error::other(e)))?
}

#[async_trait]
impl EncryptionFactory for ParquetKeys {
    async fn get_file_encryption_properties(
        &self,
        config: &EncryptionFactoryOptions,
        schema: &SchemaRef,
        file_path: &Path,
    ) -> Result<Option<Arc<FileEncryptionProperties>>, DataFusionError> {
        check(config)?;
        let properties = self.encryption(schema, file_path).await;
        properties.map(Some).map_err(|error| DataFusionError::External(Box::new(error)))
    }

    async fn get_file_decryption_properties(
        &self,
        config: &EncryptionFactoryOptions,
        _file_path: &Path,
    ) -> Result<Option<Arc<FileDecryptionProperties>>, DataFusionError> {
        check(config)?;
        let retriever = Arc::new(Retriever(self.keyring().clone()));
        Ok(Some(FileDecryptionProperties::with_key_retriever(retriever).build()?))
    }
}

/// There is none; one that nobody reads would be relied on.
fn check(config: &EncryptionFactoryOptions) -> Result<(), DataFusionError> {
    match config.options.keys().next() {
        Some(option) => {
            let what = format!("expected no option of the encryption factory, found {option:?}");
            Err(DataFusionError::Configuration(what))
        }
        None => Ok(()),
    }
}

/// Asked for the footer of each file, and again for each column of each row group: so a
/// revocation is noticed at the next of them.
struct Retriever(Keyring);

impl KeyRetriever for Retriever {
    fn retrieve_key(&self, metadata: &[u8]) -> Result<Vec<u8>, ParquetError> {
        sealed::open(&self.0, metadata).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

impl fmt::Debug for ParquetKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParquetKeys")
            .field("name", &self.inner.name)
            .field("keyring", &self.inner.keyring)
            .field("columns", &self.columns)
            .finish()
    }
}
