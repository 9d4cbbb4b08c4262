//! The 16-byte identifiers of stores, keys and files.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// The bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }

            /// Whether all bytes are zero, which stands for "none".
            pub fn is_zero(&self) -> bool {
                self.0 == [0; 16]
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                crate::hex::decode_array(text).map(Self).ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidArgument,
                        format!("expected an id of 32 hexadecimal digits, found {text:?}"),
                    )
                })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    };
}

id! {
    /// Names one store: one keyring and the files under it.
    StoreId
}
id! {
    /// Names one store key (KEK).
    StoreKeyId
}
id! {
    /// Names the key of one CMEK slot.
    SlotKeyId
}
id! {
    /// Names one data key (DEK).
    DataKeyId
}
id! {
    /// Names one file for the engine, so that a file put in another's place is refused.
    /// Zero stands for "not given".
    FileId
}

macro_rules! random_id {
    ($($name:ident),*) => {$(
        impl $name {
            pub(crate) fn random() -> Result<Self> {
                let mut bytes = [0; 16];
                crate::random::fill(&mut bytes)?;
                Ok(Self(bytes))
            }
        }
    )*};
}
random_id!(StoreId, StoreKeyId, SlotKeyId, DataKeyId);

impl From<u64> for FileId {
    /// The file number in little-endian order, padded with zeros.
    fn from(number: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_le_bytes());
        Self(bytes)
    }
}
