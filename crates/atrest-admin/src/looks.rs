//! Looks at storage, which may hang for good.

use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::rpc::{Code, RpcError};

/// Looks of one kind, one at a time: who comes while one runs gets its result. So a storage
/// that hangs takes one thread, however many ask.
pub(crate) struct Looks<T> {
    last: Mutex<Option<watch::Receiver<Option<T>>>>,
}

impl<T> Default for Looks<T> {
    fn default() -> Self {
        Self { last: Mutex::default() }
    }
}

impl<T: Clone + Send + Sync + 'static> Looks<T> {
    /// The result of the look that runs, or of a new one.
    pub(crate) async fn take(
        &self,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, RpcError> {
        let mut result = self.running_or(look)?;
        let result = result.wait_for(Option::is_some).await;
        result.ok().and_then(|result| result.clone()).ok_or_else(RpcError::panicked)
    }

    fn running_or(
        &self,
        look: impl FnOnce() -> T + Send + 'static,
    ) -> Result<watch::Receiver<Option<T>>, RpcError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // The one that is kept has seen nothing; a look that ended left a result, or nobody who
        // could send one.
        let running = |result: &&watch::Receiver<_>| matches!(result.has_changed(), Ok(false));
        if let Some(result) = last.as_ref().filter(running) {
            return Ok(result.clone());
        }
        let (ended, result) = watch::channel(None);
        in_a_thread(move || drop(ended.send(Some(look()))))?;
        Ok(last.insert(result).clone())
    }
}

/// Runs `work` in a thread of its own: those of a runtime are counted, and shared with whatever
/// else may hang.
///
/// # Errors
/// `UNAVAILABLE` if the system gives none; `work` did not run then.
pub(crate) fn in_a_thread(work: impl FnOnce() + Send + 'static) -> Result<(), RpcError> {
    let thread = std::thread::Builder::new().name("atrest-admin".into()).spawn(work);
    let none = |_| RpcError::new(Code::Unavailable, "the system gives no thread for it");
    thread.map(drop).map_err(none)
}
