//! The customer's keys that this process was given.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use super::client::Client;
use super::options::Options;
use super::unlock::Search;
use crate::error::Result;
use crate::kms::{Deadline, KmsError, KmsErrorKind, LapsedCredential};
use crate::sync::Mutex;

pub(super) struct CustomerKeys {
    given: Mutex<Vec<Arc<Client>>>,
    /// For all calls of one operation.
    longest: Duration,
    /// The slot to ask first.
    slot: Option<String>,
    lapsed: LapsedCredential,
}

impl CustomerKeys {
    pub(super) fn new(given: Vec<Arc<Client>>, options: &Options) -> Self {
        Self {
            given: Mutex::new(given),
            longest: options.kms_deadline,
            slot: options.slot.clone(),
            lapsed: options.access.lapsed_credential,
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        self.given().clone()
    }

    /// The end of an operation that begins now.
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.longest)
    }

    /// A patient search for the store key that ends at the first mistake.
    pub(super) fn search(&self, barrier: Option<String>) -> Search {
        Search { strict: true, ..self.lenient_search(barrier, self.deadline()) }
    }

    /// A search that passes over mistakes, for a store that is open already.
    pub(super) fn lenient_search(&self, barrier: Option<String>, deadline: Deadline) -> Search {
        let (prefer, lapsed) = (self.slot.clone(), self.lapsed);
        Search { prefer, barrier, strict: false, lapsed, deadline }
    }

    /// The key of this URI.
    ///
    /// # Errors
    /// [`Kms`](crate::ErrorKind::Kms) of `Misconfigured` if it was not given.
    pub(super) fn of_uri(&self, key_uri: &str) -> Result<Arc<Client>> {
        let found = self.given().iter().find(|kms| kms.key_uri().as_str() == key_uri).cloned();
        found.ok_or_else(|| {
            KmsError::new(
                KmsErrorKind::Misconfigured,
                format!("the keyring has a slot for {key_uri}, and no such key was given"),
            )
            .into()
        })
    }

    /// Takes a new key in, in the place of an old one of its URI: two passphrases have one
    /// URI.
    pub(super) fn take(&self, new: Arc<Client>) {
        let mut given = self.given();
        match given.iter_mut().find(|old| old.key_uri() == new.key_uri()) {
            Some(old) => *old = new,
            None => given.push(new),
        }
    }

    pub(super) fn drop_uri(&self, key_uri: &str) {
        self.given().retain(|kms| kms.key_uri().as_str() != key_uri);
    }

    pub(super) fn replace_all(&self, only: Arc<Client>) {
        *self.given() = vec![only];
    }

    fn given(&self) -> MutexGuard<'_, Vec<Arc<Client>>> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
