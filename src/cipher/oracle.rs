//! The keystream oracle of test builds: a second encryption under one counter block of one
//! key panics.
//!
//! It stands in debug builds with the feature `danger-simulation`, which `atrest-testkit` turns
//! on, and is nothing at all in any other. Keys are known by a hash of one block of their
//! keystream that no file reaches. A key belongs to the process that made it: a forked child
//! that encrypts under one of its parent's panics too.

#[cfg(not(all(feature = "danger-simulation", debug_assertions)))]
use super::ctr::CtrKey;

/// Whether what a key encrypts is watched: the keys of encryptors with a random salt are, those
/// of test vectors not.
#[derive(Clone, Copy)]
pub(crate) struct Watched(#[cfg(all(feature = "danger-simulation", debug_assertions))] bool);

#[cfg(not(all(feature = "danger-simulation", debug_assertions)))]
impl Watched {
    #[inline(always)]
    pub(crate) fn new(_writing: bool) -> Self {
        Self()
    }

    #[inline(always)]
    pub(super) fn made(self, _key: &CtrKey) {}

    #[inline(always)]
    pub(crate) fn encrypts_bytes(self, _key: &CtrKey, _offset: u64, _len: usize) {}

    #[inline(always)]
    pub(super) fn encrypts_message(self, _key: &CtrKey, _first_block: u64, _len: usize) {}
}

#[cfg(all(feature = "danger-simulation", debug_assertions))]
pub(crate) use watching::forget;

#[cfg(all(feature = "danger-simulation", debug_assertions))]
mod watching {
    use std::collections::{BTreeMap, HashMap};
    use std::ops::Range;
    use std::sync::{LazyLock, Mutex, PoisonError};

    use sha2::{Digest, Sha256};

    use super::super::ctr::CtrKey;
    use super::Watched;

    const BLOCK: u128 = 16;
    /// A file has at most 2^44 bytes, and in GCM this block is of a message number whose
    /// blocks do not reach so far.
    const NAMING_BLOCK: u64 = u64::MAX;

    static USED: LazyLock<Mutex<HashMap<[u8; 32], Uses>>> = LazyLock::new(Mutex::default);

    struct Uses {
        process: u32,
        /// Ends by their beginnings, in bytes of keystream; none touches the next one.
        ranges: BTreeMap<u128, u128>,
    }

    /// Forgets all keys: for a simulation that begins again from its seed.
    pub(crate) fn forget() {
        USED.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    impl Watched {
        pub(crate) fn new(writing: bool) -> Self {
            Self(writing)
        }

        /// A key was expanded, be it anew after it was withdrawn.
        pub(crate) fn made(self, key: &CtrKey) {
            self.uses(key, 0..0);
        }

        /// Bytes of a stream.
        pub(crate) fn encrypts_bytes(self, key: &CtrKey, offset: u64, len: usize) {
            let offset = u128::from(offset);
            self.uses(key, offset..offset + len as u128);
        }

        /// A message of GCM: its first block masks the tag, the next ones the bytes.
        pub(crate) fn encrypts_message(self, key: &CtrKey, first_block: u64, len: usize) {
            let first = u128::from(first_block) * BLOCK;
            let blocks = 1 + (len as u128).div_ceil(BLOCK);
            self.uses(key, first..first + blocks * BLOCK);
        }

        fn uses(self, key: &CtrKey, range: Range<u128>) {
            if !self.0 {
                return;
            }
            let mut block = [0; 16];
            key.apply_at_block(NAMING_BLOCK, 0, &[0; 16], &mut block);
            let name: [u8; 32] = Sha256::digest(block).into();
            let process = std::process::id();
            let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
            let uses =
                used.entry(name).or_insert_with(|| Uses { process, ranges: BTreeMap::new() });
            assert!(
                uses.process == process,
                "a process encrypts under a key that another one made"
            );
            uses.add(range);
        }
    }

    impl Uses {
        fn add(&mut self, range: Range<u128>) {
            if range.is_empty() {
                return;
            }
            let before = self.ranges.range(..range.end).next_back();
            let mut start = range.start;
            if let Some((known, end)) = before.map(|(start, end)| (*start, *end)) {
                assert!(
                    end <= range.start,
                    "keystream bytes {range:?} encrypt a second time: {known}..{end} were used"
                );
                if end == range.start {
                    start = known;
                }
            }
            let after = self.ranges.remove(&range.end);
            self.ranges.insert(start, after.unwrap_or(range.end));
        }
    }

    #[cfg(test)]
    mod tests {
        use super::Watched;
        use crate::cipher::ctr::CtrKey;
        use crate::cipher::gcm::GcmKey;
        use crate::process::tests::in_forked_child;

        fn refuses(work: impl FnOnce()) -> bool {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_err()
        }

        #[test]
        fn a_second_use_of_keystream_is_refused() {
            let (one, other) = (CtrKey::new(&[0xa1; 32], [1; 8]), CtrKey::new(&[0xa1; 32], [2; 8]));
            let watched = Watched::new(true);
            for (offset, len) in [(0, 10), (10, 6), (100, 1), (16, 84), (101, 4096)] {
                watched.encrypts_bytes(&one, offset, len);
            }
            for (offset, len) in [(0, 1), (9, 1), (15, 2), (4196, 2), (0, 5000)] {
                assert!(refuses(|| watched.encrypts_bytes(&one, offset, len)), "{offset} {len}");
            }
            watched.encrypts_bytes(&one, 50, 0);
            watched.encrypts_bytes(&other, 0, 10);
            Watched::new(false).encrypts_bytes(&one, 0, 10);
            // Expanded again from the same bytes, it is the same key.
            let again = CtrKey::new(&[0xa1; 32], [1; 8]);
            watched.made(&again);
            assert!(refuses(|| watched.encrypts_bytes(&again, 0, 1)));
        }

        #[test]
        fn a_second_message_of_one_number_is_refused() {
            let mut key = GcmKey::from_parts(&[0xa2; 32], &[7; 12]);
            key.watch(Watched::new(true));
            let seal = |index, len: usize| {
                key.seal(index, b"", &vec![1; len], &mut vec![0; len]);
            };
            for (index, len) in [(0, 100), (1, 0), (u32::MAX, 1 << 20)] {
                seal(index, len);
                assert!(refuses(|| seal(index, len)));
                assert!(refuses(|| seal(index, 0)), "the tag alone is masked twice");
            }
            seal(2, 16);
        }

        #[test]
        fn a_forked_child_is_refused_its_parents_key() {
            let key = CtrKey::new(&[0xa3; 32], [1; 8]);
            let watched = Watched::new(true);
            watched.made(&key);
            std::panic::set_hook(Box::new(|_| {}));
            let refused = in_forked_child(|| refuses(|| watched.encrypts_bytes(&key, 0, 1)));
            drop(std::panic::take_hook());
            assert!(refused);
            watched.encrypts_bytes(&key, 0, 1);
        }
    }
}
