//! Files as DataFusion writes and reads them: with what the factory gives for each.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use atrest::keyring::{MemoryStorage, Options};
use atrest::{ErrorKind, Keyring};
use atrest_datafusion::{ParquetFiles, ParquetKeys};
use atrest_testkit::ScriptedKms;
use datafusion_common::DataFusionError;
use datafusion_common::config::EncryptionFactoryOptions;
use datafusion_execution::parquet_encryption::EncryptionFactory;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::arrow::{ArrowWriter, ProjectionMask};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

/// What no file shows.
pub const KNOWN: [&str; 3] = ["whale number", "sings in the deep", "secret_column"];
/// Rows of a row group, and of what a reader returns.
pub const GROUP_LEN: usize = 100;

pub fn keyring() -> Keyring {
    let kms = ScriptedKms::new("customer");
    Keyring::create(MemoryStorage::new(), kms, Options::default()).unwrap()
}

/// Keys, and a store with one file of 1000 rows, `a/1.parquet`.
pub async fn one_file(keyring: &Keyring) -> (ParquetKeys, Arc<InMemory>) {
    let (keys, raw) = (ParquetKeys::new(keyring, "tables").unwrap(), Arc::new(InMemory::new()));
    write(&keys, &raw, "a/1.parquet").await.unwrap();
    (keys, raw)
}

pub fn rows() -> RecordBatch {
    let texts = (0..1000).map(|at| format!("the whale number {at} sings in the deep"));
    let columns: [(&str, ArrayRef); 2] = [
        ("number", Arc::new(Int64Array::from_iter_values(0..1000))),
        ("secret_column", Arc::new(StringArray::from_iter_values(texts))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

pub async fn write(keys: &ParquetKeys, raw: &InMemory, path: &str) -> Result<(), DataFusionError> {
    let (rows, config) = (rows(), EncryptionFactoryOptions::default());
    let given =
        keys.get_file_encryption_properties(&config, &rows.schema(), &path.into()).await?.unwrap();
    let properties = WriterProperties::builder()
        .with_file_encryption_properties(given)
        .set_max_row_group_row_count(Some(GROUP_LEN));
    let mut bytes = Vec::new();
    let mut writer =
        ArrowWriter::try_new(&mut bytes, rows.schema(), Some(properties.build())).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    raw.put(&path.into(), bytes.into()).await.unwrap();
    Ok(())
}

/// Reads a file, of all its columns or of the first alone.
pub async fn reader(
    keys: &ParquetKeys,
    raw: &InMemory,
    path: &str,
    first_alone: bool,
) -> Result<ParquetRecordBatchReader, ParquetError> {
    let config = EncryptionFactoryOptions::default();
    let given = keys.get_file_decryption_properties(&config, &path.into()).await.unwrap();
    let options = ArrowReaderOptions::new().with_file_decryption_properties(given.unwrap());
    let bytes = raw.get(&path.into()).await.unwrap().bytes().await.unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(bytes, options)?;
    let mask = match first_alone {
        true => ProjectionMask::leaves(builder.parquet_schema(), [0]),
        false => ProjectionMask::all(),
    };
    builder.with_projection(mask).with_batch_size(GROUP_LEN).build()
}

/// Rows of a whole file.
pub async fn count(keys: &ParquetKeys, raw: &InMemory, path: &str) -> usize {
    let batches = reader(keys, raw, path, false).await.unwrap();
    batches.map(|batch| batch.unwrap().num_rows()).sum()
}

pub fn places(raw: &Arc<InMemory>) -> [ParquetFiles; 1] {
    [ParquetFiles { store: raw.clone(), prefix: Path::default() }]
}

pub async fn bytes(store: &dyn ObjectStore, path: &str) -> Vec<u8> {
    store.get(&path.into()).await.unwrap().bytes().await.unwrap().to_vec()
}

/// The kind of our error inside of Parquet's.
pub fn kind(error: &ParquetError) -> Option<ErrorKind> {
    match error {
        ParquetError::External(error) => error.downcast_ref().map(atrest::Error::kind),
        _ => None,
    }
}
