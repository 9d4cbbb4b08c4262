#![doc = include_str!("../README.md")]
#![allow(unsafe_code, reason = "the border to C++; ARCHITECTURE.md lists it")]

use std::ffi::c_void;

use atrest::Store;
use atrest_c::Atrest1Store;
use librocksdb_sys::rocksdb_env_t;
use rocksdb::Env;

// SAFETY: as `env.cc` has it.
unsafe extern "C" {
    /// `store` is an `Atrest1Store`, whose layout is nobody's business there.
    fn atrest_rocksdb_env(store: *mut c_void) -> *mut rocksdb_env_t;
}

/// RocksDB's environment with its files in `store`: for `Options::set_env`, and for backups.
///
/// Threads and clock are those of RocksDB's default environment. Any number of databases and
/// environments can be over one store, which stays open until the last of them is gone.
///
/// # Panics
/// If the RocksDB that is linked is not the one whose headers this crate was compiled with.
#[must_use]
pub fn env(store: &Store) -> Env {
    let handle = Box::into_raw(Box::new(Atrest1Store::from(store.clone())));
    // SAFETY: it takes the handle, which nobody else has, and frees it with `atrest1_store_free`,
    // which is made for a handle in a box.
    let env = unsafe { atrest_rocksdb_env(handle.cast()) };
    assert!(!env.is_null(), "expected the RocksDB of the headers, found another");
    // SAFETY: it is new, and belongs to whoever called.
    unsafe { Env::from_raw(env) }
}
