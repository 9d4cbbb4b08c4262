//! The names of a store's files and directories, and of a key file.

use std::ffi::{CStr, c_char};

use atrest::kms::generate_key_file;
use atrest::names::kind_of;

use crate::border::{borrow, guard, path};
use crate::code::Atrest1;
use crate::store::Atrest1Store;

/// Renames a file or directory over whatever is at `to`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_rename(
    store: *const Atrest1Store,
    from: *const c_char,
    to: *const c_char,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { Ok(borrow(store)?.store.files().rename(path(from)?, path(to)?)?) })
}

/// Makes a hard link; `to` must not exist.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_link(
    store: *const Atrest1Store,
    from: *const c_char,
    to: *const c_char,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { Ok(borrow(store)?.store.files().hard_link(path(from)?, path(to)?)?) })
}

/// Removes a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_remove(
    store: *const Atrest1Store,
    file: *const c_char,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { Ok(borrow(store)?.store.files().remove(path(file)?)?) })
}

/// Creates a directory for files of the store, whose parent exists; one that is there already
/// is fine. Where none above it is known to the store it becomes so, by a file in it of which
/// `atrest1_is_reserved` tells: `atrest1_remove_directory` removes it with that file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_create_directory(
    store: *const Atrest1Store,
    directory: *const c_char,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { Ok(borrow(store)?.store.files().create_dir(path(directory)?)?) })
}

/// Removes a directory with nothing in it but what the store put there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_remove_directory(
    store: *const Atrest1Store,
    directory: *const c_char,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { Ok(borrow(store)?.store.files().remove_dir(path(directory)?)?) })
}

/// Whether what has this name in a directory of the store is the library's: no engine lists,
/// reads or removes it. A name, no path.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_is_reserved(name: *const c_char) -> bool {
    // SAFETY: the header's rules.
    !name.is_null() && kind_of(unsafe { CStr::from_ptr(name) }.to_bytes()).is_some()
}

/// Makes creations, renames and removals in a directory durable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_sync_directory(
    store: *const Atrest1Store,
    directory: *const c_char,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { Ok(borrow(store)?.store.files().sync_dir(path(directory)?)?) })
}

/// Tells the store of a directory with files that `atrest1_encryptor_new` made headers for,
/// under its absolute path: they are looked for there before a key is destroyed. Costs nothing
/// if it is below one that is known. One that a store at another place registered, of which this
/// is a copy or which was moved, is refused: `ATREST1_IDENTITY_MISMATCH`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_register_directory(
    store: *const Atrest1Store,
    directory: *const c_char,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { Ok(borrow(store)?.store.directories().register(path(directory)?)?) })
}

/// The same, also for a directory that a store at another place registered: this store was moved,
/// or the directory was restored. Never where that one still uses it: each would rewrite the
/// other's files and destroy its keys.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_take_over_directory(
    store: *const Atrest1Store,
    directory: *const c_char,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { Ok(borrow(store)?.store.directories().take_over(path(directory)?)?) })
}

/// Makes a new key file, for a customer's key `file://PATH`. `file` must not exist.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_generate_key_file(file: *const c_char) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { Ok(generate_key_file(path(file)?)?) })
}
