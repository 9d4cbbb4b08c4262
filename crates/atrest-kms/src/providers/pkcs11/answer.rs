//! What a return value of PKCS#11 means.

use atrest::kms::{KmsError, KmsErrorKind};
use cryptoki::context::Function;
use cryptoki::error::{Error, RvError as Rv};

use crate::fail::fail;

pub(super) fn error(error: Error) -> KmsError {
    let kind = match &error {
        Error::LibraryLoading(_) | Error::MissingSymbol(_) | Error::NullFunctionPointer => {
            KmsErrorKind::Misconfigured
        }
        Error::Pkcs11(value, function) => kind(value, function),
        _ => KmsErrorKind::Protocol,
    };
    fail(kind, format!("the module answered {error}"))
}

fn kind(value: &Rv, function: &Function) -> KmsErrorKind {
    let opens = matches!(function, Function::Decrypt | Function::UnwrapKey);
    match value {
        // SoftHSM says GeneralError, and so do others, for a wrong tag or AAD.
        Rv::GeneralError
        | Rv::FunctionFailed
        | Rv::EncryptedDataInvalid
        | Rv::EncryptedDataLenRange
        | Rv::WrappedKeyInvalid
        | Rv::WrappedKeyLenRange
        | Rv::DataInvalid
        | Rv::DataLenRange
            if opens =>
        {
            KmsErrorKind::Integrity
        }
        Rv::PinIncorrect
        | Rv::PinInvalid
        | Rv::PinLenRange
        | Rv::PinExpired
        | Rv::PinLocked
        | Rv::UserNotLoggedIn
        | Rv::UserPinNotInitialized => KmsErrorKind::Unauthenticated,
        Rv::KeyFunctionNotPermitted => KmsErrorKind::KeyDisabled,
        Rv::ActionProhibited => KmsErrorKind::AccessDenied,
        Rv::ObjectHandleInvalid
        | Rv::KeyHandleInvalid
        | Rv::WrappingKeyHandleInvalid
        | Rv::UnwrappingKeyHandleInvalid => KmsErrorKind::NotFound,
        Rv::MechanismInvalid
        | Rv::MechanismParamInvalid
        | Rv::KeyTypeInconsistent
        | Rv::KeySizeRange
        | Rv::FunctionNotSupported => KmsErrorKind::Misconfigured,
        Rv::GeneralError
        | Rv::FunctionFailed
        | Rv::FunctionCanceled
        | Rv::HostMemory
        | Rv::DeviceError
        | Rv::DeviceMemory
        | Rv::DeviceRemoved
        | Rv::TokenNotPresent
        | Rv::TokenNotRecognized
        | Rv::SlotIdInvalid
        | Rv::SessionCount
        | Rv::SessionClosed
        | Rv::SessionHandleInvalid
        | Rv::CryptokiNotInitialized => KmsErrorKind::Unreachable,
        _ => KmsErrorKind::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that SoftHSM does not give, from the PKCS#11 specification.
    #[test]
    fn values_of_the_specification() {
        for (value, function, expected) in [
            (Rv::EncryptedDataInvalid, Function::Decrypt, KmsErrorKind::Integrity),
            (Rv::GeneralError, Function::OpenSession, KmsErrorKind::Unreachable),
            (Rv::DeviceRemoved, Function::Decrypt, KmsErrorKind::Unreachable),
            (Rv::TokenNotPresent, Function::OpenSession, KmsErrorKind::Unreachable),
            (Rv::PinLocked, Function::Login, KmsErrorKind::Unauthenticated),
            (Rv::ObjectHandleInvalid, Function::DecryptInit, KmsErrorKind::NotFound),
            (Rv::MechanismInvalid, Function::EncryptInit, KmsErrorKind::Misconfigured),
        ] {
            assert_eq!(kind(&value, &function), expected, "{value} in {function}");
        }
    }
}
