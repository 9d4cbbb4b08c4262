//! From CMEK slots to the store key: making a slot, proving it, choosing one.

use std::sync::Arc;

use super::body::{Body, KeptSlotKey};
use super::client::{Cancelled, Client, NEVER};
use super::format::{Image, Slot};
use super::options::Options;
use super::wrap::Wrap;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{SlotKeyId, StoreId, StoreKeyId};
use crate::kms::{Deadline, KmsError, KmsErrorKind, LapsedCredential, WrapContext, WrappedKey};
use crate::secret::{SlotKey, StoreKey};
use crate::tags::Tags;

/// Makes a slot with a new slot key, for the store that has this store key. The key
/// service's blob is proven by unwrapping it, before anything depends on it.
pub(super) fn wrap_slot(
    kms: &Client,
    name: &str,
    store_id: StoreId,
    store_key: (StoreKeyId, &StoreKey),
    now_ns: u64,
    deadline: Deadline,
) -> Result<(Slot, KeptSlotKey)> {
    let (slot_key_id, slot_key) = (SlotKeyId::random()?, Arc::new(SlotKey::random()?));
    let context = WrapContext { store_id, slot_key_id, version: WrapContext::VERSION };
    let wrapped = kms.wrap(&slot_key, context, deadline)?;
    prove_wrapped(kms, &wrapped, &slot_key, context, deadline)?;
    let mut slot = Slot {
        name: name.into(),
        key_uri: kms.key_uri().as_str().into(),
        key_version: wrapped.key_version,
        created_ns: now_ns,
        context_version: context.version,
        slot_key_id: *slot_key_id.as_bytes(),
        blob: wrapped.blob,
        store_key: Wrap::ERASED,
        tags: Tags::default(),
    };
    slot.wrap_store_key(&slot_key, store_id, store_key)?;
    Ok((slot, KeptSlotKey::new((slot_key_id, &slot_key), store_id, store_key)?))
}

/// Lets the newest version of a slot's customer's key wrap its slot key, which stays, and
/// proves the blob like a new one.
pub(super) fn rewrap_slot(
    kms: &Client,
    slot: &mut Slot,
    store_id: StoreId,
    slot_key: &SlotKey,
    now_ns: u64,
    deadline: Deadline,
) -> Result<()> {
    let context = slot.context(store_id);
    let wrapped = kms.rewrap(slot.wrapped(), context, deadline)?;
    prove_wrapped(kms, &wrapped, slot_key, context, deadline)?;
    (slot.key_version, slot.blob) = (wrapped.key_version, wrapped.blob);
    slot.created_ns = now_ns;
    Ok(())
}

fn prove_wrapped(
    kms: &Client,
    wrapped: &WrappedKey,
    key: &SlotKey,
    context: WrapContext,
    deadline: Deadline,
) -> Result<()> {
    let proof = kms.unwrap(wrapped.clone(), context, deadline, NEVER)?;
    if proof.same(key) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::WrongStoreKey,
        format!("{}: the key service does not return the key it wrapped", kms.key_uri()),
    ))
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
    pub(super) lapsed: LapsedCredential,
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
    /// The search when a store is opened.
    pub(super) fn opening(options: &Options, strict: bool) -> Self {
        Self {
            prefer: options.slot.clone(),
            barrier: None,
            strict,
            lapsed: options.access.lapsed_credential,
            deadline: Deadline::after(options.kms_deadline),
        }
    }

    /// Unwraps the store key through one of the slots and authenticates the keyring with
    /// it.
    ///
    /// Each slot is paired with the customer's key of its URI. If no key given has a
    /// slot's URI, the keys are tried on all slots of their scheme, so that a key file may
    /// move. A slot whose service is unreachable or does not accept the credentials, or
    /// whose blob is refused, makes way for the next; a denial ends the search, since a revoked key must not be replaced by
    /// another. The time is shared out, so that a slot that does not answer leaves some
    /// to the next.
    pub(super) fn unlock(
        &self,
        image: &Image,
        kms: &[Arc<Client>],
    ) -> Result<(Arc<StoreKey>, Body), Refusal> {
        self.unlock_unless(image, kms, NEVER)
    }

    /// The same, for a caller who may lose interest: what he gets then is worth nothing.
    pub(super) fn unlock_unless(
        &self,
        image: &Image,
        kms: &[Arc<Client>],
        cancelled: Cancelled<'_>,
    ) -> Result<(Arc<StoreKey>, Body), Refusal> {
        let mut first_error: Option<Error> = None;
        let candidates = self.candidates(&image.slots, kms);
        for (index, (slot, kms)) in candidates.iter().enumerate() {
            let left = u32::try_from(candidates.len() - index).unwrap_or(u32::MAX);
            let deadline = Deadline::after(self.deadline.remaining() / left);
            let context = slot.context(image.fixed.store_id);
            let unwrapped = kms.unwrap(slot.wrapped(), context, deadline, cancelled);
            let error = match unwrapped {
                Ok(slot_key) => match open(image, slot, &slot_key) {
                    Ok(opened) => return Ok(opened),
                    Err(error) if error.kind() == ErrorKind::WrongStoreKey => error,
                    // The MAC is right: the body is refused whichever slot leads to it.
                    Err(error) => return Err(error.into()),
                },
                Err(error) if self.lapsed.denies(error.kind()) => {
                    let denied_slot = Some(slot.name.clone());
                    return Err(Refusal { error: error.into(), denied_slot });
                }
                Err(error) => {
                    let lapsed = error.kind() == KmsErrorKind::Unauthenticated;
                    let next = error.kind().is_transient()
                        || error.kind() == KmsErrorKind::Integrity
                        || lapsed
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
        kms: &'a [Arc<Client>],
    ) -> Vec<(&'a Slot, &'a Client)> {
        let pairs = |fits: &dyn Fn(&Slot, &Client) -> bool| -> Vec<(&'a Slot, &'a Client)> {
            kms.iter()
                .flat_map(|kms| slots.iter().map(move |slot| (slot, &**kms)))
                .filter(|(slot, kms)| fits(slot, kms))
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

/// From a slot's key to the store key, and to what it authenticates.
fn open(image: &Image, slot: &Slot, slot_key: &SlotKey) -> Result<(Arc<StoreKey>, Body)> {
    let fixed = &image.fixed;
    let key = slot.unwrap_store_key(slot_key, fixed.store_id, fixed.store_key_id)?;
    let body = image.authenticate(&key)?;
    Ok((Arc::new(key), body))
}

fn none_fits(slots: &[Slot]) -> Error {
    let uris: Vec<_> = slots.iter().map(|slot| slot.key_uri.as_str()).collect();
    let what =
        format!("none of the keys given fits the keyring, which wants {}", uris.join(" or "));
    KmsError::new(KmsErrorKind::Misconfigured, what).into()
}

#[cfg(test)]
mod tests;
