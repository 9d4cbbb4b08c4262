//! Files that an engine reads and writes by itself: a header and bytes at offsets.

use std::sync::Mutex;

use atrest::{Decryptor, Encryptor, Expect, FileKind, FileSpec, Header, Store};

use crate::border::{Fault, Outcome, borrow, bytes, bytes_mut, free, give, guard, lock, put};
use crate::code::Atrest1;
use crate::store::{ATREST1_HEADER_LEN, Atrest1Store};

/// Encrypts one new file from its first byte to its last.
pub struct Atrest1Encryptor {
    encryptor: Mutex<Encryptor>,
    /// While a key is in memory somebody has to watch over it.
    _watch: Store,
}

/// Decrypts one file at any offset.
pub struct Atrest1Decryptor {
    decryptor: Decryptor,
    /// As an encryptor's.
    _watch: Store,
}

const _: fn() = || {
    fn any_thread<T: Send + Sync>() {}
    any_thread::<Atrest1Encryptor>();
    any_thread::<Atrest1Decryptor>();
};

/// The kinds of files: 1 table, 2 log, 3 manifest, 4 blob, 5 other, 6 temporary.
pub(crate) fn kind_of(number: u32) -> Outcome<FileKind> {
    let mut kinds = FileKind::ALL.into_iter().chain([FileKind::Temporary]);
    let found = kinds.find(|kind| u32::from(kind.number()) == number);
    found.ok_or_else(|| Fault::invalid(format!("expected a kind from 1 to 6, found {number}")))
}

/// 0 for whatever it is.
pub(crate) fn expect(kind: u32, file_id: u64) -> Outcome<Expect> {
    let kind = if kind == 0 { None } else { Some(kind_of(kind)?) };
    Ok(Expect { kind, file_id: (file_id != 0).then(|| file_id.into()) })
}

/// A fresh key for a new file in counter mode (suite 1), whose ciphertext is as long as its
/// plaintext. The ATREST1_HEADER_LEN bytes that go in front of it are put into `header`.
/// `kind`: 1 table, 2 log, 3 manifest, 4 blob, 5 other, 6 temporary (its key is in
/// memory alone). `file_id` names the file for the engine; 0 for none.
///
/// A store that requires authentication refuses: `atrest1_writer_create` writes its files.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_encryptor_new(
    store: *const Atrest1Store,
    kind: u32,
    file_id: u64,
    header: *mut u8,
    encryptor: *mut *mut Atrest1Encryptor,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        give(encryptor, || {
            let spec = FileSpec::new(kind_of(kind)?).file_id(file_id);
            let store = &borrow(store)?.store;
            let mut new = store.keyring().encryptor(spec)?;
            // Refused now, and not at the first byte: a suite whose ciphertext is longer.
            new.encrypt_in_place(&mut [])?;
            bytes_mut(header, ATREST1_HEADER_LEN)?.copy_from_slice(new.header());
            Ok(Atrest1Encryptor { encryptor: Mutex::new(new), _watch: store.clone() })
        })
    })
}

/// Encrypts where they stand the bytes that go to `offset`, counted from the end of the header.
/// That has to be where the last call ended: no byte of the file is encrypted twice, so a
/// write that failed is tried again with the SAME ciphertext. ATREST1_NOT_SEQUENTIAL otherwise;
/// `data` is then unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_encrypt_at(
    encryptor: *const Atrest1Encryptor,
    offset: u64,
    data: *mut u8,
    len: usize,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        let mut encryptor = lock(&borrow(encryptor)?.encryptor)?;
        let next = encryptor.position();
        if offset != next {
            let text = format!("expected the next offset {next}, found {offset}");
            return Err(Fault::new(Atrest1::NotSequential, text));
        }
        Ok(encryptor.encrypt_in_place(bytes_mut(data, len)?)?)
    })
}

/// The offset of the next byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_encryptor_position(
    encryptor: *const Atrest1Encryptor,
    position: *mut u64,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        put(position, lock(&borrow(encryptor)?.encryptor)?.position(), "the result")
    })
}

/// Frees it. Nothing can be appended to the file any more: an old file's key encrypts nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_encryptor_free(encryptor: *mut Atrest1Encryptor) {
    // SAFETY: the header's rules.
    unsafe { free(encryptor) }
}

/// The key of an existing file in counter mode, from its first ATREST1_HEADER_LEN bytes, or
/// fewer if it is shorter: ATREST1_EMPTY_FILE and ATREST1_TRUNCATED_HEADER are what a crash
/// leaves. With `kind` or `file_id` not 0, another file is refused.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_decryptor_new(
    store: *const Atrest1Store,
    header: *const u8,
    header_len: usize,
    kind: u32,
    file_id: u64,
    decryptor: *mut *mut Atrest1Decryptor,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        give(decryptor, || {
            let parsed = Header::parse(bytes(header, header_len)?)?;
            let store = &borrow(store)?.store;
            let new = store.keyring().decryptor(&parsed, &expect(kind, file_id)?)?;
            // Refused now, and not at the first byte: a suite whose ciphertext is longer.
            new.decrypt_in_place(0, &mut [])?;
            Ok(Atrest1Decryptor { decryptor: new, _watch: store.clone() })
        })
    })
}

/// Decrypts where they stand the bytes read at `offset`, counted from the end of the header.
/// Counter mode does not notice changed bytes. This is XOR with the file's keystream: what
/// comes of bytes that are not the file's MUST NOT leave the process.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_decrypt_at(
    decryptor: *const Atrest1Decryptor,
    offset: u64,
    data: *mut u8,
    len: usize,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        Ok(borrow(decryptor)?.decryptor.decrypt_in_place(offset, bytes_mut(data, len)?)?)
    })
}

/// Frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_decryptor_free(decryptor: *mut Atrest1Decryptor) {
    // SAFETY: the header's rules.
    unsafe { free(decryptor) }
}
