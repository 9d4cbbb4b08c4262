//! `file:///path`: a key file in CockroachDB's format, 32 bytes of id and 16, 24 or 32
//! bytes of key.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{
    Deadline, KeyUri, Kms, KmsError, KmsErrorKind, SecretFile, WrapContext, WrappedKey, local,
};
use crate::error::{Error, Result};
use crate::secret::{CmekParent, SlotKey};

/// Length of the id in front of the key.
const ID_LEN: usize = 32;
/// Longest file: id and an AES-256 key.
const FILE_LEN_MAX: usize = ID_LEN + 32;
/// So much of a longer file is looked at, to tell text from other bytes.
const LOOKED_AT: usize = 1024;

/// A customer's key in a local file. The file is read at each use, so that moving it away
/// withdraws access.
///
/// The file **MUST** be readable by its owner alone, or, if it is root's, by its group too:
/// another mode is refused. One of printable characters wraps nothing, since its bytes are the
/// key itself.
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
    /// What was wrapped by text before it was refused is still unwrapped: nobody is locked out.
    fn parent(&self, wraps: bool) -> Result<CmekParent, KmsError> {
        let file = SecretFile::read(&self.path, LOOKED_AT).map_err(|source| {
            let (kind, what) = match source.kind() {
                ErrorKind::NotFound => (KmsErrorKind::NotFound, "cannot be opened"),
                ErrorKind::PermissionDenied => (KmsErrorKind::AccessDenied, "cannot be opened"),
                ErrorKind::InvalidInput | ErrorKind::IsADirectory => {
                    (KmsErrorKind::Misconfigured, "is no regular file")
                }
                ErrorKind::FileTooLarge => {
                    return self.fail(KmsErrorKind::Misconfigured, expected("a longer file"));
                }
                _ => (KmsErrorKind::Unreachable, "cannot be read"),
            };
            self.fail(kind, format!("the key file {what}")).with_source(source)
        })?;
        file.check_private().map_err(|why| {
            self.fail(KmsErrorKind::Misconfigured, format!("others may use the key file: {why}"))
        })?;
        let bytes = file.bytes();
        let good_len = matches!(bytes.len().checked_sub(ID_LEN), Some(16 | 24 | 32));
        if is_text(bytes) && (wraps || !good_len) {
            let found = format!("{} characters of text", bytes.len());
            return Err(self.fail(KmsErrorKind::Misconfigured, expected(&found)));
        }
        if !good_len {
            let found = format!("{} bytes", bytes.len());
            return Err(self.fail(KmsErrorKind::Misconfigured, expected(&found)));
        }
        let mut parent = CmekParent::zeroed();
        crate::derive::extract(&bytes[..ID_LEN], &bytes[ID_LEN..], parent.bytes_mut());
        Ok(parent)
    }
}

fn expected(found: &str) -> String {
    format!("expected a key file of 32 random bytes of id and 16, 24 or 32 of key, found {found}")
}

/// Whether this is a key written down, in hexadecimal digits, base64 or words, which has less
/// in it than its length says, and half of it in the place of the id, which is no secret.
/// Random bytes are taken for text once in 10^9 keys of 16 bytes, and less often else.
fn is_text(bytes: &[u8]) -> bool {
    let space = |byte: &u8| byte.is_ascii_whitespace();
    let printable = |byte: &u8| byte.is_ascii_graphic() || space(byte);
    let encoded = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=-_".contains(byte);
    let key = bytes.get(ID_LEN..).unwrap_or_default();
    let key_is_encoded = key.len() >= 16 && key.iter().all(|byte| encoded(byte) || space(byte));
    !bytes.is_empty() && (bytes.iter().all(printable) || key_is_encoded)
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
        let blob = local::wrap(&self.parent(true)?, key, context)
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
        local::unwrap(&self.parent(false)?, &wrapped.blob, context)
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
