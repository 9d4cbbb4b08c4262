//! From CMEK slots to the store key: wrapping, proving, choosing a slot.

use std::sync::Arc;

use super::body::Body;
use super::format::{Image, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::header::FORMAT_VERSION;
use crate::ids::{StoreId, StoreKeyId};
use crate::kms::{Deadline, Kms, KmsError, KmsErrorKind, WrapContext, WrappedKey};
use crate::secret::StoreKey;

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
    let wrapped = kms.wrap(key, context, deadline)?;
    let proof = kms.unwrap(&wrapped, context, deadline)?;
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

/// Unwraps the store key through one of the slots and authenticates the keyring with it.
///
/// Each slot is paired with the customer's key of its URI. If no key given has a slot's
/// URI, the keys are tried on all slots of their scheme, so that a key file may move. A
/// slot whose service is unreachable or whose blob is refused makes way for the next; a
/// denial ends the search, since a revoked key must not be replaced by another.
pub(super) fn unlock(
    image: &Image,
    kms: &[Arc<dyn Kms>],
    deadline: Deadline,
) -> Result<(Arc<StoreKey>, Body)> {
    let context = context(image.fixed.store_id, image.fixed.store_key_id);
    let mut first_error: Option<Error> = None;
    for (slot, kms) in candidates(&image.slots, kms) {
        let wrapped = WrappedKey { key_version: slot.key_version.clone(), blob: slot.blob.clone() };
        let error = match kms.unwrap(&wrapped, &context, deadline) {
            Ok(key) => match image.authenticate(&key) {
                Ok(body) => return Ok((Arc::new(key), body)),
                Err(error) => error,
            },
            Err(error) if error.kind().denies_access() => return Err(error.into()),
            Err(error) => error.into(),
        };
        first_error.get_or_insert(error);
    }
    Err(first_error.unwrap_or_else(|| {
        let uris: Vec<_> = image.slots.iter().map(|slot| slot.key_uri.as_str()).collect();
        KmsError::new(
            KmsErrorKind::Misconfigured,
            format!("none of the keys given fits the keyring, which wants {}", uris.join(" or ")),
        )
        .into()
    }))
}

fn candidates<'a>(slots: &'a [Slot], kms: &'a [Arc<dyn Kms>]) -> Vec<(&'a Slot, &'a dyn Kms)> {
    let pairs = |fits: &dyn Fn(&Slot, &dyn Kms) -> bool| -> Vec<(&'a Slot, &'a dyn Kms)> {
        slots
            .iter()
            .flat_map(|slot| kms.iter().map(move |kms| (slot, &**kms)))
            .filter(|(slot, kms)| fits(slot, *kms))
            .collect()
    };
    let named = pairs(&|slot, kms| slot.key_uri == kms.key_uri().as_str());
    if !named.is_empty() {
        return named;
    }
    pairs(&|slot, kms| {
        slot.key_uri.split_once(':').is_some_and(|(scheme, _)| scheme == kms.key_uri().scheme())
    })
}
