//! Which data keys Parquet files are under, and the end of those that none is under.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use atrest::keyring::{KeyState, LiveKeys, Retirement};
use atrest::{DataKeyId, Error, ErrorKind, Keyring, Result, Store};
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use parquet::encryption::decrypt::{FileDecryptionProperties, KeyRetriever};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaDataReader;
use tokio::runtime::Handle;

use crate::ParquetKeys;
use crate::factory::blocking;
use crate::sealed;

/// Footers read at the same time.
const READ_TOGETHER: usize = 16;
/// Bytes of a file's end that one request asks for: most footers are shorter.
const END_LEN: u64 = 64 << 10;
/// What a Parquet file with an encrypted footer ends with.
const MAGIC: &[u8] = b"PARE";

/// A place with Parquet files: all objects below a prefix. Those that are no Parquet files with an
/// encrypted footer are passed over.
#[derive(Clone, Debug)]
pub struct ParquetFiles {
    /// The store that DataFusion reads them from.
    pub store: Arc<dyn ObjectStore>,
    /// What their paths begin with.
    pub prefix: Path,
}

/// A number of files and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileCount {
    /// Files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

impl ParquetKeys {
    /// The files under each data key, one under two counting twice. Reads the footer of each: one
    /// request, two for one of more than 64 KiB, 16 at a time.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) where the object store fails; [`CorruptHeader`](ErrorKind::CorruptHeader)
    /// for a footer that cannot be read; [`CmekRevoked`](ErrorKind::CmekRevoked).
    pub async fn usage(&self, places: &[ParquetFiles]) -> Result<BTreeMap<DataKeyId, FileCount>> {
        look(self.keyring(), places).await
    }

    /// [`Keys::retire`](atrest::keyring::Keys::retire) for all files of this set, which are at
    /// `places`: destroys data keys that none of them is under, nor one of a
    /// [`Store`](atrest::Store) over the keyring, in three calls at least `grace` apart. The first
    /// that finds no file under a data key begins a hold without it; the second, which finds none
    /// either, gives up the hold that has it; the third destroys it.
    ///
    /// Files that this process writes are known as long as Parquet writes them, and not while the
    /// last is sent; those of other processes are not. `grace` **MUST** be longer than it takes to
    /// write a file and send it. A place that is left out is lost with its data keys.
    ///
    /// # Errors
    /// Those of [`usage`](Self::usage) and of [`Keys::retire`](atrest::keyring::Keys::retire). No
    /// key is destroyed then.
    pub async fn retire(&self, places: &[ParquetFiles], grace: Duration) -> Result<Retirement> {
        let (this, places, runtime) = (self.clone(), places.to_vec(), Handle::current());
        blocking(move || {
            let keyring = this.keyring();
            // A keyring in a directory may have files there, which a store looks at: the one that
            // is open, or one for now.
            let _files = match Store::over(keyring.clone()) {
                Err(error) if error.kind() != ErrorKind::KeyringBusy => return Err(error),
                store => store.ok(),
            };
            let live = Live { keys: this.clone(), places, runtime };
            this.hold_only(&live, grace)?;
            keyring.keys().retire(&live, grace)
        })
        .await
    }

    /// Moves the hold on to the data keys that are needed. One that is not may have a file that
    /// lands after the look: so the old hold stays beside the new one until a look after the grace
    /// has missed the same files.
    fn hold_only(&self, live: &Live, grace: Duration) -> Result<()> {
        let keyring = self.keyring();
        // A look that began within the grace may have passed by where a file landed since.
        let begun_ns = keyring.clock().now_ns();
        let mut found: BTreeSet<_> = live.keys_in_use()?.into_iter().collect();
        let _alone = self.holding();
        keyring.reload()?;
        let mut keys = keyring.status().data_keys;
        keys.retain(|key| key.state != KeyState::Destroyed);
        found.retain(|id| keys.iter().any(|key| key.id == *id));
        self.hold_in_newest(&found)?;
        let mut older = self.holds();
        let Some((number, newest)) = older.pop_last() else { return Ok(()) };
        if newest.created_ns > keyring.clock().now_ns() {
            // The clock was ahead. The grace of the old holds counts from another one.
            keyring.holds().register(&self.hold_name(number + 1), &newest.keys)?;
            return Ok(());
        }
        if u128::from(begun_ns.saturating_sub(newest.created_ns)) >= grace.as_nanos() {
            while let Some((_, hold)) = older.pop_first() {
                keyring.holds().release(&hold.name)?;
            }
        }
        // Active ones: somebody may be about to use them.
        keys.retain(|key| key.state == KeyState::Active || found.contains(&key.id));
        let needed: Vec<_> = keys.into_iter().map(|key| key.id).collect();
        if older.is_empty() && newest.keys.iter().any(|id| !needed.contains(id)) {
            keyring.holds().register(&self.hold_name(number + 1), &needed)?;
        }
        Ok(())
    }
}

/// The data keys of all files of a set, for a thread that waits.
struct Live {
    keys: ParquetKeys,
    places: Vec<ParquetFiles>,
    runtime: Handle,
}

impl LiveKeys for Live {
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>> {
        let usage = self.runtime.block_on(look(self.keys.keyring(), &self.places))?;
        Ok(usage.into_keys().chain(self.keys.writing()).collect())
    }
}

async fn look(
    keyring: &Keyring,
    places: &[ParquetFiles],
) -> Result<BTreeMap<DataKeyId, FileCount>> {
    let mut usage: BTreeMap<DataKeyId, FileCount> = BTreeMap::new();
    for place in places {
        let metas = place.store.list(Some(&place.prefix)).map_err(unreadable);
        let read = metas.map_ok(|meta| async move {
            Ok((meta.size, keys_of(keyring, &*place.store, &meta).await?))
        });
        let mut read = read.try_buffer_unordered(READ_TOGETHER);
        while let Some((bytes, keys)) = read.try_next().await? {
            for key in keys {
                let count = usage.entry(key).or_default();
                count.files += 1;
                count.bytes += bytes;
            }
        }
    }
    Ok(usage)
}

fn unreadable(error: object_store::Error) -> Error {
    let kind = ErrorKind::Io(std::io::ErrorKind::Other);
    Error::new(kind, "the files cannot be looked at").with_source(error)
}

/// The data keys that a file names. One that goes meanwhile names none.
async fn keys_of(
    keyring: &Keyring,
    store: &dyn ObjectStore,
    meta: &ObjectMeta,
) -> Result<BTreeSet<DataKeyId>> {
    let named = Arc::new(Named { keyring: keyring.clone(), keys: Mutex::default() });
    let mut wanted = END_LEN.min(meta.size);
    // A range of nothing is none.
    if wanted < MAGIC.len() as u64 {
        return Ok(BTreeSet::new());
    }
    loop {
        let range = meta.size.saturating_sub(wanted)..meta.size;
        let end = match store.get_range(&meta.location, range).await {
            Err(object_store::Error::NotFound { .. }) => return Ok(BTreeSet::new()),
            end => end.map_err(unreadable)?,
        };
        if !end.ends_with(MAGIC) {
            return Ok(BTreeSet::new());
        }
        let properties = FileDecryptionProperties::with_key_retriever(named.clone()).build();
        let properties = properties.map_err(|error| damaged(meta, error))?;
        let mut reader = ParquetMetaDataReader::new().with_decryption_properties(Some(properties));
        match reader.try_parse_sized(&end, meta.size) {
            Err(ParquetError::NeedMoreData(len)) if len as u64 > wanted => wanted = len as u64,
            // Of a footer that nobody can open any more, its key was named, and no other is needed.
            Err(ParquetError::External(error)) if named.is_lost(&*error) => break,
            Err(error) => return Err(damaged(meta, error)),
            Ok(()) => break,
        }
    }
    let keys = std::mem::take(&mut *named.keys.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(keys)
}

fn damaged(meta: &ObjectMeta, error: ParquetError) -> Error {
    let what = "the footer cannot be read: its data keys cannot be told";
    let error = match error {
        // Withdrawn access is told as such.
        ParquetError::External(source) => match source.downcast::<Error>() {
            Ok(error) => return error.with_path(meta.location.as_ref()),
            Err(source) => Error::new(ErrorKind::CorruptHeader, what).with_source(source),
        },
        error => Error::new(ErrorKind::CorruptHeader, what).with_source(error),
    };
    error.with_path(meta.location.as_ref())
}

/// Writes down which data keys a file names.
struct Named {
    keyring: Keyring,
    keys: Mutex<BTreeSet<DataKeyId>>,
}

impl Named {
    /// Whether an error says that a key is no more, or was never ours.
    fn is_lost(&self, error: &(dyn std::error::Error + 'static)) -> bool {
        let kind = error.downcast_ref().map(Error::kind);
        use ErrorKind::{IdentityMismatch, KeyDestroyed, NotEncrypted, UnknownKey};
        matches!(kind, Some(UnknownKey | KeyDestroyed | IdentityMismatch | NotEncrypted))
    }
}

impl KeyRetriever for Named {
    fn retrieve_key(&self, metadata: &[u8]) -> Result<Vec<u8>, ParquetError> {
        let external = |error: Error| ParquetError::External(Box::new(error));
        let id = sealed::header(metadata).map_err(external)?.data_key_id;
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        sealed::open(&self.keyring, metadata).map_err(external)
    }
}
