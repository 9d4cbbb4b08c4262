//! `file:///path`: a key file in CockroachDB's format, 32 bytes of id and 16, 24 or 32
//! bytes of key.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Deadline, KeyUri, Kms, KmsError, KmsErrorKind, WrapContext, WrappedKey, local};
use crate::error::{Error, Result};
use crate::secret::{CmekParent, SlotKey};
use crate::vfs::regular;

/// Length of the id in front of the key.
const ID_LEN: usize = 32;
/// Longest file: id and an AES-256 key.
const FILE_LEN_MAX: usize = ID_LEN + 32;

/// A customer's key in a local file. The file is read at each use, so that moving it away
/// withdraws access.
///
/// The file **MUST** be readable by its owner alone: another mode is refused.
#[derive(Debug)]
pub struct KeyFile {
    uri: KeyUri,
    path: PathBuf,
}

impl KeyFile {
    /// The key file at `path`, which is made absolute.
    ///
    /// # Errors
    /// [`KmsErrorKind::Misconfigured`] if the path has no absolute form or is not UTF-8.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, KmsError> {
        let path = std::path::absolute(&path).map_err(|source| {
            KmsError::new(KmsErrorKind::Misconfigured, "the key file's path has no absolute form")
                .with_source(source)
        })?;
        let text = path.to_str().ok_or_else(|| {
            KmsError::new(KmsErrorKind::Misconfigured, "the key file's path is not UTF-8")
        })?;
        Ok(Self { uri: format!("file://{text}").parse()?, path })
    }

    pub(super) fn from_uri(uri: KeyUri) -> Result<Self, KmsError> {
        match uri.rest().strip_prefix("//") {
            Some(path) if path.starts_with('/') => Ok(Self { path: path.into(), uri }),
            _ => Err(KmsError::new(
                KmsErrorKind::Misconfigured,
                "expected an absolute path, as in file:///etc/app/cmek.key",
            )
            .with_key_uri(&uri)),
        }
    }

    fn fail(&self, kind: KmsErrorKind, what: impl Into<String>) -> KmsError {
        KmsError::new(kind, what).with_key_uri(&self.uri)
    }

    /// Reads the file and derives the wrapping parent: HKDF-Extract(salt = id, key).
    fn parent(&self) -> Result<CmekParent, KmsError> {
        // Not to hang on a pipe.
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let opened = OpenOptions::new().read(true).custom_flags(flags).open(&self.path);
        let mut file = opened.and_then(regular).map_err(|source| {
            let kind = match source.kind() {
                std::io::ErrorKind::NotFound => KmsErrorKind::NotFound,
                std::io::ErrorKind::PermissionDenied => KmsErrorKind::AccessDenied,
                std::io::ErrorKind::InvalidInput | std::io::ErrorKind::IsADirectory => {
                    KmsErrorKind::Misconfigured
                }
                _ => KmsErrorKind::Unreachable,
            };
            self.fail(kind, "the key file cannot be opened").with_source(source)
        })?;
        let metadata = file.metadata().map_err(|source| {
            self.fail(KmsErrorKind::Unreachable, "the key file has no metadata").with_source(source)
        })?;
        if metadata.mode() & 0o077 != 0 {
            return Err(self.fail(
                KmsErrorKind::Misconfigured,
                format!(
                    "others may read the key file: expected mode 0600, found {:04o}",
                    metadata.mode() & 0o7777
                ),
            ));
        }
        let mut bytes = Zeroizing::new(vec![0_u8; FILE_LEN_MAX + 1].into_boxed_slice());
        let mut len = 0;
        loop {
            match file.read(&mut bytes[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let error = self.fail(KmsErrorKind::Unreachable, "the key file is unreadable");
                    return Err(error.with_source(source));
                }
            }
        }
        if !matches!(len.checked_sub(ID_LEN), Some(16 | 24 | 32)) {
            let found = if len > FILE_LEN_MAX { "more".to_owned() } else { len.to_string() };
            return Err(self.fail(
                KmsErrorKind::Misconfigured,
                format!("expected a key file of 48, 56 or 64 bytes (id 32, key 16, 24 or 32), found {found}"),
            ));
        }
        let mut parent = CmekParent::zeroed();
        crate::derive::extract(&bytes[..ID_LEN], &bytes[ID_LEN..len], parent.bytes_mut());
        Ok(parent)
    }
}

impl Kms for KeyFile {
    fn key_uri(&self) -> &KeyUri {
        &self.uri
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        _deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        let blob = local::wrap(&self.parent()?, key, context)
            .map_err(|e| e.with_key_uri(&self.uri))?
            .to_vec();
        Ok(WrappedKey { key_version: String::new(), blob })
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        _deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        local::unwrap(&self.parent()?, &wrapped.blob, context)
            .map_err(|e| e.with_key_uri(&self.uri))
    }
}

/// Writes a new random key file of 64 bytes, mode 0600, and makes it durable.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io): among others `AlreadyExists`, since a key
/// that may be in use is never overwritten. On failure no file is left.
pub fn generate_key_file(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let mut bytes = Zeroizing::new(vec![0_u8; FILE_LEN_MAX].into_boxed_slice());
    crate::random::fill(&mut bytes[..])?;
    let fail = |what: &str, source| Error::io(what, source).with_path(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| fail("the key file cannot be created", e))?;
    let written = file.write_all(&bytes[..]).and_then(|()| file.sync_all()).and_then(|()| {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    });
    written.map_err(|source| {
        // The first error is the one to tell.
        drop(std::fs::remove_file(path));
        fail("the key file cannot be written", source)
    })
}
