//! What is under each data key in an object store, and the end of keys nothing is under.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use atrest::classify::Contents;
use atrest::keyring::{LiveKeys, Retirement};
use atrest::{DataKeyId, ErrorKind, HEADER_LEN, Store, StoreId};
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, Result};

use crate::bridge::Bridge;
use crate::error::refused;
use crate::open::blocking;
use crate::reserved::is_reserved;
use crate::store::EncryptedStore;

/// Headers read at the same time.
const READ_TOGETHER: usize = 64;
/// Longest time for one look at all objects, far above what a million takes.
const LOOK_MAX: Duration = Duration::from_secs(6 * 3600);

/// A number of objects and their bytes in the store below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectCount {
    /// Objects.
    pub objects: u64,
    /// Bytes, headers included.
    pub bytes: u64,
}

impl ObjectCount {
    fn add(&mut self, bytes: u64) {
        self.objects += 1;
        self.bytes += bytes;
    }
}

/// What is under which data key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ObjectUsage {
    /// Objects under each data key that an object names, known to the keyring or not.
    pub keys: BTreeMap<DataKeyId, ObjectCount>,
    /// Objects without encryption, empty ones too.
    pub plaintext: ObjectCount,
    /// Objects of other stores.
    pub foreign: ObjectCount,
    /// Objects with a damaged header: their data key cannot be told.
    pub unreadable: ObjectCount,
}

impl EncryptedStore {
    /// Reads the header of every object below `prefix`, one request each, 64 at a time.
    ///
    /// # Errors
    /// Those of the store below. An object that goes meanwhile is left out.
    pub async fn usage(&self, prefix: Option<&Path>) -> Result<ObjectUsage> {
        let (inner, store_id) = (self.inner().clone(), self.keyring().store_id());
        look(inner, store_id, prefix.cloned()).await
    }

    /// [`Keys::retire`](atrest::keyring::Keys::retire) for the objects of this whole store:
    /// reads the header of every one. Headers remembered here are forgotten first, since a
    /// key that something can open is not destroyed.
    ///
    /// Objects **MUST NOT** be copied or renamed meanwhile, since a listing may miss them;
    /// what is said there about other writing processes holds here: `grace` has to outlast
    /// every one that has not reloaded the keyring.
    ///
    /// # Errors
    /// Those of [`Keys::retire`](atrest::keyring::Keys::retire), as an `object_store::Error`
    /// that [`find_error`](crate::find_error) looks into.
    pub async fn retire(&self, grace: Duration) -> Result<Retirement> {
        self.forget_headers();
        let (keyring, inner) = (self.keyring().clone(), self.inner().clone());
        let retired = blocking(move || {
            let bridge = Bridge::new(LOOK_MAX)?;
            let live = Objects { bridge, inner, store_id: keyring.store_id() };
            // A keyring in a directory may have files there, which a store looks at: the one
            // that is open, or one for now.
            let _files = match Store::over(keyring.clone()) {
                Err(error) if error.kind() != ErrorKind::KeyringBusy => return Err(error),
                store => store.ok(),
            };
            keyring.keys().retire(&live, grace)
        });
        retired.await.map_err(|error| refused(&Path::default(), error))
    }
}

/// The data keys of all objects, for a thread that waits.
struct Objects {
    bridge: Bridge,
    inner: Arc<dyn ObjectStore>,
    store_id: StoreId,
}

impl LiveKeys for Objects {
    fn keys_in_use(&self) -> atrest::Result<Vec<DataKeyId>> {
        let looked = self.bridge.run(look(self.inner.clone(), self.store_id, None));
        let usage = looked.map_err(|no_answer| no_answer.0)?.map_err(|source| {
            let kind = ErrorKind::Io(std::io::ErrorKind::Other);
            atrest::Error::new(kind, "the objects cannot be listed").with_source(source)
        })?;
        if usage.unreadable.objects > 0 {
            let what =
                format!("the data keys of {} objects cannot be told", usage.unreadable.objects);
            return Err(atrest::Error::new(ErrorKind::CorruptHeader, what));
        }
        Ok(usage.keys.into_keys().collect())
    }
}

/// The first 4096 bytes of every object below `prefix`, in no order: one request each, 64 at a
/// time. The keyring's objects are left out, and so is what goes meanwhile. Bytes that were
/// never decrypted: [`Contents::of`] judges them.
pub fn starts(
    inner: Arc<dyn ObjectStore>,
    prefix: Option<&Path>,
) -> BoxStream<'static, Result<(ObjectMeta, Bytes)>> {
    inner
        .list(prefix)
        .try_filter(|meta| std::future::ready(!is_reserved(&meta.location)))
        .map(move |meta| {
            let inner = inner.clone();
            async move { read_start(&*inner, meta?).await }
        })
        .buffer_unordered(READ_TOGETHER)
        .try_filter_map(|found| std::future::ready(Ok(found)))
        .boxed()
}

async fn look(
    inner: Arc<dyn ObjectStore>,
    store_id: StoreId,
    prefix: Option<Path>,
) -> Result<ObjectUsage> {
    starts(inner, prefix.as_ref())
        .try_fold(ObjectUsage::default(), |mut usage, (meta, start)| {
            let count = match Contents::of(&start) {
                Contents::Encrypted(header) if header.store_id == store_id => {
                    usage.keys.entry(header.data_key_id).or_default()
                }
                Contents::Encrypted(_) => &mut usage.foreign,
                Contents::Empty | Contents::Plaintext | Contents::Keyring => &mut usage.plaintext,
                _ => &mut usage.unreadable,
            };
            count.add(meta.size);
            std::future::ready(Ok(usage))
        })
        .await
}

/// `None` if the object is gone.
async fn read_start(
    inner: &dyn ObjectStore,
    meta: ObjectMeta,
) -> Result<Option<(ObjectMeta, Bytes)>> {
    if meta.size == 0 {
        return Ok(Some((meta, Bytes::new())));
    }
    let range = GetRange::Bounded(0..meta.size.min(HEADER_LEN as u64));
    let options = GetOptions::new().with_range(Some(range));
    let start = match inner.get_opts(&meta.location, options).await {
        Ok(result) => result.bytes().await,
        Err(error) => Err(error),
    };
    match start {
        Ok(start) => Ok(Some((meta, start))),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
