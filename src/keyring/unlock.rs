//! From CMEK slots to the store key: wrapping, proving, choosing a slot.

use std::sync::Arc;

use super::body::Body;
use super::format::{Image, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::header::FORMAT_VERSION;
use crate::ids::{StoreId, StoreKeyId};
use crate::kms::{Deadline, Kms, KmsError, KmsErrorKind, WrapContext, WrappedKey};
use crate::secret::{StoreKey, scrubbed_deeply};

pub(super) fn context(store_id: StoreId, store_key_id: StoreKeyId) -> WrapContext {
    WrapContext { store_id, store_key_id, format_version: FORMAT_VERSION }
}

/// Wraps the store key and proves the blob by unwrapping it, before anything depends on
/// it.
pub(super) fn wrap_slot(
    kms: &dyn Kms,
    name: &str,
    key: &StoreKey,
    context: &WrapContext,
    now_ns: u64,
    deadline: Deadline,
) -> Result<Slot> {
    let wrapped = scrubbed_deeply(|| kms.wrap(key, context, deadline))?;
    prove_slot(kms, wrapped, name, key, context, now_ns, deadline)
}

/// A slot of a wrapped key, once an unwrap gave the store key back.
pub(super) fn prove_slot(
    kms: &dyn Kms,
    wrapped: WrappedKey,
    name: &str,
    key: &StoreKey,
    context: &WrapContext,
    now_ns: u64,
    deadline: Deadline,
) -> Result<Slot> {
    let proof = scrubbed_deeply(|| kms.unwrap(&wrapped, context, deadline))?;
    if !proof.same(key) {
        return Err(Error::new(
            ErrorKind::WrongStoreKey,
            format!("{}: the key service does not return the key it wrapped", kms.key_uri()),
        ));
    }
    Ok(Slot {
        name: name.into(),
        key_uri: kms.key_uri().as_str().into(),
        key_version: wrapped.key_version,
        created_ns: now_ns,
        blob: wrapped.blob,
    })
}

/// How the store key is looked for.
pub(super) struct Search {
    /// The slot to try first; the others follow in the order of the keys given.
    pub(super) prefer: Option<String>,
    /// A slot whose service denied access: no slot after it is tried.
    pub(super) barrier: Option<String>,
    /// Whether a slot that is misconfigured, or whose service is not understood, ends the
    /// search: yes when a store is opened, so that the mistake is seen.
    pub(super) strict: bool,
    pub(super) deadline: Deadline,
}

/// Why no slot gave the store key.
pub(super) struct Refusal {
    pub(super) error: Error,
    /// The slot whose service denied access.
    pub(super) denied_slot: Option<String>,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, denied_slot: None }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl Search {
    /// Unwraps the store key through one of the slots and authenticates the keyring with
    /// it.
    ///
    /// Each slot is paired with the customer's key of its URI. If no key given has a
    /// slot's URI, the keys are tried on all slots of their scheme, so that a key file may
    /// move. A slot whose service is unreachable or whose blob is refused makes way for
    /// the next; a denial ends the search, since a revoked key must not be replaced by
    /// another. The time is shared out, so that a slot that does not answer leaves some
    /// to the next.
    pub(super) fn unlock(
        &self,
        image: &Image,
        kms: &[Arc<dyn Kms>],
    ) -> Result<(Arc<StoreKey>, Body), Refusal> {
        let context = context(image.fixed.store_id, image.fixed.store_key_id);
        let mut first_error: Option<Error> = None;
        let candidates = self.candidates(&image.slots, kms);
        for (index, (slot, kms)) in candidates.iter().enumerate() {
            let left = u32::try_from(candidates.len() - index).unwrap_or(u32::MAX);
            let deadline = Deadline::after(self.deadline.remaining() / left);
            let unwrapped = scrubbed_deeply(|| kms.unwrap(&slot.wrapped(), &context, deadline));
            let error = match unwrapped {
                Ok(key) => match image.authenticate(&key) {
                    Ok(body) => return Ok((Arc::new(key), body)),
                    Err(error) => error,
                },
                Err(error) if error.kind().denies_access() => {
                    let denied_slot = Some(slot.name.clone());
                    return Err(Refusal { error: error.into(), denied_slot });
                }
                Err(error) => {
                    let next = error.kind().is_transient()
                        || error.kind() == KmsErrorKind::Integrity
                        || !self.strict;
                    let error = error.into();
                    if !next {
                        return Err(Refusal::from(error));
                    }
                    error
                }
            };
            first_error.get_or_insert(error);
        }
        Err(first_error.unwrap_or_else(|| none_fits(&image.slots)).into())
    }

    fn candidates<'a>(
        &self,
        slots: &'a [Slot],
        kms: &'a [Arc<dyn Kms>],
    ) -> Vec<(&'a Slot, &'a dyn Kms)> {
        let pairs = |fits: &dyn Fn(&Slot, &dyn Kms) -> bool| -> Vec<(&'a Slot, &'a dyn Kms)> {
            kms.iter()
                .flat_map(|kms| slots.iter().map(move |slot| (slot, &**kms)))
                .filter(|(slot, kms)| fits(slot, *kms))
                .collect()
        };
        let mut found = pairs(&|slot, kms| slot.key_uri == kms.key_uri().as_str());
        if found.is_empty() {
            found = pairs(&|slot, kms| {
                let scheme = slot.key_uri.split_once(':').map(|(scheme, _)| scheme);
                scheme == Some(kms.key_uri().scheme())
            });
        }
        let preferred = |slot: &Slot| self.prefer.as_ref() == Some(&slot.name);
        found.sort_by_key(|(slot, _)| !preferred(slot)); // Stable: the order stays otherwise.
        let barrier = self.barrier.as_ref();
        if let Some(last) = found.iter().rposition(|(slot, _)| Some(&slot.name) == barrier) {
            found.truncate(last + 1);
        }
        found
    }
}

fn none_fits(slots: &[Slot]) -> Error {
    let uris: Vec<_> = slots.iter().map(|slot| slot.key_uri.as_str()).collect();
    let what =
        format!("none of the keys given fits the keyring, which wants {}", uris.join(" or "));
    KmsError::new(KmsErrorKind::Misconfigured, what).into()
}

impl Slot {
    pub(super) fn wrapped(&self) -> WrappedKey {
        WrappedKey { key_version: self.key_version.clone(), blob: self.blob.clone() }
    }
}
