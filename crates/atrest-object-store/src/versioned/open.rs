//! From an object's first bytes to the key of its body.

use std::sync::Arc;
use std::thread;

use super::object_store::Result;
use super::object_store::path::Path;
use atrest::classify::Contents;
use atrest::{
    BODY_LEN_MAX, Decryptor, ErrorKind, Expect, HEADER_LEN, Header, Keyring, PlaintextPolicy,
};
use tokio::sync::{Mutex, oneshot};

use super::body::check_start;
use super::error::refused;
use super::headers::Body;
use crate::policy::ObjectPolicy;

/// Opens headers with the keyring.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    pub(crate) keyring: Keyring,
    /// One reading of the keyring at a time: many objects under one new data key need it
    /// only once.
    reload: Arc<Mutex<()>>,
    pub(crate) policy: ObjectPolicy,
}

impl Opener {
    pub(crate) fn new(keyring: Keyring, policy: ObjectPolicy) -> Self {
        Self { keyring, reload: Arc::default(), policy }
    }

    /// Whether objects that are not encrypted are read as they are.
    pub(crate) fn allows_plaintext(&self) -> bool {
        self.keyring.settings().plaintext == PlaintextPolicy::Allow
    }

    /// Whether an object that begins so is plaintext. A whole header's length is needed,
    /// or the whole object.
    pub(crate) fn is_plaintext(start: &[u8]) -> bool {
        matches!(Contents::of(start), Contents::Empty | Contents::Plaintext | Contents::Unwritten)
    }

    /// The body of an object of `physical_len` bytes that begins with `start`: at least its
    /// first 4096 bytes, or all of it, or else this is an error.
    pub(crate) async fn open(
        &self,
        location: &Path,
        start: &[u8],
        physical_len: u64,
    ) -> Result<Body> {
        check_start(location, start, physical_len)?;
        let body_len = physical_len.saturating_sub(HEADER_LEN as u64);
        // Nothing proves it yet: no caller is to make room for more than an object can have.
        if body_len > BODY_LEN_MAX {
            let what = format!("expected at most {BODY_LEN_MAX} bytes, found {body_len}");
            return Err(refused(location, atrest::Error::new(ErrorKind::FileTooLarge, what)));
        }
        if Self::is_plaintext(start) && self.allows_plaintext() {
            // Its bytes end with access all the same; sizes need none.
            return Ok(Body::Plain(self.keyring.access().flag()));
        }
        let header = start.get(..HEADER_LEN).unwrap_or(start);
        let opened = match Header::parse(header) {
            Ok(header) => self.decryptor(header).await,
            Err(error) => Err(error),
        };
        let body = opened.and_then(|decryptor| Body::new(decryptor, physical_len));
        body.map_err(|error| refused(location, error))
    }

    pub(crate) async fn decryptor(&self, header: Header) -> atrest::Result<Decryptor> {
        let decryptor = self.prove(&header).await?;
        self.policy.check(&header)?;
        Ok(decryptor)
    }

    async fn prove(&self, header: &Header) -> atrest::Result<Decryptor> {
        let expect = Expect::default();
        if let Some(decryptor) = self.keyring.decryptor_if_known(header, &expect)? {
            return Ok(decryptor);
        }
        let _alone = self.reload.lock().await;
        if let Some(decryptor) = self.keyring.decryptor_if_known(header, &expect)? {
            return Ok(decryptor);
        }
        let (keyring, header) = (self.keyring.clone(), header.clone());
        blocking(move || keyring.decryptor(&header, &expect)).await
    }
}

/// Runs what reads the keyring, and perhaps calls the key service, in a thread of its own,
/// under any runtime or none.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> atrest::Result<T> + Send + 'static,
) -> atrest::Result<T> {
    let (done, outcome) = oneshot::channel();
    thread::Builder::new()
        .name("atrest-reload".into())
        // The receiver is gone if the read was given up.
        .spawn(move || drop(done.send(work())))
        .map_err(|error| atrest::Error::io("no thread for reading the keyring", error))?;
    outcome.await.unwrap_or_else(|_| {
        let what = "the thread that read the keyring panicked";
        Err(atrest::Error::new(ErrorKind::Io(std::io::ErrorKind::Other), what))
    })
}
