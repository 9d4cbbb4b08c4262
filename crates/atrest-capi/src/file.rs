//! Whole files, in any suite: written from the first byte to the last, read anywhere.

use std::ffi::c_char;
use std::sync::Mutex;

use atrest::fs::TornReason;
use atrest::{FileSpec, Reader, Store, Suite, Writer};

use crate::border::{Fault, Outcome, borrow, bytes, bytes_mut, free, give, guard, lock, path, put};
use crate::code::Atrest1;
use crate::context::{expect, kind_of};
use crate::store::Atrest1Store;

/// A new file.
pub struct Atrest1Writer(Mutex<Option<Writer>>);

/// A file open for reading.
pub struct Atrest1Reader {
    reader: Reader,
    /// While a key is in memory somebody has to watch over it. A writer does that by itself.
    _watch: Store,
}

const _: fn() = || {
    fn any_thread<T: Send + Sync>() {}
    any_thread::<Atrest1Writer>();
    any_thread::<Atrest1Reader>();
};

/// Creates a file that must not exist, under a fresh key. `kind`: 1 table, 2 log, 3 manifest,
/// 4 blob, 5 other, 6 temporary (its key is in memory alone). `file_id` names it for the engine;
/// 0 for none. `suite`: 0 for what the store's settings ask for, or 1 (counter mode, the default
/// without settings; changes are not noticed), 2 (authenticated chunks: for tables; readable once
/// finished), 3 (authenticated appends: for logs).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_writer_create(
    store: *const Atrest1Store,
    file: *const c_char,
    kind: u32,
    file_id: u64,
    suite: u32,
    writer: *mut *mut Atrest1Writer,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        give(writer, || {
            let mut spec = FileSpec::new(kind_of(kind)?).file_id(file_id);
            if suite != 0 {
                spec = spec.suite(suite_of(suite)?);
            }
            let new = borrow(store)?.store.files().create_new(path(file)?, spec)?;
            Ok(Atrest1Writer(Mutex::new(Some(new))))
        })
    })
}

fn suite_of(number: u32) -> Outcome<Suite> {
    let found = Suite::ALL.into_iter().find(|suite| u32::from(suite.number()) == number);
    found.ok_or_else(|| Fault::invalid(format!("expected a suite from 0 to 3, found {number}")))
}

/// # Safety
/// The header's rules.
unsafe fn with_writer<T>(
    writer: *const Atrest1Writer,
    run: impl FnOnce(&mut Writer) -> Outcome<T>,
) -> Outcome<T> {
    // SAFETY: this function's own rule.
    let mut kept = lock(unsafe { &borrow(writer)?.0 })?;
    run(kept.as_mut().ok_or_else(finished)?)
}

fn finished() -> Fault {
    Fault::new(Atrest1::Poisoned, "the file is finished")
}

/// Appends bytes. They are durable after a sync or the end. In suite 3 each append is read back
/// as a whole or not at all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_writer_append(
    writer: *const Atrest1Writer,
    data: *const u8,
    len: usize,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { with_writer(writer, |writer| Ok(writer.append(bytes(data, len)?)?)) })
}

/// Hands all that was appended to the system, without making it durable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_writer_flush(writer: *const Atrest1Writer) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { with_writer(writer, |writer| Ok(writer.flush()?)) })
}

/// Makes all that was appended durable; in suite 2 only the chunks that are full.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_writer_sync(writer: *const Atrest1Writer) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { with_writer(writer, |writer| Ok(writer.sync()?)) })
}

/// Bytes appended so far.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_writer_position(
    writer: *const Atrest1Writer,
    position: *mut u64,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        let at = with_writer(writer, |writer| Ok(writer.position()))?;
        put(position, at, "the result")
    })
}

/// Ends the file, and with `durable` makes its content durable; its name is so after
/// `atrest1_sync_directory`. Afterwards the writer can only be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_writer_finish(
    writer: *const Atrest1Writer,
    durable: bool,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        let writer = lock(&borrow(writer)?.0)?.take().ok_or_else(finished)?;
        if durable {
            writer.finish()?
        } else {
            writer.finish_unsynced()?
        };
        Ok(())
    })
}

/// Frees it. A file that was not finished loses what was not synced, as in a crash, and in
/// suite 2 is never readable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_writer_free(writer: *mut Atrest1Writer) {
    // SAFETY: the header's rules.
    unsafe { free(writer) }
}

/// Opens a file for reading. With `kind` or `file_id` not 0, another file is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_reader_open(
    store: *const Atrest1Store,
    file: *const c_char,
    kind: u32,
    file_id: u64,
    reader: *mut *mut Atrest1Reader,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        give(reader, || {
            let store = &borrow(store)?.store;
            let reader = store.files().open_expecting(path(file)?, &expect(kind, file_id)?)?;
            Ok(Atrest1Reader { reader, _watch: store.clone() })
        })
    })
}

/// The length of its plaintext in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_reader_len(
    reader: *const Atrest1Reader,
    len: *mut u64,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { put(len, borrow(reader)?.reader.len()?, "the result") })
}

/// The length up to the first place that was allocated and never written, as a power cut leaves
/// it; that of the plaintext where there is none. In suite 1 what is behind reads as noise: a
/// recovery reads no further. Up to 15 bytes in front of it may be unwritten too. Reads the file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_reader_written_len(
    reader: *const Atrest1Reader,
    len: *mut u64,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { put(len, borrow(reader)?.reader.written_len()?, "the result") })
}

/// Why a log in suite 3 ends before its file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Atrest1Torn {
    /// It does not; or another suite.
    No = 0,
    /// Its last append was cut off by a crash, or is being written.
    Cut = 1,
    /// Zeros, which a crash left.
    Zeros = 2,
    /// Damage: a length that no append has.
    Length = 3,
    /// Damage, or a part of an append that a crash left unwritten.
    Authentication = 4,
    /// A reason that this version of the interface has no number for.
    Other = 99,
}

/// Why the log ends where it does, as of opening or of the last look behind its end. An engine
/// that reads to the end MUST ask: damage looks like the end of a shorter log.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_reader_torn(
    reader: *const Atrest1Reader,
    torn: *mut Atrest1Torn,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        let why = match borrow(reader)?.reader.torn().map(|torn| torn.reason) {
            None => Atrest1Torn::No,
            Some(TornReason::Cut) => Atrest1Torn::Cut,
            Some(TornReason::Zeros) => Atrest1Torn::Zeros,
            Some(TornReason::Length) => Atrest1Torn::Length,
            Some(TornReason::Authentication) => Atrest1Torn::Authentication,
            Some(_) => Atrest1Torn::Other,
        };
        put(torn, why, "the result")
    })
}

/// Reads up to `len` bytes at `offset`; fewer only at the end of the file. How many goes to
/// `count`. After an error `data` holds zeros.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_reader_read_at(
    reader: *const Atrest1Reader,
    offset: u64,
    data: *mut u8,
    len: usize,
    count: *mut usize,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        put(count, 0, "the result")?;
        let read = borrow(reader)?.reader.read_at(bytes_mut(data, len)?, offset)?;
        put(count, read, "the result")
    })
}

/// Frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_reader_free(reader: *mut Atrest1Reader) {
    // SAFETY: the header's rules.
    unsafe { free(reader) }
}
