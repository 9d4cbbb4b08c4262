//! The one derivation, and the only place that names a label.
//!
//! HKDF-Expand-SHA256 without Extract: the parents are uniform keys already (RFC 5869
//! section 3.3; the feedback mode of NIST SP 800-108). `docs/FORMAT.md` section 1.

use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroize;

use crate::secret::{KEY_LEN, Secret, scrubbed, scrubbed_shortly};

/// What a derived key is for. No key serves two purposes.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// Body key of one file, from a data key.
    File,
    /// Wraps one data key, from the store key.
    Wrap,
    /// Authenticates the keyring, from the store key.
    Ring,
    /// Wraps the store key for one slot, from its slot key.
    Slot,
    /// Wraps a slot key for the store that is open, from the store key.
    Keep,
    /// Wraps a slot key in the local key providers, from their key material.
    Cmek,
}

impl Purpose {
    const fn label(self) -> &'static [u8; 16] {
        match self {
            Self::File => b"atrest.v1.file\0\0",
            Self::Wrap => b"atrest.v1.wrap\0\0",
            Self::Ring => b"atrest.v1.ring\0\0",
            Self::Slot => b"atrest.v1.slot\0\0",
            Self::Keep => b"atrest.v1.keep\0\0",
            Self::Cmek => b"atrest.v1.cmek\0\0",
        }
    }
}

/// 32 bytes of key, 12 of nonce and 32 of commitment. Made and used in one call.
pub(crate) struct Derived(Secret<[u8; 76]>);

impl Derived {
    pub(crate) fn key(&self) -> &[u8; KEY_LEN] {
        part(&self.0[..32])
    }

    pub(crate) fn nonce(&self) -> &[u8; 12] {
        part(&self.0[32..44])
    }

    pub(crate) fn commitment(&self) -> &[u8; 32] {
        part(&self.0[44..])
    }
}

fn part<const N: usize>(bytes: &[u8]) -> &[u8; N] {
    bytes.try_into().expect("a constant range") // OK because the callers' ranges have N bytes.
}

/// `HKDF-Expand(parent, label || info, 76)`, `info` being the parts one after the other.
pub(crate) fn derive(parent: &[u8; KEY_LEN], purpose: Purpose, info: &[&[u8]]) -> Derived {
    scrubbed_shortly(|| expand(parent, purpose, info))
}

fn expand(parent: &[u8; KEY_LEN], purpose: Purpose, info: &[&[u8]]) -> Derived {
    let mut output = Secret::new([0; 76]);
    // One label and at most three parts: no caller has more.
    let mut parts: [&[u8]; 4] = [purpose.label(), &[], &[], &[]];
    parts[1..=info.len()].copy_from_slice(info);
    let hkdf = Hkdf::<Sha256>::from_prk(parent).expect("32 bytes"); // OK because a PRK needs 32 bytes.
    hkdf.expand_multi_info(&parts, output.get_mut()).expect("76 bytes"); // OK because 76 <= 255 * 32.
    Derived(output)
}

/// Turns key material of any length into a uniform parent: HKDF-Extract (RFC 5869
/// section 2.2) with the key's public id as salt.
pub(crate) fn extract(id: &[u8], material: &[u8], parent: &mut [u8; KEY_LEN]) {
    scrubbed(|| {
        let (mut prk, _) = Hkdf::<Sha256>::extract(Some(id), material);
        parent.copy_from_slice(&prk);
        prk.as_mut_slice().zeroize();
    });
}
