//! Access to the customer's key: asking, withdrawing, restoring, being told.

use std::ffi::c_void;

use crate::border::{borrow, guard, put};
use crate::code::Atrest1;
use crate::hook::{Atrest1Access, Atrest1AccessCallback};
use crate::store::Atrest1Store;

/// Calls `callback` with `user` at each change from now on, in any thread, instead of the one
/// before; NULL calls nobody. When this returns, the one before runs no more. When keys are
/// withdrawn they are gone before it is called. It MUST NOT call this function, or close or
/// free the store, and MUST NOT throw an exception or jump out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_access_on_change(
    store: *const Atrest1Store,
    callback: Atrest1AccessCallback,
    user: *mut c_void,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        borrow(store)?.hook().replace(callback, user);
        Ok(())
    })
}

/// Asks the key service now and acts on the answer, as a background thread does every few
/// minutes. What is known then goes to `access`, unless that is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_access_check(
    store: *const Atrest1Store,
    access: *mut Atrest1Access,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        let state = borrow(store)?.store.access().check_now().state;
        if access.is_null() { Ok(()) } else { put(access, state.into(), "the result") }
    })
}

/// Withdraws access: every open file refuses when this returns, and nothing opens the store
/// before `atrest1_access_restore` or `atrest cmek restore`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_access_revoke(store: *const Atrest1Store) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { Ok(borrow(store)?.store.access().revoke()?) })
}

/// Asks the key service again; if it unwraps the key, open files go on where they were.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_access_restore(store: *const Atrest1Store) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe { Ok(borrow(store)?.store.access().restore()?) })
}
