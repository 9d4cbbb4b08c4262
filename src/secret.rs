//! Key newtypes: on the heap, so that a move leaves no copy behind; zeroized on drop;
//! without `Clone`, `Debug`, `PartialEq` or `Serialize`.

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::error::Result;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod below;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod left;
mod registers;
mod scrub;

#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use below::BYTES_MAX as SCRUBBED_BYTES_MAX;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use left::Left;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use registers::contents as register_contents;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use scrub::FRAMES_BYTES;
pub(crate) use scrub::{scrubbed, scrubbed_deeply, scrubbed_lightly, scrubbed_shortly};

/// Length of every key of the hierarchy, in bytes: AES-256 only.
pub const KEY_LEN: usize = 32;

macro_rules! key {
    ($(#[$doc:meta])* $vis:vis $name:ident) => {
        $(#[$doc])*
        $vis struct $name(Box<[u8; KEY_LEN]>);

        #[allow(dead_code, reason = "each key type uses the constructors it needs")]
        impl $name {
            pub(crate) fn zeroed() -> Self {
                Self(Box::new([0; KEY_LEN]))
            }

            pub(crate) fn random() -> Result<Self> {
                let mut key = Self::zeroed();
                crate::random::fill(&mut key.0[..])?;
                Ok(key)
            }

            pub(crate) fn bytes_mut(&mut self) -> &mut [u8; KEY_LEN] {
                &mut self.0
            }

            /// Compares in constant time.
            pub(crate) fn same(&self, other: &Self) -> bool {
                scrubbed(|| self.0[..].ct_eq(&other.0[..]).into())
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }
    };
}

key! {
    /// The key of one CMEK slot: wraps the store key, and is stored only wrapped by the
    /// customer's key, and by the store key itself.
    ///
    /// ```compile_fail
    /// fn shown<T: std::fmt::Debug>() {}
    /// shown::<atrest::kms::SlotKey>();
    /// ```
    /// ```compile_fail
    /// fn copied<T: Clone>() {}
    /// copied::<atrest::kms::SlotKey>();
    /// ```
    /// ```compile_fail
    /// fn compared<T: PartialEq>() {}
    /// compared::<atrest::kms::SlotKey>();
    /// ```
    pub SlotKey
}
key! {
    /// The store key (KEK): wraps the data keys, and is stored only wrapped by slot keys.
    pub(crate) StoreKey
}
key! {
    /// A data key (DEK): the parent of the keys of all files created while it was active.
    pub DataKey
}
key! {
    /// Key material of a local provider, made uniform: the parent of its wrapping keys.
    pub(crate) CmekParent
}

impl SlotKey {
    /// Takes the 32 bytes a key service returned; `None` for another length. The caller
    /// **MUST** zeroize its copy.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut key = Self::zeroed();
        (bytes.len() == KEY_LEN).then(|| scrubbed(|| key.0.copy_from_slice(bytes)))?;
        Some(key)
    }

    /// The key bytes, for a [`Kms`](crate::kms::Kms) to wrap. They **MUST NOT** be
    /// logged, kept or sent anywhere but to the key service.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl StoreKey {
    pub(crate) fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl DataKey {
    pub(crate) fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl CmekParent {
    pub(crate) fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}
