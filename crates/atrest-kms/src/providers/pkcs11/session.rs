//! One call: a session, a login, the key, and the operation.

use atrest::kms::{KmsError, KmsErrorKind};
use cryptoki::context::Pkcs11 as Library;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::{Mechanism as Call, MechanismType};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use zeroize::{Zeroize, Zeroizing};

use super::answer::error;
use super::blob::{Blob, IV_LEN, WRAPPED_LEN, aad};
use super::key_name::{KeyName, Mechanism};
use super::module::initialize;
use super::pin::WrongPin;
use crate::fail::{fail, integrity, misconfigured, protocol};
use crate::secret::Secret;

const TAG_BITS: u64 = 128;
/// Key, context and zeros up to whole blocks of 8, as AES-KEY-WRAP-PAD wraps them: SoftHSM
/// 2.6 keeps the padding that it should cut.
const BOUND_LEN: usize = 72;

/// A session that is logged in, with the key found.
pub(super) struct Open<'a> {
    library: &'a Library,
    slot: Slot,
    session: Session,
    key: ObjectHandle,
}

/// Logs in, finds the key and runs `work`.
pub(super) fn open<T>(
    library: &Library,
    key: &KeyName,
    pin: &Secret,
    wrong: &WrongPin,
    work: impl FnOnce(&Open<'_>) -> Result<T, KmsError>,
) -> Result<T, KmsError> {
    if let Err(Error::Pkcs11(RvError::CryptokiNotInitialized, _)) = library.get_library_info() {
        // Another part of the process ended its own use of the library, and ours with it.
        initialize(library)?;
    }
    let slot = find_slot(library, key)?;
    let session = library.open_ro_session(slot).map_err(error)?;
    match session.login(UserType::User, Some(&AuthPin::from(pin.expose()))) {
        // Another part of the process is logged in to this token.
        Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
        Err(e) => {
            // A locked token looks at no PIN: this one may be good once it is unlocked.
            if let Error::Pkcs11(RvError::PinIncorrect, _) = e {
                wrong.remember(pin);
            }
            return Err(error(e));
        }
    }
    let key = find_key(&session, key)?;
    // Closing the last session of a token logs out; the log-in of others, who have sessions of
    // their own, stays, since nothing here logs out by itself.
    work(&Open { library, slot, session, key })
}

fn find_slot(library: &Library, key: &KeyName) -> Result<Slot, KmsError> {
    let named = |expected: &Option<String>, found: &str| {
        expected.as_ref().is_none_or(|expected| expected == found.trim_end())
    };
    for slot in library.get_slots_with_token().map_err(error)? {
        let Ok(info) = library.get_token_info(slot) else { continue };
        if named(&key.token, info.label()) && named(&key.serial, info.serial_number()) {
            return Ok(slot);
        }
    }
    Err(fail(KmsErrorKind::Unreachable, "no token of that name is present"))
}

fn find_key(session: &Session, key: &KeyName) -> Result<ObjectHandle, KmsError> {
    let mut template =
        vec![Attribute::Class(ObjectClass::SECRET_KEY), Attribute::KeyType(KeyType::AES)];
    template.extend(key.object.iter().map(|label| Attribute::Label(label.as_bytes().to_vec())));
    template.extend(key.id.iter().map(|id| Attribute::Id(id.clone())));
    match session.find_objects(&template).map_err(error)?[..] {
        [one] => Ok(one),
        [] => Err(fail(KmsErrorKind::NotFound, "the token has no AES key of that name")),
        ref several => Err(misconfigured(format!(
            "expected one AES key of that name, found {}",
            several.len()
        ))),
    }
}

impl Open<'_> {
    /// AES-GCM where token and key allow it, else AES-KEY-WRAP-PAD.
    pub(super) fn best_mechanism(&self) -> Result<Mechanism, KmsError> {
        let offered = self.library.get_mechanism_list(self.slot).map_err(error)?;
        let wanted = [AttributeType::Encrypt, AttributeType::Wrap];
        let allowed = self.session.get_attributes(self.key, &wanted).map_err(error)?;
        let gcm = offered.contains(&MechanismType::AES_GCM);
        let pad = offered.contains(&MechanismType::AES_KEY_WRAP_PAD);
        if gcm && !allowed.contains(&Attribute::Encrypt(false)) {
            Ok(Mechanism::Gcm)
        } else if pad && !allowed.contains(&Attribute::Wrap(false)) {
            Ok(Mechanism::KeyWrapPad)
        } else if gcm || pad {
            let what = "the key may neither encrypt nor wrap";
            Err(fail(KmsErrorKind::KeyDisabled, what))
        } else {
            Err(misconfigured("the token offers neither AES-GCM nor AES-KEY-WRAP-PAD"))
        }
    }

    pub(super) fn encrypt(&self, key: &[u8; 32], context: &[u8; 34]) -> Result<Blob, KmsError> {
        let mut iv = [0; IV_LEN];
        self.session.generate_random_slice(&mut iv).map_err(error)?;
        let aad = aad(context);
        let sealed = {
            let params = GcmParams::new(&mut iv, &aad, TAG_BITS.into()).map_err(error)?;
            self.session.encrypt(&Call::AesGcm(params), self.key, key).map_err(error)?
        };
        // Modules that choose the IV themselves have written it here.
        Ok(Blob::Gcm { iv, sealed })
    }

    pub(super) fn decrypt(
        &self,
        iv: &[u8; IV_LEN],
        sealed: &[u8],
        context: &[u8; 34],
    ) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let (mut iv, aad) = (*iv, aad(context));
        let params = GcmParams::new(&mut iv, &aad, TAG_BITS.into()).map_err(error)?;
        let key = self.session.decrypt(&Call::AesGcm(params), self.key, sealed).map_err(error)?;
        Ok(Zeroizing::new(key))
    }

    /// Wraps key and context together, as a session object that lasts for this call.
    pub(super) fn wrap(&self, key: &[u8; 32], context: &[u8; 34]) -> Result<Blob, KmsError> {
        let mut bound = [&key[..], context, &[0; BOUND_LEN - 66]].concat();
        let mut template = secret_template();
        template.push(Attribute::Value(bound.clone()));
        let object = self.session.create_object(&template).map_err(error);
        bound.zeroize();
        for attribute in &mut template {
            if let Attribute::Value(value) = attribute {
                value.zeroize();
            }
        }
        let object = object?;
        let wrapped = self.session.wrap_key(&Call::AesKeyWrapPad, self.key, object);
        self.session.destroy_object(object).map_err(error)?;
        let wrapped = wrapped.map_err(error)?;
        if wrapped.len() != WRAPPED_LEN {
            let found = wrapped.len();
            return Err(protocol(format!("expected {WRAPPED_LEN} wrapped bytes, found {found}")));
        }
        Ok(Blob::KeyWrapPad { wrapped })
    }

    pub(super) fn unwrap(
        &self,
        wrapped: &[u8],
        context: &[u8; 34],
    ) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let object = self
            .session
            .unwrap_key(&Call::AesKeyWrapPad, self.key, wrapped, &secret_template())
            .map_err(error)?;
        let value = self.session.get_attributes(object, &[AttributeType::Value]);
        self.session.destroy_object(object).map_err(error)?;
        let bound = match value.map_err(error)?.pop() {
            Some(Attribute::Value(value)) => Zeroizing::new(value),
            _ => return Err(protocol("the module does not give the unwrapped value")),
        };
        if bound.len() != BOUND_LEN {
            let found = bound.len();
            return Err(integrity(format!("expected {BOUND_LEN} bytes wrapped, found {found}")));
        }
        if bound[32..66] != context[..] {
            return Err(integrity("another context is under the wrapping"));
        }
        Ok(Zeroizing::new(bound[..32].to_vec()))
    }
}

/// A value that lives in this session and can be read back.
fn secret_template() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ]
}
