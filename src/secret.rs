//! Key newtypes: in the [`arena`], so that a move leaves no copy behind; zeroized on drop;
//! without `Clone`, `Debug`, `PartialEq` or `Serialize`.

use subtle::ConstantTimeEq;

use crate::error::Result;

mod arena;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod below;
mod held;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
mod left;
mod pages;
mod registers;
mod scrub;
mod wiping;

pub use arena::KeyMemory;
#[cfg(all(test, target_os = "linux"))]
pub(crate) use arena::tests::REFUSED;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use below::BYTES_MAX as SCRUBBED_BYTES_MAX;
pub(crate) use held::Secret;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use left::Left;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use registers::contents as register_contents;
#[cfg(all(test, any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use scrub::FRAMES_BYTES;
pub(crate) use scrub::{scrubbed, scrubbed_deeply, scrubbed_lightly, scrubbed_shortly};
pub use wiping::WipingAllocator;

/// Length of every key of the hierarchy, in bytes: AES-256 only.
pub const KEY_LEN: usize = 32;

macro_rules! key {
    ($(#[$doc:meta])* $vis:vis $name:ident) => {
        $(#[$doc])*
        $vis struct $name(Secret<[u8; KEY_LEN]>);

        #[allow(dead_code, reason = "each key type uses the constructors it needs")]
        impl $name {
            pub(crate) fn zeroed() -> Self {
                Self(Secret::new([0; KEY_LEN]))
            }

            pub(crate) fn random() -> Result<Self> {
                let mut key = Self::zeroed();
                crate::random::fill(key.bytes_mut())?;
                Ok(key)
            }

            pub(crate) fn bytes_mut(&mut self) -> &mut [u8; KEY_LEN] {
                self.0.get_mut()
            }

            /// The bytes, for [`derive`](crate::derive) and for wrapping them.
            ///
            /// # Errors
            /// [`Poisoned`](crate::ErrorKind::Poisoned) in a forked child.
            pub(crate) fn bytes(&self) -> Result<&[u8; KEY_LEN]> {
                self.0.get()
            }

            /// Compares in constant time.
            pub(crate) fn same(&self, other: &Self) -> bool {
                scrubbed(|| self.0[..].ct_eq(&other.0[..]).into())
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
        (bytes.len() == KEY_LEN).then(|| scrubbed(|| key.bytes_mut().copy_from_slice(bytes)))?;
        Some(key)
    }

    /// The key bytes, for a [`Kms`](crate::kms::Kms) to wrap. They **MUST NOT** be
    /// logged, kept or sent anywhere but to the key service.
    ///
    /// # Panics
    /// In a child that was forked since the key was made, which has none of its parent's.
    pub fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl CmekParent {
    /// The key bytes. As for [`SlotKey`], it is made and dropped in one call.
    pub(crate) fn expose(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}
