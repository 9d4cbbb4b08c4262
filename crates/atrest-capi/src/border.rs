//! The border: what comes of C's pointers, and what C gets of errors and panics.
//!
//! Each `unsafe fn` here asks of its caller what the header's rules ask of C: that a pointer is
//! NULL or valid for the length that came with it, and stays so for the call.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::ffi::{CStr, CString, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use crate::code::Atrest1;

/// Why a call failed.
pub(crate) struct Fault {
    code: Atrest1,
    text: String,
}

impl Fault {
    pub(crate) fn new(code: Atrest1, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(Atrest1::InvalidArgument, text)
    }
}

impl From<atrest::Error> for Fault {
    fn from(error: atrest::Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self { code: error.kind().into(), text }
    }
}

impl From<atrest::kms::KmsError> for Fault {
    fn from(error: atrest::kms::KmsError) -> Self {
        atrest::Error::from(error).into()
    }
}

pub(crate) type Outcome<T = ()> = Result<T, Fault>;

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// The text of the last call of this thread that failed; empty if none did. It is valid until
/// the next one fails, or the thread ends. It holds no key material.
#[unsafe(no_mangle)]
pub extern "C" fn atrest1_error_text() -> *const c_char {
    // A thread that ends may have lost its text already.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

fn remember(text: String) {
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    let _gone_with_the_thread = LAST.try_with(|last| last.replace(text));
}

/// Runs one call: no panic leaves it.
pub(crate) fn guard(run: impl FnOnce() -> Outcome) -> Atrest1 {
    // Unwind safe: what a handle keeps behind a lock is poisoned with it, and the rest is the
    // library's, which holds to that by itself.
    let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| {
        // Dropping it may panic again.
        std::mem::forget(payload);
        Err(Fault::new(Atrest1::Panic, "a panic was caught inside the library"))
    });
    match outcome {
        Ok(()) => Atrest1::Ok,
        Err(Fault { code, text }) => {
            remember(text);
            code
        }
    }
}

/// What a handle keeps for one call at a time.
pub(crate) fn lock<T>(kept: &Mutex<T>) -> Outcome<MutexGuard<'_, T>> {
    kept.lock().map_err(|_| Fault::new(Atrest1::Poisoned, "an earlier call panicked"))
}

/// Makes a handle. `out` holds NULL if that fails, and nothing is made if there is no `out`.
///
/// # Safety
/// `out` is NULL or may be written to.
pub(crate) unsafe fn give<T>(out: *mut *mut T, make: impl FnOnce() -> Outcome<T>) -> Outcome {
    // SAFETY: this function's own rule.
    unsafe { put(out, std::ptr::null_mut(), "the result") }?;
    let handle = Box::into_raw(Box::new(make()?));
    // SAFETY: this function's own rule.
    unsafe { put(out, handle, "the result") }
}

/// Takes a handle back.
///
/// # Safety
/// `handle` is NULL or came from [`give`], and nobody uses it any more.
pub(crate) unsafe fn take<T>(handle: *mut T) -> Option<Box<T>> {
    // SAFETY: `give` made it of a box, and it is given back once.
    (!handle.is_null()).then(|| unsafe { Box::from_raw(handle) })
}

/// Frees a handle. A panic in a destructor stays here.
///
/// # Safety
/// As [`take`].
pub(crate) unsafe fn free<T>(handle: *mut T) {
    guard(|| {
        // SAFETY: this function's own rule.
        drop(unsafe { take(handle) });
        Ok(())
    });
}

/// # Safety
/// `handle` is NULL or a handle of this type that lives as long as the call.
pub(crate) unsafe fn borrow<'a, T>(handle: *const T) -> Outcome<&'a T> {
    // SAFETY: this function's own rule.
    unsafe { handle.as_ref() }.ok_or_else(|| null("a handle"))
}

/// # Safety
/// `out` is NULL or may be written to.
pub(crate) unsafe fn put<T>(out: *mut T, value: T, what: &str) -> Outcome {
    if out.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL, so this function's own rule. What was there is not dropped.
    unsafe { out.write(value) };
    Ok(())
}

/// # Safety
/// `text` is NULL or ends in a zero byte, and lives as long as the call.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &str) -> Outcome<&'a str> {
    // SAFETY: this function's own rule.
    let text = unsafe { c_string(text, what) }?;
    text.to_str().map_err(|_| Fault::invalid(format!("expected {what} in UTF-8")))
}

/// # Safety
/// As [`text`].
pub(crate) unsafe fn path<'a>(path: *const c_char) -> Outcome<&'a Path> {
    // SAFETY: this function's own rule.
    let path = unsafe { c_string(path, "a path") }?;
    Ok(Path::new(OsStr::from_bytes(path.to_bytes())))
}

/// # Safety
/// As [`text`].
unsafe fn c_string<'a>(text: *const c_char, what: &str) -> Outcome<&'a CStr> {
    if text.is_null() {
        return Err(null(what));
    }
    // SAFETY: not NULL, so this function's own rule.
    Ok(unsafe { CStr::from_ptr(text) })
}

/// # Safety
/// `data` is NULL or may be read for `len` bytes, which nobody changes during the call.
pub(crate) unsafe fn bytes<'a>(data: *const u8, len: usize) -> Outcome<&'a [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    check_bytes(data, len)?;
    // SAFETY: not NULL and no longer than memory can be, so this function's own rule.
    Ok(unsafe { std::slice::from_raw_parts(data, len) })
}

/// # Safety
/// `data` is NULL or may be read and written for `len` bytes, which nobody else uses during the
/// call.
pub(crate) unsafe fn bytes_mut<'a>(data: *mut u8, len: usize) -> Outcome<&'a mut [u8]> {
    if len == 0 {
        return Ok(&mut []);
    }
    check_bytes(data, len)?;
    // SAFETY: not NULL and no longer than memory can be, so this function's own rule.
    Ok(unsafe { std::slice::from_raw_parts_mut(data, len) })
}

fn check_bytes(data: *const u8, len: usize) -> Outcome {
    if data.is_null() {
        return Err(null("memory"));
    }
    if isize::try_from(len).is_err() {
        return Err(Fault::invalid(format!("no memory has {len} bytes")));
    }
    Ok(())
}

fn null(what: &str) -> Fault {
    Fault::invalid(format!("expected {what}, found NULL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        // SAFETY: the text lives until the next failure of this thread.
        unsafe { CStr::from_ptr(atrest1_error_text()) }.to_string_lossy().into_owned()
    }

    struct PanicsAgain;

    impl Drop for PanicsAgain {
        fn drop(&mut self) {
            panic!("and again");
        }
    }

    #[test]
    fn a_panic_becomes_a_code() {
        assert_eq!(guard(|| panic!("inside")), Atrest1::Panic);
        assert!(last().contains("panic"), "{}", last());
        assert_eq!(guard(|| std::panic::panic_any(PanicsAgain)), Atrest1::Panic);
        let dropped: *mut PanicsAgain = Box::into_raw(Box::new(PanicsAgain));
        // SAFETY: made of a box, and freed once.
        unsafe { free(dropped) };
    }

    #[test]
    fn what_panicked_takes_no_more() {
        let kept = Mutex::new(0);
        let code = guard(|| {
            let _held = lock(&kept)?;
            panic!("inside")
        });
        assert_eq!(code, Atrest1::Panic);
        assert_eq!(guard(|| lock(&kept).map(drop)), Atrest1::Poisoned);
    }

    #[test]
    fn a_text_stays_until_the_next_failure_and_in_its_thread() {
        let fail = |text: &'static str| guard(move || Err(Fault::invalid(text)));
        assert_eq!(fail("one\0two"), Atrest1::InvalidArgument);
        assert_eq!(guard(|| Ok(())), Atrest1::Ok);
        assert_eq!(last(), "one two");
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(last(), ""));
        });
    }
}
