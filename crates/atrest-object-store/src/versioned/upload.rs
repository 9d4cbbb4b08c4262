//! Writing an object in parts.

use super::object_store::path::Path;
use super::object_store::{Error, MultipartUpload, PutPayload, PutResult, Result, UploadPart};
use async_trait::async_trait;
use atrest::{Decryptor, Encryptor};
use futures_util::FutureExt;
use futures_util::future::{ready, try_join_all};

use super::ciphertext::{Buffers, Ciphertext};
use super::error::{fault, refused};
use super::read::Reads;

/// Smallest part sent on, but for the last: what S3 and its like demand.
const PART_LEN_MIN: usize = 5 << 20;

/// Encrypts the parts in the order of the calls, whenever their uploads run.
///
/// The header would make the first part longer than the others, which some stores refuse.
/// So the ciphertext, header in front, is cut anew: into parts as long as the caller's
/// longest so far, at least 5 MiB. With equal parts from the caller each call sends one
/// part on, and 4096 bytes stay behind for the last, with the tags of an authenticated object:
/// 16 bytes for each 4096.
pub(crate) struct Upload {
    inner: Box<dyn MultipartUpload>,
    /// Taken by `complete`.
    encryptor: Option<Encryptor>,
    /// Keeps the data key until the upload is dropped, be it after an answer that never came.
    decryptor: Decryptor,
    location: Path,
    reads: Reads,
    pending: Ciphertext,
    part_len: usize,
    /// Whether parts are missing, or the upload has ended: nothing may complete it then.
    closed: bool,
}

impl Upload {
    pub(crate) fn new(
        inner: Box<dyn MultipartUpload>,
        (encryptor, decryptor): (Encryptor, Decryptor),
        location: Path,
        reads: Reads,
        buffers: Buffers,
    ) -> Self {
        let pending = Ciphertext::new(buffers, encryptor.header(), 0);
        let part_len = PART_LEN_MIN;
        let encryptor = Some(encryptor);
        Self { inner, encryptor, decryptor, location, reads, pending, part_len, closed: false }
    }

    fn ended(&self) -> Error {
        fault(format!("{}: the upload has ended or failed before", self.location))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let Some(encryptor) = self.encryptor.as_mut().filter(|_| !self.closed) else {
            return ready(Err(self.ended())).boxed();
        };
        self.part_len = self.part_len.max(data.content_length());
        if let Err(error) = self.pending.append(encryptor, &data) {
            self.closed = true;
            return ready(Err(refused(&self.location, error))).boxed();
        }
        let mut parts = Vec::new();
        while self.pending.len() >= self.part_len {
            let part = self.pending.take(self.part_len);
            parts.push(self.inner.put_part(part));
        }
        try_join_all(parts).map(|outcome| outcome.map(drop)).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        if let Some(encryptor) = &self.encryptor {
            // Before the end: access that comes back lets it go on.
            encryptor.check_access().map_err(|error| refused(&self.location, error))?;
        }
        let Some(encryptor) = self.encryptor.take().filter(|_| !self.closed) else {
            return Err(self.ended());
        };
        self.closed = true;
        let ended = self.pending.finish(encryptor);
        let made = ended.map_err(|error| refused(&self.location, error))?;
        while self.pending.len() > self.part_len {
            let part = self.pending.take(self.part_len);
            self.inner.put_part(part).await?;
        }
        // The first 4096 bytes are sent here if not before, so an empty object has its
        // header.
        if self.pending.len() > 0 {
            let last = self.pending.take(usize::MAX);
            self.inner.put_part(last).await?;
        }
        let access = self.reads.opener.keyring.access().flag();
        access.check().map_err(|error| refused(&self.location, error))?;
        let result = self.inner.complete().await?;
        self.reads.keep_written(&self.location, self.decryptor.clone(), made, &result);
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.closed = true;
        drop(self.pending.take(usize::MAX));
        self.inner.abort().await
    }
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("location", &self.location)
            .field("pending_len", &self.pending.len())
            .finish_non_exhaustive()
    }
}
