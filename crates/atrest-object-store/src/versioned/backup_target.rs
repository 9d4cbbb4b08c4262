//! Backups in an object store.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::object_store::path::Path;
use super::object_store::{
    Error as StoreError, GetOptions, GetRange, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutOptions,
};
use atrest::backup::{BackupTarget, PutFile};
use atrest::keyring::KeyringStorage;
use atrest::vfs::ReadFile;
use atrest::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures_util::StreamExt;

use super::keyring_storage::failed;
use super::{ObjectStoreKeyringStorage, first_of};
use crate::bridge::{Bridge, NoAnswer};

/// Default time for one request, the store's own retries included.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of one part of an upload; a shorter file is put at once.
const PART_LEN: usize = 8 << 20;
/// Parts of one length: some stores want all but the last to be so, and all take 10,000.
const PARTS: usize = 9_000;
/// After so many more the parts of a file that nobody knew to be so long double.
const PARTS_MORE: usize = 100;
/// Bytes at both ends of an upload that tell it from another one.
const ENDS_LEN: usize = 4096;
/// Bytes that one request reads ahead: copies are read from front to back.
const AHEAD_LEN: u64 = 4 << 20;

/// A chain of backups below a prefix of an object store.
///
/// Copies are uploaded by several threads, in parts of 8 MiB, of more where a file would have
/// too many. The store **MUST** put an
/// object on condition, as for [`ObjectStoreKeyringStorage`]. There is no lock: of two
/// backups made at once the second is refused, and copies that no backup names are used by
/// the next one but never removed.
///
/// All methods block, also inside of a runtime: there, call them from a blocking thread.
#[derive(Clone, Debug)]
pub struct ObjectStoreTarget {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    bridge: Arc<Bridge>,
}

impl ObjectStoreTarget {
    /// The chain below `prefix`.
    ///
    /// # Errors
    /// [`Io`](ErrorKind::Io) if no thread can be started.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: &Path) -> Result<Self> {
        Ok(Self { store, prefix: prefix.clone(), bridge: Arc::new(Bridge::new(TIMEOUT)?) })
    }

    fn path(&self, name: &str) -> Path {
        name.split('/').fold(self.prefix.clone(), |path, part| path.join(part))
    }
}

/// A short part of an object, or less.
async fn part_of(
    store: &Arc<dyn ObjectStore>,
    at: &Path,
    range: Range<u64>,
) -> Result<Bytes, StoreError> {
    let len = (range.end - range.start) as usize;
    let options = GetOptions::new().with_range(Some(GetRange::Bounded(range)));
    first_of(store.get_opts(at, options).await?, len).await
}

/// One outcome of a request.
fn settled<T>(
    what: &str,
    path: &Path,
    outcome: Result<Result<T, StoreError>, NoAnswer>,
) -> Result<T> {
    match outcome {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(what, path, error)),
        Err(NoAnswer(error)) => Err(error.with_path(path.as_ref())),
    }
}

impl BackupTarget for ObjectStoreTarget {
    fn keyring(&self) -> Result<Box<dyn KeyringStorage>> {
        Ok(Box::new(ObjectStoreKeyringStorage::of_chain(self.store.clone(), &self.prefix)?))
    }

    fn put(&self, name: &str) -> Result<Box<dyn PutFile>> {
        let (target, path) = (self.clone(), self.path(name));
        let put = Put {
            target,
            path,
            buffer: Vec::new(),
            upload: None,
            part_len: PART_LEN,
            parts: 0,
            sent_len: 0,
            start: Bytes::new(),
        };
        Ok(Box::new(put))
    }

    fn open(&self, name: &str) -> Result<Box<dyn ReadFile>> {
        let path = self.path(name);
        let (store, at) = (self.store.clone(), path.clone());
        let meta = self.bridge.run(async move { store.head(&at).await });
        let meta = settled("the object cannot be opened", &path, meta)?;
        let ahead = Mutex::default();
        Ok(Box::new(ObjectFile { target: self.clone(), path, len: meta.size, ahead }))
    }

    fn list(&self, folder: &str) -> Result<Vec<(String, u64)>> {
        let path = if folder.is_empty() { self.prefix.clone() } else { self.path(folder) };
        let (store, at) = (self.store.clone(), path.clone());
        let listed = self.bridge.run(async move { store.list_with_delimiter(Some(&at)).await });
        let listed = settled("the objects cannot be listed", &path, listed)?;
        let named = |meta: ObjectMeta| Some((meta.location.filename()?.to_owned(), meta.size));
        Ok(listed.objects.into_iter().filter_map(named).collect())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        let (store, at) = (self.store.clone(), path.clone());
        let removed = self.bridge.run(async move { store.delete(&at).await });
        settled("the object cannot be removed", &path, removed)
    }

    fn is_exclusive(&self) -> bool {
        false
    }

    fn is_empty(&self) -> Result<bool> {
        let (store, at) = (self.store.clone(), self.prefix.clone());
        let first = self.bridge.run(async move { store.list(Some(&at)).next().await.transpose() });
        let first = settled("the objects cannot be listed", &self.prefix, first)?;
        Ok(first.is_none())
    }

    fn settle(&self) -> Result<()> {
        // An answered put is durable.
        Ok(())
    }
}

/// A file on its way.
struct Put {
    target: ObjectStoreTarget,
    path: Path,
    buffer: Vec<u8>,
    upload: Option<Box<dyn MultipartUpload>>,
    part_len: usize,
    parts: usize,
    sent_len: u64,
    /// The first bytes of an upload in parts.
    start: Bytes,
}

const CANNOT_WRITE: &str = "the object cannot be written";

/// The length of the parts of a file of about so many bytes.
fn part_len(file_len: u64) -> usize {
    let step = PART_LEN as u64;
    let len = file_len.div_ceil(PARTS as u64).div_ceil(step).max(1) * step;
    usize::try_from(len).unwrap_or(PART_LEN)
}

impl Put {
    /// Sends the first bytes of the buffer.
    fn send_part(&mut self, len: usize) -> Result<()> {
        let (store, at) = (self.target.store.clone(), self.path.clone());
        let mut upload = match self.upload.take() {
            Some(upload) => upload,
            None => {
                let begun = self.target.bridge.run(async move { store.put_multipart(&at).await });
                settled(CANNOT_WRITE, &self.path, begun)?
            }
        };
        let rest = self.buffer.split_off(len);
        let part = Bytes::from(std::mem::replace(&mut self.buffer, rest));
        if self.parts == 0 {
            self.start = Bytes::copy_from_slice(&part[..part.len().min(ENDS_LEN)]);
        }
        let sent = upload.put_part(part.into());
        self.upload = Some(upload);
        settled(CANNOT_WRITE, &self.path, self.target.bridge.run(sent))?;
        self.parts += 1;
        self.sent_len += len as u64;
        if self.parts >= PARTS && (self.parts - PARTS).is_multiple_of(PARTS_MORE) {
            self.part_len = self.part_len.saturating_mul(2);
        }
        Ok(())
    }

    fn put_whole(&mut self) -> Result<()> {
        let (store, at) = (self.target.store.clone(), self.path.clone());
        let payload = Bytes::from(std::mem::take(&mut self.buffer));
        let (data, options) = (payload.clone().into(), PutOptions::from(PutMode::Create));
        let put = self.target.bridge.run(async move { store.put_opts(&at, data, options).await });
        let put = settled(CANNOT_WRITE, &self.path, put);
        put.map(drop).or_else(|error| self.unless_there(&[(0, payload)], error))
    }

    /// The answer to the last request may be lost, or be that to its repetition. What is
    /// there is looked at: no two files of a backup begin with the same bytes, so the
    /// right ones at both ends are those of this upload, which appears as a whole.
    fn unless_there(&self, expected: &[(u64, Bytes)], error: Error) -> Result<()> {
        let end = expected.iter().map(|(at, bytes)| at + bytes.len() as u64).max().unwrap_or(0);
        let (store, at) = (self.target.store.clone(), self.path.clone());
        let expected = expected.to_vec();
        let same = self.target.bridge.run(async move {
            if store.head(&at).await?.size != end {
                return Ok::<_, StoreError>(false);
            }
            for (offset, bytes) in expected.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
                let range = offset..offset + bytes.len() as u64;
                if part_of(&store, &at, range).await? != bytes {
                    return Ok(false);
                }
            }
            Ok(true)
        });
        match same {
            Ok(Ok(true)) => Ok(()),
            // The first error is the one to tell.
            _ => Err(error),
        }
    }
}

impl PutFile for Put {
    fn will_append(&mut self, len: u64) {
        if self.parts == 0 {
            self.part_len = part_len(len);
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        while self.buffer.len() >= self.part_len {
            self.send_part(self.part_len)?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        if self.upload.is_none() {
            return self.put_whole();
        }
        let end = self.buffer[self.buffer.len().saturating_sub(ENDS_LEN)..].to_vec();
        if !self.buffer.is_empty() {
            self.send_part(self.buffer.len())?;
        }
        // An upload in parts cannot be conditional everywhere. Copies have random names;
        // of two manifests of this size the second is caught here unless both are at this
        // very step.
        let (store, at) = (self.target.store.clone(), self.path.clone());
        let head = self.target.bridge.run(async move { store.head(&at).await });
        match head {
            Ok(Err(StoreError::NotFound { .. })) => {}
            Ok(Ok(_)) => {
                let kind = ErrorKind::Io(io::ErrorKind::AlreadyExists);
                return Err(Error::new(kind, CANNOT_WRITE).with_path(self.path.as_ref()));
            }
            other => drop(settled(CANNOT_WRITE, &self.path, other)?),
        }
        let Some(mut upload) = self.upload.take() else { return Ok(()) };
        let done = self.target.bridge.run(async move { upload.complete().await });
        let end = (self.sent_len - end.len() as u64, Bytes::from(end));
        settled(CANNOT_WRITE, &self.path, done)
            .map(drop)
            .or_else(|error| self.unless_there(&[(0, self.start.clone()), end], error))
    }
}

impl Drop for Put {
    fn drop(&mut self) {
        if let Some(mut upload) = self.upload.take() {
            // What stays of it, the bucket's rule for unfinished uploads removes.
            drop(self.target.bridge.run(async move { upload.abort().await }));
        }
    }
}

/// An object, read ahead.
#[derive(Debug)]
struct ObjectFile {
    target: ObjectStoreTarget,
    path: Path,
    len: u64,
    /// What was read last, and where it begins.
    ahead: Mutex<(u64, Bytes)>,
}

impl ReadFile for ObjectFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let wanted = (self.len.saturating_sub(offset)).min(buf.len() as u64);
        if wanted == 0 {
            return Ok(0);
        }
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let end = offset + wanted;
        let has = ahead.0 <= offset && end <= ahead.0 + ahead.1.len() as u64;
        if !has {
            let until = end.max(offset.saturating_add(AHEAD_LEN)).min(self.len);
            let (store, at) = (self.target.store.clone(), self.path.clone());
            let range = offset..until;
            let read = self.target.bridge.run(async move { part_of(&store, &at, range).await });
            let bytes =
                settled("the object cannot be read", &self.path, read).map_err(io::Error::from)?;
            *ahead = (offset, bytes);
        }
        let from = (offset - ahead.0) as usize;
        let rest = ahead.1.get(from..).unwrap_or_default();
        let read = rest.len().min(wanted as usize);
        buf[..read].copy_from_slice(&rest[..read]);
        Ok(read)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }
}
