//! What the fuzz target calls: reads over a store whose answers are changed as the bytes say.
//! The seeds in `fuzz/seeds` are replayed by a unit test.
//!
//! The first byte says what is promised of objects, three more how long the two objects are.
//! Then come reads of five bytes: kind and place, and how many of the bytes after it tell of the
//! answers to it, two for one answer: what is wrong with it, and where.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use atrest::internals::fuzz::Bare;
use atrest::keyring::MemoryStorage;
use atrest::{Integrity, Keyring, Options};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};

use crate::EncryptedStore;

#[cfg(test)]
mod tests;

/// Reads of one input.
const READS_MAX: usize = 16;
/// Longest object: a few sections of tags would take hours to fuzz.
const LEN_MAX: usize = 70_000;

/// A store that answers wrongly, as told.
#[derive(Debug, Default)]
struct Liar {
    inner: InMemory,
    lies: Mutex<VecDeque<(u8, u8)>>,
}

impl fmt::Display for Liar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Liar")
    }
}

fn failed() -> Error {
    Error::Generic { store: "Liar", source: "fuzzed".into() }
}

/// Where an object is.
fn at(second: bool) -> Path {
    Path::from(if second { "b" } else { "a" })
}

#[async_trait]
impl ObjectStore for Liar {
    async fn put_opts(&self, to: &Path, data: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(to, data, opts).await
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        let lie = self.lies.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let (lie, place) = lie.unwrap_or_default();
        let other = at(*from == at(false));
        let (from, options) = match lie % 16 {
            // Another object in its place, conditions and all.
            1 => (&other, GetOptions { if_match: None, if_none_match: None, ..options }),
            // Knows no conditions.
            2 => (from, GetOptions { if_match: None, if_none_match: None, ..options }),
            // Knows no ranges.
            3 => (from, GetOptions { range: None, ..options }),
            4 => {
                return Err(Error::NotFound { path: from.to_string(), source: "fuzzed".into() });
            }
            5 => {
                let source = "fuzzed".into();
                return Err(Error::Precondition { path: from.to_string(), source });
            }
            6 => return Err(failed()),
            _ => (from, options),
        };
        let mut result = self.inner.get_opts(from, options).await?;
        let small = u64::from(place);
        match lie % 16 {
            7 => result.meta.size = result.meta.size.wrapping_add(small).wrapping_sub(128),
            8 => result.meta.size = small << 56,
            11 if place >= 128 => result.range = 0..small << 56,
            9 => result.meta.e_tag = None,
            10 => result.meta.e_tag = Some(format!("\"{place}\"")),
            11 => {
                result.range.start = result.range.start.wrapping_add(small);
                result.range.end = result.range.end.wrapping_add(small);
            }
            _ => {}
        }
        let (meta, range) = (result.meta.clone(), result.range.clone());
        let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
        let whole: Vec<Bytes> = result.into_stream().try_collect().await?;
        let mut bytes = whole.concat();
        match lie % 16 {
            12 => bytes.truncate(usize::from(place) * bytes.len() / 256),
            13 => bytes.resize(bytes.len() + usize::from(place), place),
            14 => {
                let len = bytes.len();
                if let Some(byte) = bytes.get_mut(usize::from(place) * len / 256) {
                    *byte ^= 1 << (place % 8);
                }
            }
            _ => {}
        }
        // In pieces, as from a network; the last lie breaks off.
        let piece = usize::from(place) * 16 + 1;
        let mut pieces: Vec<Result<Bytes>> =
            bytes.chunks(piece.max(64)).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        if lie % 16 == 15 {
            pieces.truncate(usize::from(place % 4));
            pieces.push(Err(failed()));
        }
        let payload = GetResultPayload::Stream(stream::iter(pieces).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(to, opts).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Any answers to reads of two objects.
///
/// # Panics
/// When an authenticated read gives other bytes than one of the two objects has there, or any
/// read other than as many as it says.
pub fn answers(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(read_all(data));
}

async fn read_all(data: &[u8]) {
    let Some((&[promise, a, b, high], mut rest)) = data.split_first_chunk() else { return };
    let mut options = Options::default();
    options.background = false;
    let kms = Bare::from_uri("fuzz:k").expect("a URI");
    let keyring = Keyring::create(MemoryStorage::new(), kms, options).expect("a new keyring");
    let liar = Arc::new(Liar::default());
    let authenticated = promise % 3 != 1;
    let mut store = EncryptedStore::new(liar.clone(), keyring);
    if !authenticated {
        store = store.with_integrity(Integrity::Confidential);
    }
    if promise % 3 == 2 {
        store = store.with_both_read();
    }
    let len = |low: u8, high: u8| (usize::from(low) + 256 * usize::from(high)) % LEN_MAX;
    let plain = |len: usize, salt: u8| -> Vec<u8> {
        (0..len).map(|at: usize| (at as u8).wrapping_mul(131) ^ (at >> 8) as u8 ^ salt).collect()
    };
    let objects = [plain(len(a, high), 0), plain(len(b, high / 2), 0x55)];
    for (second, object) in [(false, &objects[0]), (true, &objects[1])] {
        store.put(&at(second), object.clone().into()).await.expect("a put in memory");
    }
    for _ in 0..READS_MAX {
        let Some((&[kind, low, middle, wanted, lies], after)) = rest.split_first_chunk() else {
            break;
        };
        let (lies, after) = after.split_at(after.len().min(usize::from(lies % 8) * 2));
        rest = after;
        *liar.lies.lock().unwrap_or_else(PoisonError::into_inner) =
            lies.chunks_exact(2).map(|lie| (lie[0], lie[1])).collect();
        let (start, wanted) = (u64::from(low) + 256 * u64::from(middle), u64::from(wanted) * 61);
        let range = match kind % 8 {
            0..=3 => Some(GetRange::Bounded(start..start + wanted)),
            4 => Some(GetRange::Offset(start)),
            5 => Some(GetRange::Suffix(start)),
            _ => None,
        };
        let options = GetOptions { range, head: kind % 8 == 7, ..GetOptions::default() };
        let head = options.head;
        let Ok(result) = store.get_opts(&at(kind & 0x80 != 0), options).await else { continue };
        let range = result.range.clone();
        let Ok(bytes) = result.bytes().await else { continue };
        if head {
            continue;
        }
        assert_eq!(bytes.len() as u64, range.end - range.start, "not as many as said");
        if authenticated {
            let from = |object: &Vec<u8>| {
                let (start, end) = (range.start as usize, range.end as usize);
                object.get(start..end).is_some_and(|part| part == bytes)
            };
            assert!(objects.iter().any(from), "bytes of no object at {range:?}");
        }
    }
}
