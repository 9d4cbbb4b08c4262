//! A bounded memory of the headers read last, so that a read costs one request.

use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::object_store::path::Path;
use atrest::keyring::AccessFlag;
use atrest::{Decryptor, HEADER_LEN};
use lru::LruCache;

use crate::chunked::Chunked;

/// Objects whose header is kept by default. An entry takes about 1 KiB.
pub(crate) const HEADERS_LEN: usize = 4096;

/// How an object's bytes become plaintext.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// A header, then ciphertext as long as the plaintext.
    Stream(Decryptor),
    /// A header, then chunks and their tags.
    Chunks(Chunked),
    /// Plaintext from before encryption, which the policy allowed.
    Plain(AccessFlag),
}

impl Body {
    /// The body of an object that claims to have `physical_len` bytes.
    pub(crate) fn new(decryptor: Decryptor, physical_len: u64) -> atrest::Result<Self> {
        if decryptor.suite().keeps_lengths() {
            return Ok(Self::Stream(decryptor));
        }
        let body_len = physical_len.saturating_sub(HEADER_LEN as u64);
        Chunked::new(decryptor, body_len).map(Self::Chunks)
    }

    /// Bytes in front of the first one of the plaintext.
    pub(crate) fn header_len(&self) -> u64 {
        match self {
            Self::Stream(_) | Self::Chunks(_) => HEADER_LEN as u64,
            Self::Plain(_) => 0,
        }
    }

    /// Bytes of plaintext in an object of this length.
    pub(crate) fn len(&self, physical_len: u64) -> u64 {
        match self {
            Self::Stream(_) | Self::Plain(_) => physical_len.saturating_sub(self.header_len()),
            Self::Chunks(object) => object.len(),
        }
    }
}

/// What is known of one object, as long as its ETag stays.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) e_tag: String,
    /// Length in the store below.
    pub(crate) physical_len: u64,
    pub(crate) body: Body,
}

impl Known {
    pub(crate) fn len(&self) -> u64 {
        self.body.len(self.physical_len)
    }
}

/// The objects used last, each with the newest ETag seen.
#[derive(Debug)]
pub(crate) struct Headers(Mutex<LruCache<Path, Known>>);

impl Headers {
    pub(crate) fn new(len: NonZeroUsize) -> Self {
        Self(Mutex::new(LruCache::new(len)))
    }

    pub(crate) fn find(&self, location: &Path) -> Option<Known> {
        self.entries().get(location).cloned()
    }

    /// The same, if the object is still the one with this ETag.
    pub(crate) fn find_same(&self, location: &Path, e_tag: Option<&str>) -> Option<Known> {
        self.find(location).filter(|known| Some(known.e_tag.as_str()) == e_tag)
    }

    pub(crate) fn keep(&self, location: &Path, known: Known) {
        self.entries().put(location.clone(), known);
    }

    pub(crate) fn forget(&self, location: &Path) {
        self.entries().pop(location);
    }

    pub(crate) fn clear(&self) {
        self.entries().clear();
    }

    fn entries(&self) -> MutexGuard<'_, LruCache<Path, Known>> {
        // No code that may panic runs while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
