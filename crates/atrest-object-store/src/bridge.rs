//! From blocking code to an async store.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use atrest::{Error, ErrorKind};
use tokio::runtime::{Builder, Runtime};

/// A runtime of its own, with one thread, so that blocking code may wait for a request
/// inside and outside of any other runtime.
#[derive(Debug)]
pub(crate) struct Bridge {
    /// Taken by `drop` alone.
    runtime: Option<Runtime>,
    timeout: Duration,
}

/// Nobody knows whether the request was carried out.
pub(crate) struct NoAnswer(pub(crate) Error);

impl Bridge {
    pub(crate) fn new(timeout: Duration) -> atrest::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("atrest-keyring-store")
            .enable_all()
            .build()
            .map_err(|error| Error::io("no thread for the keyring's object store", error))?;
        Ok(Self { runtime: Some(runtime), timeout })
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
        let Some(runtime) = &self.runtime else { unreachable!("only `drop` takes the runtime") };
        runtime.spawn(async move {
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

impl Drop for Bridge {
    fn drop(&mut self) {
        // An ordinary drop waits, which panics inside of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
