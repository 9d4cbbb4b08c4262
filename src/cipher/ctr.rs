//! AES-256 in counter mode: the hot path of suite 1 (`docs/FORMAT.md`, section 3).
//!
//! The counter block is `nonce[0..8] || BE64(block number)`. Block numbers start at 0 and a body
//! has at most 2^40 blocks, so the low 64 bits never carry into the nonce, and any 128-bit
//! big-endian counter implementation produces the same bytes.
//!
//! On x86-64 and aarch64 the work is done by the kernels of `native`, in the widest registers that
//! the machine has; everywhere else by the `aes` and `ctr` crates. All widths produce the same
//! bytes.

// `danger-internals` exports these items; without it some are neither reachable nor used.
#![cfg_attr(not(feature = "danger-internals"), allow(unreachable_pub, dead_code))]

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) mod native;

#[cfg(test)]
pub(super) mod tests;

use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, InOutBuf, InnerIvInit, KeyInit, StreamCipherCore};
use ctr::{CtrCore, flavors};

use crate::error::Result;
use crate::process::Made;
#[cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(unused_imports, reason = "for the kernels")
)]
use crate::secret::{Secret, scrubbed, scrubbed_lightly};

use super::right::is_right;

const BLOCK_BYTES: u64 = 16;

/// How many bytes of keystream one instruction makes.
///
/// Chosen once per process from what the processor says and, for a known key, computes: an emulated
/// one may get wrong what it says it has. For diagnosis the environment variable
/// `ATREST_CTR_WIDTH` (a [`name`](Self::name), read once) asks for another one; a width that the
/// machine lacks or gets wrong, and a word that is no name, count as the best one that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Width {
    /// The `aes` and `ctr` crates.
    Portable,
    /// AES-NI, 16 bytes.
    Aes128,
    /// VAES in AVX2 registers, 32 bytes.
    Vaes256,
    /// VAES in AVX-512 registers, 64 bytes.
    Vaes512,
    /// The AES instructions of aarch64, 16 bytes.
    NeonAes,
    /// The same with the three-way XOR of the SHA-3 instructions.
    NeonAesEor3,
}

impl Width {
    /// Every width; of those of one machine the best is the last.
    pub const ALL: [Self; 6] = [
        Self::Portable,
        Self::Aes128,
        Self::Vaes256,
        Self::Vaes512,
        Self::NeonAes,
        Self::NeonAesEor3,
    ];

    /// The widths that this machine can run, the best one last.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|width| width.is_available())
    }

    /// Whether this machine can run it.
    #[must_use]
    pub fn is_available(self) -> bool {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        if native::is_available(self) {
            return true;
        }
        self == Self::Portable
    }

    /// The width that [`CtrKey::new`] uses.
    #[must_use]
    pub fn chosen() -> Self {
        static CHOSEN: Made<Width> = Made::new();
        *CHOSEN.get_or_make(|| {
            Self::choose(std::env::var("ATREST_CTR_WIDTH").ok().as_deref(), is_right)
        })
    }

    /// The name that `ATREST_CTR_WIDTH` takes: `portable`; `aesni`, `vaes256` or `vaes512` on
    /// x86-64; `neon-aes` or `neon-aes-eor3` on aarch64.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Aes128 => "aesni",
            Self::Vaes256 => "vaes256",
            Self::Vaes512 => "vaes512",
            Self::NeonAes => "neon-aes",
            Self::NeonAesEor3 => "neon-aes-eor3",
        }
    }

    /// The wanted one, or else the best, of those that are right.
    fn choose(wanted: Option<&str>, is_right: impl Fn(Self) -> bool) -> Self {
        let wanted = Self::available().find(|width| Some(width.name()) == wanted);
        let best_first = Self::ALL.into_iter().rev().filter(|width| width.is_available());
        wanted
            .into_iter()
            .chain(best_first)
            .find(|width| is_right(*width))
            .unwrap_or(Self::Portable)
    }
}

/// The key and the nonce of one file body.
///
/// Zeroized on drop. Knows nothing of direction or of which bytes were used before: that a
/// counter never covers two plaintexts is the duty of the writer that owns it.
pub struct CtrKey(Schedule);

// A file handle at rest has 512 bytes for everything.
const _: () = assert!(size_of::<CtrKey>() <= 256);

#[allow(clippy::large_enum_variant)] // OK because the large one is the one that all but old machines use.
enum Schedule {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    Native(native::RoundKeys),
    /// Apart because the bit-sliced key schedule of `aes` takes a kilobyte.
    Portable {
        cipher: Secret<Aes256Enc>,
        /// The 8 fixed bytes of the counter block, as a big-endian number.
        nonce: u64,
        /// Where the other variant has its keys. Left alone, these bytes would be what the
        /// stack held when the key was made, round keys among it, and go to the heap with it.
        _zeros: [u128; 14],
    },
}

impl CtrKey {
    /// Expands the key for the width that suits this machine.
    #[must_use]
    pub fn new(key: &[u8; 32], nonce: [u8; 8]) -> Self {
        Self::with_width(key, nonce, Width::chosen()).unwrap_or_else(|| Self::portable(key, nonce))
    }

    /// Expands the key for one width; `None` where the machine lacks it.
    #[must_use]
    #[inline]
    pub fn with_width(key: &[u8; 32], nonce: [u8; 8], width: Width) -> Option<Self> {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        if let Some(keys) = native::RoundKeys::new(key, u64::from_be_bytes(nonce), width) {
            return Some(Self(Schedule::Native(keys)));
        }
        (width == Width::Portable).then(|| Self::portable(key, nonce))
    }

    fn portable(key: &[u8; 32], nonce: [u8; 8]) -> Self {
        let cipher = Secret::new(Aes256Enc::new(key.into()));
        Self(Schedule::Portable { cipher, nonce: u64::from_be_bytes(nonce), _zeros: [0; 14] })
    }

    /// Whether a fork emptied nothing of it: what lies inside of a secret may be in the arena
    /// where that one is not.
    ///
    /// # Errors
    /// [`Poisoned`](crate::ErrorKind::Poisoned).
    #[inline]
    pub(super) fn check(&self) -> Result<()> {
        match &self.0 {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Schedule::Native(_) => Ok(()),
            Schedule::Portable { cipher, .. } => cipher.get().map(drop),
        }
    }

    pub(super) fn width(&self) -> Width {
        match &self.0 {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Schedule::Native(keys) => keys.width(),
            Schedule::Portable { .. } => Width::Portable,
        }
    }

    /// The round keys, where the kernels of `native` do the work.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(super) fn native(&self) -> Option<&native::RoundKeys> {
        match &self.0 {
            Schedule::Native(keys) => Some(keys),
            Schedule::Portable { .. } => None,
        }
    }

    /// Runs `work`, which uses this key, so that nothing of the key is left outside of it.
    #[inline]
    pub(super) fn scrubbed<T>(&self, work: impl FnOnce() -> T) -> T {
        match self.0 {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Schedule::Native(_) => scrubbed_lightly(work),
            // The crates keep buffers for more blocks than they are given.
            Schedule::Portable { .. } => scrubbed(work),
        }
    }

    /// Encrypts or decrypts `buf`, which stands at `offset_bytes` of the body.
    #[inline]
    pub fn apply_in_place(&self, offset_bytes: u64, buf: &mut [u8]) {
        let (block, skip) = position(offset_bytes);
        self.apply_in_place_at_block(block, skip, buf);
    }

    /// Encrypts or decrypts `src`, which stands at `offset_bytes` of the body, into `dst`.
    ///
    /// # Panics
    ///
    /// When the lengths differ.
    #[inline]
    pub fn apply(&self, offset_bytes: u64, src: &[u8], dst: &mut [u8]) {
        let (block, skip) = position(offset_bytes);
        self.apply_at_block(block, skip, src, dst);
    }

    /// As [`apply`](Self::apply), with the whole low half of the counter block given: GCM
    /// keeps a part of its nonce there.
    #[inline]
    pub(super) fn apply_at_block(&self, block: u64, skip: usize, src: &[u8], dst: &mut [u8]) {
        assert_eq!(src.len(), dst.len(), "source and destination differ in length");
        match &self.0 {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Schedule::Native(keys) => keys.apply(block, skip, src, dst),
            Schedule::Portable { cipher, nonce, .. } => {
                let Ok(inout) = InOutBuf::new(src, dst) else {
                    unreachable!("lengths compared above")
                };
                apply_portable(cipher, *nonce, block, skip, inout);
            }
        }
    }

    /// Takes a block number, so that vectors whose counters lie past 2^64 bytes can run too.
    pub(super) fn apply_in_place_at_block(&self, block: u64, skip: usize, buf: &mut [u8]) {
        match &self.0 {
            #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
            Schedule::Native(keys) => keys.apply_in_place(block, skip, buf),
            Schedule::Portable { cipher, nonce, .. } => {
                apply_portable(cipher, *nonce, block, skip, buf.into());
            }
        }
    }
}

/// Runs as many rounds as encrypting `blocks` blocks takes, on registers alone: the ceiling that
/// benchmarks compare with. `None` where the machine lacks the width, and for the portable one.
#[must_use]
pub fn limit(width: Width, blocks: u64) -> Option<u64> {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    return native::limit(width, blocks);
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        let _ = (width, blocks);
        None
    }
}

/// Block number, and bytes to skip in that block.
#[inline]
fn position(offset_bytes: u64) -> (u64, usize) {
    // OK because the remainder is below 16.
    (offset_bytes / BLOCK_BYTES, (offset_bytes % BLOCK_BYTES) as usize)
}

fn apply_portable(
    cipher: &Aes256Enc,
    nonce: u64,
    mut block: u64,
    skip: usize,
    mut inout: InOutBuf<'_, '_, u8>,
) {
    let counter = |block| (u128::from(nonce) << 64 | u128::from(block)).to_be_bytes();
    let xor_part = |block, skip: usize, mut part: InOutBuf<'_, '_, u8>| {
        let mut keystream = counter(block).into();
        cipher.encrypt_block(&mut keystream);
        part.xor_in2out(&keystream[skip..skip + part.len()]);
    };
    if skip > 0 {
        let len = inout.len().min(BLOCK_BYTES as usize - skip);
        let (head, rest) = inout.split_at(len);
        xor_part(block, skip, head);
        block = block.wrapping_add(1);
        inout = rest;
    }
    let (blocks, tail) = inout.into_chunks();
    if !blocks.is_empty() {
        // The block number goes in as a part of the IV: `Ctr64BE` adds to it modulo 2^64.
        let iv = counter(block).into();
        block = block.wrapping_add(blocks.len() as u64);
        CtrCore::<&Aes256Enc, flavors::Ctr64BE>::inner_iv_init(cipher, &iv)
            .apply_keystream_blocks_inout(blocks);
    }
    if !tail.is_empty() {
        xor_part(block, 0, tail);
    }
}
