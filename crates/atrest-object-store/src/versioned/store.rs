//! The store itself: every operation of the trait, each with its header in mind.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use super::object_store::path::Path;
use super::object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, OBJECT_STORE_COALESCE_DEFAULT,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions,
    Result, coalesce_ranges,
};
use async_trait::async_trait;
use atrest::{Decryptor, Encryptor, FileKind, HEADER_LEN, Header, Integrity, Keyring};
use bytes::Bytes;
use futures_util::future::ready;
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::body::COLLECTED_LEN_MAX;
use super::ciphertext::{Buffers, Ciphertext};
use super::error::{bad_range, refused, reserved};
use super::headers::{HEADERS_LEN, Headers};
use super::open::Opener;
use super::read::Reads;
use super::reserved::is_reserved;
use super::upload::Upload;
use crate::policy::ObjectPolicy;

/// Objects whose first bytes are looked at together while listing, where the policy
/// allows plaintext.
const LISTED_TOGETHER: usize = 16;

/// An object store whose objects are encrypted in the one below. A clone shares
/// everything.
///
/// Names, attributes, tags, ETags and versions are those of the store below; sizes and
/// ranges are those of the plaintext. Keeps up to 16 MiB of memory for ciphertext. See the [crate's docs](crate) for what it costs and
/// does not do.
#[derive(Clone)]
pub struct EncryptedStore {
    reads: Reads,
    buffers: Buffers,
    file_kind: Arc<dyn Fn(&Path) -> FileKind + Send + Sync>,
}

impl EncryptedStore {
    /// Encrypts what is put into `inner` under the keyring's active data key.
    pub fn new(inner: Arc<dyn ObjectStore>, keyring: Keyring) -> Self {
        let len = NonZeroUsize::new(HEADERS_LEN).unwrap_or(NonZeroUsize::MIN);
        let headers = Arc::new(Headers::new(len));
        let policy = ObjectPolicy { integrity: Integrity::Authenticated, both: false };
        let opener = Opener::new(keyring, policy);
        let (tags, collected_len_max) = (Arc::default(), COLLECTED_LEN_MAX);
        let reads = Reads { inner, opener, headers, tags, collected_len_max };
        let file_kind = Arc::new(|_: &Path| FileKind::Other);
        Self { reads, buffers: Buffers::default(), file_kind }
    }

    /// Tells what kind of file an object is, by its path; written into its header.
    /// Default: [`FileKind::Other`] for all.
    #[must_use]
    pub fn with_file_kind(
        mut self,
        file_kind: impl Fn(&Path) -> FileKind + Send + Sync + 'static,
    ) -> Self {
        self.file_kind = Arc::new(file_kind);
        self
    }

    /// Sets what is promised of objects: of all of them, new and old. Default:
    /// [`Integrity::Authenticated`]. A confidential object is refused in an authenticated
    /// store with [`SuiteTooWeak`](atrest::ErrorKind::SuiteTooWeak), an authenticated one in a
    /// confidential store with [`UnsupportedFeature`](atrest::ErrorKind::UnsupportedFeature):
    /// the size of an object that was only listed could not be told.
    ///
    /// Where the keyring's [`integrity`](atrest::Settings::integrity) asks for authenticated
    /// files, confidential objects are neither written nor read.
    #[must_use]
    pub fn with_integrity(mut self, integrity: Integrity) -> Self {
        self.reads.opener.policy.integrity = integrity;
        self
    }

    /// Reads objects of both kinds, those that are new and those from before the promise was
    /// another, until the old ones are rewritten. `head` then asks for the first 4096 bytes, and
    /// `list` for those of each object that was not met before; where they cannot be read, both
    /// fail. And whoever can write to the store below may put a confidential object that he
    /// kept, and changed, in the place of an authenticated one.
    #[must_use]
    pub fn with_both_read(mut self) -> Self {
        self.reads.opener.policy.both = true;
        self
    }

    /// Sets how many objects' headers are remembered; a read of one of them is one
    /// request. About 1 KiB each; default: 4096.
    #[must_use]
    pub fn with_header_cache_len(mut self, len: NonZeroUsize) -> Self {
        self.reads.headers = Arc::new(Headers::new(len));
        self
    }

    /// The keyring.
    pub fn keyring(&self) -> &Keyring {
        &self.reads.opener.keyring
    }

    /// Forgets all headers, and so lets go of their keys.
    pub(crate) fn forget_headers(&self) {
        self.reads.headers.clear();
    }

    /// What is promised of new objects.
    pub fn integrity(&self) -> Integrity {
        self.reads.opener.policy.integrity
    }

    pub(crate) fn inner(&self) -> &Arc<dyn ObjectStore> {
        &self.reads.inner
    }

    /// The key of a new object. The encryptor lets go of it when the last byte is encrypted; the
    /// decryptor **MUST** last until the store below has answered: before that no listing shows
    /// the object to a retirement.
    async fn new_key(&self, location: &Path) -> Result<(Encryptor, Decryptor)> {
        if is_reserved(location) {
            return Err(reserved(location));
        }
        let opener = &self.reads.opener;
        let spec = opener.policy.spec((self.file_kind)(location));
        let made = async {
            let encryptor = opener.keyring.encryptor(spec)?;
            let decryptor = opener.decryptor(Header::parse(encryptor.header())?).await?;
            Ok((encryptor, decryptor))
        };
        made.await.map_err(|error| refused(location, error))
    }

    /// A listing with the keyring's objects left out and the sizes of the plaintext.
    fn listed(
        &self,
        objects: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let reads = self.reads.clone();
        objects
            .try_filter(|meta| ready(!is_reserved(&meta.location)))
            .map(move |meta| {
                let reads = reads.clone();
                async move { reads.listed(meta?).await }
            })
            .buffered(LISTED_TOGETHER)
            .try_filter_map(|listed| ready(Ok(listed)))
            .boxed()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ObjectStore for EncryptedStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let (mut encryptor, decryptor) = self.new_key(location).await?;
        let (buffers, len) = (self.buffers.clone(), payload.content_length());
        let body_len = self.reads.opener.policy.physical_len(len as u64) - HEADER_LEN as u64;
        let mut ciphertext = Ciphertext::new(buffers, encryptor.header(), body_len as usize);
        let encrypted = ciphertext.append(&mut encryptor, &payload);
        let ended = encrypted.and_then(|()| ciphertext.finish(encryptor));
        let made = ended.map_err(|error| refused(location, error))?;
        let result = self.inner().put_opts(location, ciphertext.take(usize::MAX), opts).await?;
        self.reads.keep_written(location, decryptor, made, &result);
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let key = self.new_key(location).await?;
        let inner = self.inner().put_multipart_opts(location, opts).await?;
        Ok(Box::new(Upload::new(
            inner,
            key,
            location.clone(),
            self.reads.clone(),
            self.buffers.clone(),
        )))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.reads.get(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        // Not the store's own: it takes no condition, so nothing would tie its bytes to
        // the header.
        let reads = &Reads { collected_len_max: u64::MAX, ..self.reads.clone() };
        let read = |wanted: Range<u64>| async move {
            let options = GetOptions::new().with_range(Some(wanted.clone()));
            let bytes = reads.get(location, options).await?.bytes().await?;
            let end = wanted.start + bytes.len() as u64;
            // Ranges read as one: the first may fit and a later one not.
            match ranges.iter().find(|range| wanted.contains(&range.start) && range.start >= end) {
                Some(range) => Err(bad_range(format!(
                    "{location}: expected a range below {end}, found {range:?}"
                ))),
                None => Ok(bytes),
            }
        };
        coalesce_ranges(ranges, read, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let headers = self.reads.headers.clone();
        let allowed = locations.map(move |location| {
            let location = location?;
            if is_reserved(&location) {
                return Err(reserved(&location));
            }
            headers.forget(&location);
            Ok(location)
        });
        self.inner().delete_stream(allowed.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner().list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.inner().list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut result = self.inner().list_with_delimiter(prefix).await?;
        result.common_prefixes.retain(|prefix| !is_reserved(prefix));
        let objects = std::mem::take(&mut result.objects);
        let objects = self.listed(stream::iter(objects.into_iter().map(Ok)).boxed());
        result.objects = objects.try_collect().await?;
        Ok(result)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        // The header goes along: a copy has the same key and the same bytes.
        if let Some(location) = [from, to].into_iter().find(|location| is_reserved(location)) {
            return Err(reserved(location));
        }
        self.reads.headers.forget(to);
        self.inner().copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        if let Some(location) = [from, to].into_iter().find(|location| is_reserved(location)) {
            return Err(reserved(location));
        }
        self.reads.headers.forget(from);
        self.reads.headers.forget(to);
        self.inner().rename_opts(from, to, options).await
    }
}

impl fmt::Display for EncryptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptedStore({})", self.inner())
    }
}

impl fmt::Debug for EncryptedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore")
            .field("inner", self.inner())
            .field("keyring", self.keyring())
            .finish_non_exhaustive()
    }
}
