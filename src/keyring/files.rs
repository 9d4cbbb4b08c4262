//! The path of a file: a key for a new one, the key of an existing one.

use std::sync::Arc;

use super::{Keyring, KeyspaceId};
use crate::cipher::{Decryptor, Encryptor, KeySlot, revoked};
use crate::derive::Derived;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{FileKind, Header, NewHeader, PREFIX_LEN};
use crate::ids::{DataKeyId, FileId};
use crate::suite::layout::Layout;
use crate::suite::{Integrity, Suite};

/// What a new file is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FileSpec {
    /// What the engine keeps in it.
    pub kind: FileKind,
    /// The engine's id of it; zero for none.
    pub file_id: FileId,
    /// What is promised of its body. `None`, the default, follows the store's
    /// [`integrity`](crate::Settings::integrity) for its kind.
    pub integrity: Option<Integrity>,
    /// How it is encrypted. `None`, the default, follows what is promised of its body: suite 1
    /// where that is to be confidential; otherwise suite 3 for logs and manifests, whose every
    /// append must be durable after a sync, and suite 2 for all else.
    pub suite: Option<Suite>,
    /// Bytes of a chunk, in suite 2 only: a power of two from 4096 to 65536. Default: 4096. A
    /// read costs the whole chunks it touches; each chunk adds 16 bytes.
    pub chunk_len: u32,
    /// Whose data key it gets. Default: the one keyspace that every store has. Temporary files
    /// have a key apart, whatever this says.
    pub keyspace: KeyspaceId,
}

/// Default length of a chunk of suite 2 in bytes.
const CHUNK_LEN: u32 = 4 << 10;

impl FileSpec {
    /// A file of this kind, without id, in the suite that the store's settings ask for.
    pub fn new(kind: FileKind) -> Self {
        let (file_id, keyspace) = (FileId::default(), KeyspaceId::default());
        Self { kind, file_id, integrity: None, suite: None, chunk_len: CHUNK_LEN, keyspace }
    }

    /// Names the file, so that another put in its place is refused when it is opened with
    /// the same id expected.
    #[must_use]
    pub fn file_id(mut self, file_id: impl Into<FileId>) -> Self {
        self.file_id = file_id.into();
        self
    }

    /// Sets what is promised of the body.
    #[must_use]
    pub fn integrity(mut self, integrity: Integrity) -> Self {
        self.integrity = Some(integrity);
        self
    }

    /// Sets the suite.
    #[must_use]
    pub fn suite(mut self, suite: Suite) -> Self {
        self.suite = Some(suite);
        self
    }

    /// Sets the keyspace.
    #[must_use]
    pub fn keyspace(mut self, keyspace: KeyspaceId) -> Self {
        self.keyspace = keyspace;
        self
    }

    /// Sets the length of a chunk of suite 2 in bytes.
    #[must_use]
    pub fn chunk_len(mut self, bytes: u32) -> Self {
        self.chunk_len = bytes;
        self
    }

    /// The suite it gets in a store that promises so much of its kind.
    pub(crate) fn suite_under(&self, promised: Integrity) -> Suite {
        let integrity = self.integrity.unwrap_or(promised);
        self.suite.unwrap_or_else(|| Suite::default_for(integrity, self.kind.grows()))
    }
}

impl From<FileKind> for FileSpec {
    fn from(kind: FileKind) -> Self {
        Self::new(kind)
    }
}

/// What the caller knows about a file it opens. The store is always checked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expect {
    /// The kind, if known.
    pub kind: Option<FileKind>,
    /// The file id, if the engine gives ids.
    pub file_id: Option<FileId>,
}

impl Keyring {
    /// A fresh key for a new file. The caller writes [`Encryptor::header`] in front of
    /// what the encryptor returns. Costs no write and no key service call: if the data
    /// key is due, the background thread is told.
    ///
    /// # Errors
    /// [`CmekRevoked`](ErrorKind::CmekRevoked), [`ReadOnly`](ErrorKind::ReadOnly),
    /// [`Poisoned`](ErrorKind::Poisoned) in a forked child,
    /// [`UnknownKey`](ErrorKind::UnknownKey) for a keyspace that is not in the keyring,
    /// [`KeyDestroyed`](ErrorKind::KeyDestroyed) for one that was shredded,
    /// [`SuiteTooWeak`](ErrorKind::SuiteTooWeak) where the store requires a better suite,
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a chunk length out of range,
    /// [`Io`](ErrorKind::Io) if the system has no randomness.
    pub fn encryptor(&self, spec: impl Into<FileSpec>) -> Result<Encryptor> {
        let spec = spec.into();
        match self.try_encryptor(&spec) {
            // The active key was replaced, and is already being destroyed, since the
            // snapshot was read; the next one has another.
            Err(error)
                if matches!(error.kind(), ErrorKind::UnknownKey | ErrorKind::KeyDestroyed) =>
            {
                self.try_encryptor(&spec)
            }
            other => other,
        }
    }

    /// The key of an existing file, proven by its header.
    ///
    /// # Errors
    /// [`IdentityMismatch`](ErrorKind::IdentityMismatch),
    /// [`UnknownKey`](ErrorKind::UnknownKey) after the keyring was read once more,
    /// [`KeyDestroyed`](ErrorKind::KeyDestroyed),
    /// [`WrongKey`](ErrorKind::WrongKey), [`SuiteTooWeak`](ErrorKind::SuiteTooWeak),
    /// [`TemporaryEnded`](ErrorKind::TemporaryEnded),
    /// [`CmekRevoked`](ErrorKind::CmekRevoked).
    pub fn decryptor(&self, header: &Header, expect: &Expect) -> Result<Decryptor> {
        let derived = match self.unseal(header)? {
            Some(derived) => derived,
            // Another store's file cannot become known by reading our keyring again.
            None if header.store_id != self.inner.store_id => return Err(self.foreign(header)),
            None => self.unseal_anew(header)?,
        };
        self.admit(header, expect, &derived)
    }

    /// The same without any I/O, for callers that must not block: `None` where
    /// [`decryptor`](Self::decryptor) would read the keyring again, because the data key
    /// is not in memory.
    ///
    /// # Errors
    /// Those of [`decryptor`](Self::decryptor), without `UnknownKey` and `KeyDestroyed`.
    pub fn decryptor_if_known(
        &self,
        header: &Header,
        expect: &Expect,
    ) -> Result<Option<Decryptor>> {
        match self.unseal(header)? {
            Some(derived) => self.admit(header, expect, &derived).map(Some),
            None if header.store_id != self.inner.store_id => Err(self.foreign(header)),
            None => Ok(None),
        }
    }
}

impl Keyring {
    fn try_encryptor(&self, spec: &FileSpec) -> Result<Encryptor> {
        // The writer, which retires keys, would not know of the file.
        self.inner.check_may_write()?;
        let snapshot = self.inner.vault.load();
        let settings = snapshot.body.settings();
        let promised = settings.integrity.of(spec.kind);
        let suite = spec.suite_under(promised);
        check_suite(suite, promised)?;
        let layout = Layout::choose(suite, spec.chunk_len)?;
        let now_ns = self.inner.clock.now_ns();
        let (data_key_id, entry) = if spec.kind == FileKind::Temporary {
            self.inner.vault.temporary()?
        } else {
            let active = snapshot.active(spec.keyspace.0 as usize)?;
            if active.is_due(now_ns, &settings) || active.is_uncounted(&settings) {
                self.inner.watch.alarm.ring();
            }
            (active.id, active.entry.clone())
        };
        let header = NewHeader {
            layout,
            kind: spec.kind,
            created_ns: now_ns,
            store_id: self.inner.store_id,
            data_key_id,
            file_id: spec.file_id,
        };
        let mut salt = [0; 32];
        crate::random::fill(&mut salt)?;
        let (bytes, derived) = header.seal(&entry.key, salt)?;
        let mut prefix = [0; PREFIX_LEN];
        prefix.copy_from_slice(&bytes[..PREFIX_LEN]);
        let slot = self.key_slot(&prefix, &derived, true)?;
        // The one that was asked above, before the salt: the machine may have been copied since.
        Ok(Encryptor::new(bytes, layout, slot, entry.count.clone(), self.inner.process))
    }

    /// Compares a proven header with what the caller and the store expect.
    fn admit(&self, header: &Header, expect: &Expect, derived: &Derived) -> Result<Decryptor> {
        // Only now is the header proven, so only now are its words worth comparing.
        if header.store_id != self.inner.store_id {
            return Err(self.foreign(header));
        }
        if expect.kind.is_some_and(|kind| kind != header.kind) {
            return Err(Error::new(
                ErrorKind::IdentityMismatch,
                format!("expected a file of kind {:?}, found {:?}", expect.kind, header.kind),
            ));
        }
        if let Some(file_id) = expect.file_id.filter(|file_id| *file_id != header.file_id) {
            return Err(Error::new(
                ErrorKind::IdentityMismatch,
                format!("expected file id {file_id}, found {}", header.file_id),
            ));
        }
        let settings = self.inner.vault.load().body.settings();
        check_suite(header.suite, settings.integrity.of(header.kind))?;
        Ok(Decryptor::new(header, self.key_slot(&header.prefix, derived, false)?))
    }

    pub(super) fn unseal(&self, header: &Header) -> Result<Option<Derived>> {
        let snapshot = self.inner.vault.load();
        let unlocked = snapshot.unlocked()?;
        if header.is_temporary() && header.store_id == self.inner.store_id {
            let entry = self.inner.vault.temporary_of(header.data_key_id);
            let entry = entry.ok_or_else(temporary_ended)?;
            return header.unseal(&entry.key).map(Some);
        }
        let entry = unlocked.keys.get(&header.data_key_id);
        entry.map(|entry| header.unseal(&entry.key)).transpose()
    }

    /// Reads the keyring once more for a key that may be newer than what is in memory; not
    /// for one that was destroyed, which is final, nor again for one just looked for.
    fn unseal_anew(&self, header: &Header) -> Result<Derived> {
        let (id, now) = (header.data_key_id, self.inner.clock.since_boot());
        if self.is_destroyed(id) || self.inner.absent.knows(id, now) {
            return Err(self.unknown(id));
        }
        self.inner.reload(&mut self.inner.writer())?;
        self.unseal(header)?.ok_or_else(|| {
            self.inner.absent.note(id, now);
            self.unknown(id)
        })
    }

    fn is_destroyed(&self, id: DataKeyId) -> bool {
        let snapshot = self.inner.vault.load();
        let is_destroyed = |record: &super::body::KeyRecord| {
            record.id == *id.as_bytes() && record.state == super::KeyState::Destroyed
        };
        snapshot.body.keys.iter().any(is_destroyed)
    }

    pub(super) fn key_slot(
        &self,
        prefix: &[u8; PREFIX_LEN],
        derived: &Derived,
        writing: bool,
    ) -> Result<Arc<KeySlot>> {
        let new = if writing { KeySlot::for_writing } else { KeySlot::new };
        let slot = new(prefix, derived);
        let id = slot.data_key_id();
        if !self.inner.vault.handles.register(&slot) {
            return Err(revoked());
        }
        // In this order: whoever closes a data key sees this file, or this sees it closed.
        if self.inner.vault.handles.is_closed(id, writing) {
            let what = format!("data key {id} is being destroyed");
            return Err(Error::new(ErrorKind::UnknownKey, what));
        }
        // The same for a key that was destroyed since this one was derived.
        let vault = &self.inner.vault;
        if !vault.load().unlocked()?.keys.contains_key(&id) && vault.temporary_of(id).is_none() {
            return Err(self.unknown(id));
        }
        Ok(slot)
    }

    fn foreign(&self, header: &Header) -> Error {
        Error::new(
            ErrorKind::IdentityMismatch,
            format!(
                "expected a file of store {}, found store {}",
                self.inner.store_id, header.store_id
            ),
        )
    }

    fn unknown(&self, id: DataKeyId) -> Error {
        let (kind, what) = if self.is_destroyed(id) {
            (ErrorKind::KeyDestroyed, "was destroyed")
        } else {
            (ErrorKind::UnknownKey, "is not in the keyring")
        };
        Error::new(kind, format!("data key {id} {what}"))
    }
}

fn temporary_ended() -> Error {
    let what = "a temporary file of a process that ended, or from before access was withdrawn";
    Error::new(ErrorKind::TemporaryEnded, what)
}

fn check_suite(suite: Suite, promised: Integrity) -> Result<()> {
    if suite.is_authenticated() || promised == Integrity::Confidential {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::SuiteTooWeak,
        format!("expected an authenticated suite, found {suite:?}"),
    ))
}
