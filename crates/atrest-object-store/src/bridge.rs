//! From blocking code to an async store.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use atrest::{Error, ErrorKind};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A runtime of its own, with one thread, so that blocking code may wait for a request
/// inside and outside of any other runtime.
#[derive(Debug)]
pub(crate) struct Bridge {
    runtime: Handle,
    /// Ends the thread when it is dropped. Nobody waits for that.
    _running: oneshot::Sender<()>,
    timeout: Duration,
}

/// Nobody knows whether the request was carried out.
pub(crate) struct NoAnswer(pub(crate) Error);

impl Bridge {
    pub(crate) fn new(timeout: Duration) -> atrest::Result<Self> {
        let fail = |error| Error::io("no thread for the keyring's object store", error);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(fail)?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel();
        // Not one of tokio's own, which panics where no thread can be started.
        std::thread::Builder::new()
            .name("atrest-keyring-store".into())
            .spawn(move || drop(runtime.block_on(ended)))
            .map_err(fail)?;
        Ok(Self { runtime: handle, _running: running, timeout })
    }

    pub(crate) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Carries out one request and waits for it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        request: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let (done, outcome) = mpsc::sync_channel(1);
        let timeout = self.timeout;
        self.runtime.spawn(async move {
            // The receiver waits for as long as this task lives.
            drop(done.send(tokio::time::timeout(timeout, request).await));
        });
        match outcome.recv() {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => {
                let what = format!("the object store did not answer within {timeout:?}");
                Err(NoAnswer(Error::new(ErrorKind::Io(io::ErrorKind::TimedOut), what)))
            }
            Err(_) => {
                let what = "the request to the object store panicked";
                Err(NoAnswer(Error::new(ErrorKind::Io(io::ErrorKind::Other), what)))
            }
        }
    }
}
