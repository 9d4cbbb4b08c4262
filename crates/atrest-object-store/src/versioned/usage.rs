//! What is under each data key in an object store, and the end of keys nothing is under.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::object_store::path::Path;
use super::object_store::{Error, GetOptions, GetRange, ObjectMeta, ObjectStore, Result};
use atrest::classify::Contents;
use atrest::keyring::{LiveKeys, Retirement};
use atrest::{DataKeyId, ErrorKind, HEADER_LEN, Store, StoreId};
use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};

use super::error::refused;
use super::open::blocking;
use super::reserved::is_reserved;
use super::store::EncryptedStore;
use super::{check_start, first_of};
use crate::bridge::Bridge;

/// Headers read at the same time.
const READ_TOGETHER: usize = 64;
/// Longest time in which a look meets no object: longer than a store below tries again. The
/// whole look may take days.
const STALLED: Duration = Duration::from_secs(15 * 60);

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

impl ObjectUsage {
    fn add(&mut self, store_id: StoreId, meta: &ObjectMeta, start: &[u8]) {
        let count = match Contents::of(start) {
            Contents::Encrypted(header) if header.store_id == store_id => {
                self.keys.entry(header.data_key_id).or_default()
            }
            Contents::Encrypted(_) => &mut self.foreign,
            // No power cut makes an object: zeros are somebody's.
            Contents::Empty | Contents::Plaintext | Contents::Unwritten | Contents::Keyring => {
                &mut self.plaintext
            }
            _ => &mut self.unreadable,
        };
        count.add(meta.size);
    }
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
    /// It takes as long as reading all headers does, 64 at a time, and begins anew where it
    /// was cut short; it gives up where the store below shows no further object for 15 minutes.
    ///
    /// Objects **MUST NOT** be copied or renamed meanwhile, since a listing may miss them;
    /// what is said there about other writing processes holds here: `grace` has to outlast
    /// every one that has not reloaded the keyring. What this process writes keeps its data key
    /// until the store below has answered; `grace` has to outlast what was given up before it
    /// had, too, or failed without an answer, and may still be carried out.
    ///
    /// # Errors
    /// Those of [`Keys::retire`](atrest::keyring::Keys::retire), as an `object_store::Error`
    /// that [`find_error`](crate::find_error) looks into.
    pub async fn retire(&self, grace: Duration) -> Result<Retirement> {
        self.forget_headers();
        let (keyring, inner) = (self.keyring().clone(), self.inner().clone());
        let retired = blocking(move || {
            let live = Objects { inner, store_id: keyring.store_id(), stalled: STALLED };
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
    inner: Arc<dyn ObjectStore>,
    store_id: StoreId,
    stalled: Duration,
}

impl LiveKeys for Objects {
    fn keys_in_use(&self) -> atrest::Result<Vec<DataKeyId>> {
        let (inner, store_id, stalled) = (self.inner.clone(), self.store_id, self.stalled);
        // Which is bound by what it meets, and not by its length.
        let bridge = Bridge::new(Duration::MAX)?;
        let looked = bridge.run(look_within(inner, store_id, stalled));
        let looked = looked.map_err(|no_answer| no_answer.0)?.ok_or_else(|| {
            let what = format!("the object store named and showed no object for {stalled:?}");
            atrest::Error::new(ErrorKind::Io(std::io::ErrorKind::TimedOut), what)
        })?;
        let usage = looked.map_err(|source| {
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
    let mut starts = starts(inner, prefix.as_ref());
    let mut usage = ObjectUsage::default();
    while let Some((meta, start)) = starts.try_next().await? {
        usage.add(store_id, &meta, &start);
    }
    Ok(usage)
}

/// The same for all objects; `None` if it meets none for too long.
async fn look_within(
    inner: Arc<dyn ObjectStore>,
    store_id: StoreId,
    stalled: Duration,
) -> Option<Result<ObjectUsage>> {
    let mut starts = starts(inner, None);
    let mut usage = ObjectUsage::default();
    loop {
        match tokio::time::timeout(stalled, starts.try_next()).await.ok()? {
            Ok(Some((meta, start))) => usage.add(store_id, &meta, &start),
            Ok(None) => return Some(Ok(usage)),
            Err(error) => return Some(Err(error)),
        }
    }
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
    let start = async {
        let result = inner.get_opts(&meta.location, options).await?;
        let physical_len = result.meta.size;
        let start = first_of(result, HEADER_LEN).await?;
        // What looks empty is under no key.
        check_start(&meta.location, &start, physical_len)?;
        Ok(start)
    };
    match start.await {
        Ok(start) => Ok(Some((meta, start))),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::object_store::ObjectStoreExt;
    use super::super::object_store::memory::InMemory;
    use super::super::object_store::throttle::{ThrottleConfig, ThrottledStore};

    use super::*;

    /// 500 objects in a store that takes a second to show each of them.
    async fn slow() -> Arc<dyn ObjectStore> {
        let objects = InMemory::new();
        for number in 0..500 {
            objects
                .put(&format!("{number}").into(), "words".into())
                .await
                .expect("memory takes it");
        }
        let wait_get_per_call = Duration::from_secs(1);
        let how = ThrottleConfig { wait_get_per_call, ..ThrottleConfig::default() };
        Arc::new(ThrottledStore::new(objects, how))
    }

    #[tokio::test(start_paused = true)]
    async fn a_look_ends_where_nothing_is_shown_and_not_because_it_is_long() {
        let id = StoreId::from_bytes([1; 16]);
        let began = tokio::time::Instant::now();
        let usage = look_within(slow().await, id, Duration::from_secs(2))
            .await
            .expect("in time")
            .expect("a look");
        assert_eq!(usage.plaintext.objects, 500);
        assert!(began.elapsed() > Duration::from_secs(7), "{:?}", began.elapsed());
        assert!(look_within(slow().await, id, Duration::from_millis(900)).await.is_none());
    }
}
