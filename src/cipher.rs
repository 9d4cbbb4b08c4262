//! Encryption and decryption of file bodies, without I/O.
//!
//! [`Encryptor`] is sequential, not `Clone`, and owns its position, so that no byte of
//! keystream is used twice. [`Decryptor`] reads anywhere, from many threads. Nothing made
//! from a header can encrypt.
//!
//! Both hold their key through a [`KeySlot`], from which the keyring takes it when access
//! to the customer's key is lost, and into which it puts it back: a swap, not a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwapOption;

use self::ctr::CtrKey;
use crate::derive::Derived;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{HEADER_LEN, Header, PREFIX_LEN, Suite};

pub(crate) mod ctr;

/// Longest body in bytes. Section 3 of the format: block numbers then stay below 2^40.
pub const BODY_LEN_MAX: u64 = 1 << 44;

/// Bytes an encryptor counts by itself before it adds them to its data key's total.
const COUNT_BATCH_BYTES: u64 = 1 << 20;

/// The key material of one open file.
pub(crate) struct FileKey {
    ctr: CtrKey,
}

impl FileKey {
    fn new(derived: &Derived) -> Arc<Self> {
        let nonce = derived.nonce();
        let mut fixed = [0; 8];
        fixed.copy_from_slice(&nonce[..8]);
        Arc::new(Self { ctr: CtrKey::new(derived.key(), fixed) })
    }
}

/// The place where one open file keeps its key while access lasts.
pub(crate) struct KeySlot {
    /// The header's first 128 bytes: what the key is derived from again.
    pub(crate) prefix: [u8; PREFIX_LEN],
    key: ArcSwapOption<FileKey>,
}

impl KeySlot {
    pub(crate) fn new(prefix: &[u8; PREFIX_LEN], derived: &Derived) -> Arc<Self> {
        Arc::new(Self { prefix: *prefix, key: ArcSwapOption::new(Some(FileKey::new(derived))) })
    }

    /// Drops the key; it is zeroized when the operation in flight, if any, ends.
    pub(crate) fn withdraw(&self) {
        self.key.store(None);
    }

    /// Puts the same key back.
    pub(crate) fn give_back(&self, derived: &Derived) {
        self.key.store(Some(FileKey::new(derived)));
    }

    fn with<T>(&self, use_key: impl FnOnce(&FileKey) -> T) -> Result<T> {
        match &*self.key.load() {
            Some(key) => Ok(use_key(key)),
            None => Err(revoked()),
        }
    }
}

pub(crate) fn revoked() -> Error {
    Error::new(ErrorKind::CmekRevoked, "access to the customer's key was withdrawn")
}

fn not_length_preserving(suite: Suite) -> Error {
    Error::new(
        ErrorKind::UnsupportedFeature,
        format!("expected suite {:?}, found {suite:?}", Suite::Aes256Ctr),
    )
}

/// Bytes encrypted under one data key.
#[derive(Debug, Default)]
pub(crate) struct ByteCount(AtomicU64);

impl ByteCount {
    pub(crate) fn new(bytes: u64) -> Arc<Self> {
        Arc::new(Self(bytes.into()))
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Encrypts one new file from its first byte to its last.
///
/// Made by [`Keyring::encryptor`](crate::Keyring::encryptor) alone, with a fresh salt and
/// so a fresh key. Each byte position is encrypted once: if a write fails, the **same**
/// ciphertext may be written again, but the plaintext **MUST NOT** be encrypted again.
///
/// ```compile_fail
/// fn copied<T: Clone>() {}
/// copied::<atrest::Encryptor>();
/// ```
pub struct Encryptor {
    header: Box<[u8; HEADER_LEN]>,
    suite: Suite,
    slot: Arc<KeySlot>,
    position: u64,
    uncounted: u64,
    count: Arc<ByteCount>,
    /// The process that may write: a forked child shares the file and would reuse the
    /// keystream.
    process: u32,
}

impl Encryptor {
    pub(crate) fn new(
        header: Box<[u8; HEADER_LEN]>,
        suite: Suite,
        slot: Arc<KeySlot>,
        count: Arc<ByteCount>,
    ) -> Self {
        let process = std::process::id();
        Self { header, suite, slot, position: 0, uncounted: 0, count, process }
    }

    /// The 4096 bytes to write in front of the body.
    pub fn header(&self) -> &[u8; HEADER_LEN] {
        &self.header
    }

    /// The suite of the file.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Plaintext bytes encrypted so far: the offset of the next one.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Encrypts the next bytes of the file where they stand.
    ///
    /// # Errors
    /// [`FileTooLarge`](ErrorKind::FileTooLarge),
    /// [`CmekRevoked`](ErrorKind::CmekRevoked), [`Poisoned`](ErrorKind::Poisoned) in a
    /// forked child, [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) for a suite that
    /// changes lengths. `buf` is then unchanged and the position stays.
    pub fn encrypt_in_place(&mut self, buf: &mut [u8]) -> Result<()> {
        let position = self.reserve(buf.len())?;
        self.slot.with(|key| key.ctr.apply_in_place(position, buf))?;
        self.advance(buf.len());
        Ok(())
    }

    /// Encrypts the next bytes of the file from `plaintext` into `ciphertext`, in one pass.
    ///
    /// # Errors
    /// Those of [`encrypt_in_place`](Self::encrypt_in_place), and
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the lengths differ.
    pub fn encrypt(&mut self, plaintext: &[u8], ciphertext: &mut [u8]) -> Result<()> {
        same_len(plaintext, ciphertext)?;
        let position = self.reserve(plaintext.len())?;
        self.slot.with(|key| key.ctr.apply(position, plaintext, ciphertext))?;
        self.advance(plaintext.len());
        Ok(())
    }

    /// Refuses in a forked child, which must not go on writing its parent's file.
    pub(crate) fn check_process(&self) -> Result<()> {
        if std::process::id() == self.process {
            return Ok(());
        }
        let what = "a forked child cannot go on writing its parent's file";
        Err(Error::new(ErrorKind::Poisoned, what))
    }

    fn reserve(&self, len: usize) -> Result<u64> {
        if self.suite != Suite::Aes256Ctr {
            return Err(not_length_preserving(self.suite));
        }
        self.check_process()?;
        match self.position.checked_add(len as u64) {
            Some(end) if end <= BODY_LEN_MAX => Ok(self.position),
            _ => Err(Error::new(
                ErrorKind::FileTooLarge,
                format!("expected at most {BODY_LEN_MAX} bytes in a file"),
            )),
        }
    }

    fn advance(&mut self, len: usize) {
        self.position += len as u64;
        self.uncounted += len as u64;
        if self.uncounted >= COUNT_BATCH_BYTES {
            self.count.add(std::mem::take(&mut self.uncounted));
        }
    }
}

impl Drop for Encryptor {
    fn drop(&mut self) {
        self.count.add(self.uncounted);
    }
}

impl std::fmt::Debug for Encryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryptor")
            .field("suite", &self.suite)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// Decrypts one file at any offset, from any number of threads.
///
/// Made by [`Keyring::decryptor`](crate::Keyring::decryptor) from a header that its data
/// key proved. A clone shares the key.
#[derive(Clone)]
pub struct Decryptor {
    suite: Suite,
    slot: Arc<KeySlot>,
}

impl Decryptor {
    pub(crate) fn new(header: &Header, slot: Arc<KeySlot>) -> Self {
        Self { suite: header.suite, slot }
    }

    /// The suite of the file.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Decrypts where they stand the bytes read from logical offset `offset_bytes`
    /// (physical offset minus 4096). No allocation, no lock, no system call.
    ///
    /// # Errors
    /// [`CmekRevoked`](ErrorKind::CmekRevoked),
    /// [`FileTooLarge`](ErrorKind::FileTooLarge) beyond 2^44,
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature) for a suite that changes
    /// lengths. `buf` is then unchanged.
    pub fn decrypt_in_place(&self, offset_bytes: u64, buf: &mut [u8]) -> Result<()> {
        self.check(offset_bytes, buf.len())?;
        self.slot.with(|key| key.ctr.apply_in_place(offset_bytes, buf))
    }

    /// Decrypts from `ciphertext` into `plaintext`, in one pass.
    ///
    /// # Errors
    /// Those of [`decrypt_in_place`](Self::decrypt_in_place), and
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if the lengths differ.
    pub fn decrypt(
        &self,
        offset_bytes: u64,
        ciphertext: &[u8],
        plaintext: &mut [u8],
    ) -> Result<()> {
        same_len(ciphertext, plaintext)?;
        self.check(offset_bytes, ciphertext.len())?;
        self.slot.with(|key| key.ctr.apply(offset_bytes, ciphertext, plaintext))
    }

    fn check(&self, offset_bytes: u64, len: usize) -> Result<()> {
        if self.suite != Suite::Aes256Ctr {
            return Err(not_length_preserving(self.suite));
        }
        match offset_bytes.checked_add(len as u64) {
            Some(end) if end <= BODY_LEN_MAX => Ok(()),
            _ => Err(Error::new(
                ErrorKind::FileTooLarge,
                format!("expected an offset below {BODY_LEN_MAX}, found {offset_bytes}"),
            )),
        }
    }
}

impl std::fmt::Debug for Decryptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decryptor").field("suite", &self.suite).finish_non_exhaustive()
    }
}

fn same_len(from: &[u8], to: &[u8]) -> Result<()> {
    if from.len() == to.len() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::InvalidArgument,
        format!("expected two buffers of one length, found {} and {}", from.len(), to.len()),
    ))
}
