//! Whom a store tells of changes, and what it says.

use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

use atrest::keyring::{AccessState, Transition};

/// What is known of access to the customer's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Atrest1Access {
    /// The last check was good.
    Active = 0,
    /// No clear answer; grace is running. Files work.
    Unreachable = 1,
    /// Denied, not yet confirmed. Files work.
    Suspect = 2,
    /// Denied, or withdrawn on request. No key is in memory.
    Revoked = 3,
    /// The key is disabled or about to be deleted. No key is in memory.
    Disabled = 4,
    /// The key is gone. No key is in memory.
    Destroyed = 5,
    /// No clear answer for too long. No key is in memory.
    Suspended = 6,
    /// Access is back and files work again.
    Restored = 7,
    /// A state that this version of the interface has no number for.
    Other = 99,
}

impl From<AccessState> for Atrest1Access {
    fn from(state: AccessState) -> Self {
        match state {
            AccessState::Active => Self::Active,
            AccessState::Unreachable => Self::Unreachable,
            AccessState::Suspect => Self::Suspect,
            AccessState::Revoked => Self::Revoked,
            AccessState::Disabled => Self::Disabled,
            AccessState::Destroyed => Self::Destroyed,
            AccessState::Suspended => Self::Suspended,
            AccessState::Restored => Self::Restored,
            _ => Self::Other,
        }
    }
}

/// Told of each change: what was, what is, and the pointer that was given with it.
pub type Atrest1AccessCallback =
    Option<unsafe extern "C" fn(user: *mut c_void, was: Atrest1Access, is: Atrest1Access)>;

#[derive(Clone, Copy)]
struct Callback {
    function: unsafe extern "C" fn(*mut c_void, Atrest1Access, Atrest1Access),
    user: *mut c_void,
}

// SAFETY: the pointer is handed to its owner's function and never followed here; that the
// function may be called in any thread is the rule of `atrest1_access_on_change`.
unsafe impl Send for Callback {}

/// The callback of one store. It is called under the lock, so that nobody is in it any more
/// when it was replaced.
#[derive(Default)]
pub(crate) struct Hook(Mutex<Option<Callback>>);

impl Hook {
    pub(crate) fn call(&self, change: &Transition) {
        let callback = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Callback { function, user }) = *callback {
            // SAFETY: the rule of `atrest1_access_on_change`: both are valid until replaced.
            unsafe { function(user, change.from.into(), change.to.into()) };
        }
    }

    pub(crate) fn replace(&self, callback: Atrest1AccessCallback, user: *mut c_void) {
        let callback = callback.map(|function| Callback { function, user });
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = callback;
    }

    /// Nobody is called any more.
    pub(crate) fn clear(&self) {
        self.replace(None, std::ptr::null_mut());
    }
}
