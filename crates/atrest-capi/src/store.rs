//! Opening a store, its keys, its status.

use std::ffi::{CStr, CString, c_char};
use std::sync::{Arc, Once};

use atrest::Store;
use atrest::kms::Kms;

use crate::border::{Fault, Outcome, borrow, free, give, guard, path, put, take, text};
use crate::code::Atrest1;
use crate::hook::Hook;
use crate::options::{Mode, parse};

/// Bytes of the header in front of every encrypted file.
pub const ATREST1_HEADER_LEN: usize = 4096;
const _: () = assert!(ATREST1_HEADER_LEN == atrest::HEADER_LEN);

/// The version of the interface that this header describes: it rises when a function is added.
pub const ATREST1_ABI: u32 = 1;

/// An open store.
pub struct Atrest1Store {
    pub(crate) store: Store,
    hook: Arc<Hook>,
    hooked: Once,
}

const _: fn() = || {
    fn any_thread<T: Send + Sync>() {}
    any_thread::<Atrest1Store>();
};

/// For Rust that hands a store of its own to C or C++, which frees it. Several handles may be of one
/// store.
impl From<Store> for Atrest1Store {
    fn from(store: Store) -> Self {
        Self { store, hook: Arc::default(), hooked: Once::new() }
    }
}

impl Atrest1Store {
    /// Whom to call at changes. The store never forgets it, so it is told of the first one alone.
    pub(crate) fn hook(&self) -> &Hook {
        self.hooked.call_once(|| {
            let hook = self.hook.clone();
            self.store.access().on_transition(move |change| hook.call(change));
        });
        &self.hook
    }
}

impl Drop for Atrest1Store {
    fn drop(&mut self) {
        // Other handles may keep the keys alive, but nobody is called any more.
        self.hook.clear();
    }
}

/// The version of the interface that the library has: at least the ATREST1_ABI a program was
/// compiled with, or functions are missing.
#[unsafe(no_mangle)]
pub extern "C" fn atrest1_abi() -> u32 {
    ATREST1_ABI
}

/// The version of the library.
#[unsafe(no_mangle)]
pub extern "C" fn atrest1_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("the version has a zero byte"),
        };
    VERSION.as_ptr()
}

/// Opens the store whose keyring is in `directory`, with the customer's key `cmek`: a key URI
/// such as `file:///etc/app/cmek.key`, or several with spaces between to open a store that has
/// several, with mode=open or mode=read-only alone.
///
/// `options` may be NULL, or is a list such as "mode=open;check_interval_s=60":
///
///   mode                   open, create, open-or-create (the default) or read-only
///   store_id               refuse another store than this one
///   slot                   the name of the key to ask first
///   check_interval_s       between two checks of access to the customer's key: 300
///   confirmations          denials in a row before keys are withdrawn: 3
///   confirm_over_s         shortest time between the first and the last of them: 30
///   unreachable_grace_s    how long a key service may not answer: 3600
///   recovery_interval_s    between two checks while access is lost: 60
///   kms_deadline_s         longest time for the calls of one operation: 15
///
/// and, for a store that is created; another keeps its own:
///
///   integrity              confidential (the default) or authenticated, or by kind:
///                          authenticated,table=confidential. Where it is authenticated, files
///                          in suite 1 are refused
///   allow_plaintext        true: files from before encryption can be read
///   rotation_period_s      age at which a data key is replaced: 30 days
///   rotation_bytes         bytes after which it is
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_store_open(
    directory: *const c_char,
    cmek: *const c_char,
    options: *const c_char,
    store: *mut *mut Atrest1Store,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        give(store, || {
            let options = if options.is_null() { "" } else { text(options, "options")? };
            let (mode, options) = parse(options)?;
            let keys = kms_of(text(cmek, "a key URI")?)?;
            let directory = path(directory)?;
            let opened = match mode {
                Mode::Open => Store::open(directory, keys, options),
                Mode::ReadOnly => Store::open_read_only(directory, keys, options),
                Mode::Create => Store::create(directory, one(keys)?, options),
                Mode::OpenOrCreate => Store::open_or_create(directory, one(keys)?, options),
            }?;
            Ok(opened.into())
        })
    })
}

fn kms_of(uris: &str) -> Outcome<Vec<Arc<dyn Kms>>> {
    let keys: Result<Vec<_>, _> = uris.split_ascii_whitespace().map(atrest_kms::from_uri).collect();
    let keys = keys?;
    if keys.is_empty() {
        return Err(Fault::invalid("expected a key URI, found none"));
    }
    Ok(keys)
}

fn one(keys: Vec<Arc<dyn Kms>>) -> Outcome<Arc<dyn Kms>> {
    let [key] = <[_; 1]>::try_from(keys).map_err(|keys| {
        let what = "expected one key URI to create a store with (mode=open takes several)";
        Fault::invalid(format!("{what}, found {}", keys.len()))
    })?;
    Ok(key)
}

/// Frees a store, whatever is returned, and commits what is counted of its keys' use. Files
/// that are open go on; the store stays open, and watched, until the last of them is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_store_close(store: *mut Atrest1Store) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        let Some(owned) = take(store) else { return Ok(()) };
        owned.hook.clear();
        Ok(owned.store.clone().close()?)
    })
}

/// The same for a program that does not ask whether it succeeded.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_store_free(store: *mut Atrest1Store) {
    // SAFETY: the header's rules.
    unsafe { free(store) }
}

/// Starts a new data key: files created from now on are under it. Old files are read as before.
/// Its 16 bytes of id go to `data_key_id`, unless that is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_store_rotate(
    store: *const Atrest1Store,
    data_key_id: *mut u8,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        let id = borrow(store)?.store.keys().rotate()?;
        if !data_key_id.is_null() {
            crate::border::bytes_mut(data_key_id, 16)?.copy_from_slice(id.as_bytes());
        }
        Ok(())
    })
}

/// What the store tells of itself, as one JSON object: `store_id`, `store_key_id`, `generation`,
/// `written_ns`, `slots`, `unlocked`, `settings`, `data_keys`, `history` and `access`. It is
/// freed by `atrest1_string_free`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_store_status_json(
    store: *const Atrest1Store,
    json: *mut *mut c_char,
) -> Atrest1 {
    // SAFETY: the header's rules.
    guard(|| unsafe {
        let store = &borrow(store)?.store;
        let not_json = |error: serde_json::Error| Fault::new(Atrest1::Other, error.to_string());
        let mut status = serde_json::to_value(store.keyring().status()).map_err(not_json)?;
        status["access"] = serde_json::to_value(store.access().status()).map_err(not_json)?;
        // JSON escapes zero bytes.
        let text = CString::new(status.to_string()).unwrap_or_default();
        put(json, std::ptr::null_mut(), "the result")?;
        put(json, text.into_raw(), "the result")
    })
}

/// Frees a string that this library made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn atrest1_string_free(string: *mut c_char) {
    guard(|| {
        if !string.is_null() {
            // SAFETY: `into_raw` made it, and it is given back once.
            drop(unsafe { CString::from_raw(string) });
        }
        Ok(())
    });
}
