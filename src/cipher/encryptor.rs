//! Encrypting one new file.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::slot::KeySlot;
use crate::error::Result;
use crate::header::HEADER_LEN;
use crate::process::Process;
use crate::suite::Suite;
use crate::suite::layout::Layout;
use crate::suite::output::Output;
use crate::suite::sealer::{Intake, Sealer};
use crate::suite::stream;

/// Bytes an encryptor counts by itself before it adds them to its data key's total.
const COUNT_BATCH_BYTES: u64 = 1 << 20;

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

    /// Takes over a count that is known from elsewhere, if it is higher.
    pub(crate) fn raise(&self, bytes: u64) {
        self.0.fetch_max(bytes, Ordering::Relaxed);
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
/// In any suite, [`append`](Self::append) turns plaintext into the next bytes of the body
/// and [`finish`](Self::finish) ends it. In suite 1, whose ciphertext is as long as the
/// plaintext, [`encrypt`](Self::encrypt) and [`encrypt_in_place`](Self::encrypt_in_place)
/// do the same without a `Vec`.
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
    sealer: Sealer,
    uncounted: u64,
    count: Arc<ByteCount>,
    /// The process that may write: a forked child shares the file and would reuse the
    /// keystream. From before the salt was drawn, which a copy of the machine has too.
    process: Process,
}

impl Encryptor {
    pub(crate) fn new(
        header: Box<[u8; HEADER_LEN]>,
        layout: Layout,
        slot: Arc<KeySlot>,
        count: Arc<ByteCount>,
        process: Process,
    ) -> Self {
        let (suite, sealer) = (layout.suite(), Sealer::new(layout));
        Self { header, suite, slot, position: 0, sealer, uncounted: 0, count, process }
    }

    /// The 4096 bytes to write in front of the body.
    pub fn header(&self) -> &[u8; HEADER_LEN] {
        &self.header
    }

    /// The suite of the file.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Plaintext bytes taken so far: the offset of the next one.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes of the header and of the body given out so far: the length of the file, once
    /// the encryptor is finished.
    pub fn physical_len(&self) -> u64 {
        HEADER_LEN as u64 + self.sealer.body_len(self.position)
    }

    /// Takes the next bytes of the file and appends to `out` what is to be written next.
    ///
    /// - Suite 1: as many bytes.
    /// - Suite 2: the chunks that are now full, maybe none, and behind each 2^16 of them their
    ///   tags. The rest, less than a chunk, waits inside until more comes or the encryptor is
    ///   [finished](Self::finish).
    /// - Suite 3: one frame of 20 bytes more; nothing for no bytes.
    ///
    /// # Errors
    /// [`FileTooLarge`](crate::ErrorKind::FileTooLarge),
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for more than
    /// [`FRAME_LEN_MAX`](crate::FRAME_LEN_MAX) bytes in suite 3,
    /// [`CmekRevoked`](crate::ErrorKind::CmekRevoked), [`Poisoned`](crate::ErrorKind::Poisoned) in a
    /// forked child. Nothing was taken then, and `out` is as it was.
    pub fn append(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<()> {
        let old_len = out.len();
        let appended = self.put(plaintext, &mut Output::new(out));
        if appended.is_err() {
            out.truncate(old_len);
        }
        appended
    }

    /// [`append`](Self::append) to any place.
    pub(crate) fn put(&mut self, plaintext: &[u8], out: &mut Output<'_>) -> Result<()> {
        self.check_process()?;
        self.sealer.append(&self.slot, self.position, plaintext, out)?;
        self.advance(plaintext.len());
        Ok(())
    }

    /// [`put`](Self::put) of several appends, of which none is taken after an error.
    pub(crate) fn put_many(&mut self, appends: &[&[u8]], out: &mut Output<'_>) -> Result<()> {
        self.check_process()?;
        self.sealer.append_many(&self.slot, self.position, appends, out)?;
        self.advance(appends.iter().map(|append| append.len()).sum());
        Ok(())
    }

    /// Ends the file: appends to `out` the last chunk of suite 2, the tags and the end; nothing
    /// in other suites.
    ///
    /// A file of suite 2 without them is refused by every reader.
    ///
    /// # Errors
    /// [`CmekRevoked`](crate::ErrorKind::CmekRevoked), [`Poisoned`](crate::ErrorKind::Poisoned) in a
    /// forked child. The file cannot be ended any more then.
    pub fn finish(mut self, out: &mut Vec<u8>) -> Result<()> {
        self.end(out)
    }

    /// [`finish`](Self::finish), leaving the lengths to be asked for. Nothing may be
    /// appended afterwards.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) -> Result<()> {
        self.put_end(&mut Output::new(out))
    }

    /// [`end`](Self::end) to any place.
    pub(crate) fn put_end(&mut self, out: &mut Output<'_>) -> Result<()> {
        self.check_process()?;
        self.sealer.finish(&self.slot, self.position, out)
    }

    /// How a writer is to hand over what it is given.
    pub(crate) fn intake(&self) -> Intake {
        self.sealer.intake()
    }

    /// Whether the key is still here, for what does not use it but must stop with it.
    ///
    /// # Errors
    /// [`CmekRevoked`](crate::ErrorKind::CmekRevoked).
    pub fn check_access(&self) -> Result<()> {
        self.slot.check()
    }

    /// Encrypts the next bytes of the file where they stand.
    ///
    /// # Errors
    /// [`FileTooLarge`](crate::ErrorKind::FileTooLarge),
    /// [`CmekRevoked`](crate::ErrorKind::CmekRevoked), [`Poisoned`](crate::ErrorKind::Poisoned) in a
    /// forked child, [`UnsupportedFeature`](crate::ErrorKind::UnsupportedFeature) for a suite that
    /// changes lengths. `buf` is then unchanged and the position stays.
    pub fn encrypt_in_place(&mut self, buf: &mut [u8]) -> Result<()> {
        self.check_process()?;
        stream::apply_in_place(&self.slot, self.position, buf)?;
        self.advance(buf.len());
        Ok(())
    }

    /// Encrypts the next bytes of the file from `plaintext` into `ciphertext`, in one pass.
    ///
    /// # Errors
    /// Those of [`encrypt_in_place`](Self::encrypt_in_place), and
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) if the lengths differ.
    pub fn encrypt(&mut self, plaintext: &[u8], ciphertext: &mut [u8]) -> Result<()> {
        self.check_process()?;
        stream::apply(&self.slot, self.position, plaintext, ciphertext)?;
        self.advance(plaintext.len());
        Ok(())
    }

    /// Refuses in a forked child, which must not go on writing its parent's file.
    pub(crate) fn check_process(&self) -> Result<()> {
        self.process
            .check("a forked child, or a copy of the machine, cannot go on writing this file")
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

#[cfg(test)]
mod tests;
