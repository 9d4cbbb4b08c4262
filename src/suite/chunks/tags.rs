//! Tags that were read, kept for the process: bounded, without locks, and without trust. A tag
//! that is not the chunk's makes the chunk fail, and is then read anew.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use super::geometry::{PAGE_LEN, PAGE_TAGS};
use crate::cipher::gcm::{TAG_LEN, will_read};
use crate::process::Made;

pub(super) type Tag = [u8; TAG_LEN];

/// Pages that may be kept: 64 MiB, the tags of 16 GiB in chunks of 4 KiB.
const PAGES: usize = 16 << 10;
/// Places in which one page may be.
const WAYS: usize = 4;
const WORDS: usize = PAGE_LEN / size_of::<u64>();
const TAG_WORDS: usize = TAG_LEN / size_of::<u64>();

/// Which page: a number of the opening of its file, and the page's in the file. What one opening
/// read is nothing to the next, which may be there to prove what is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageId {
    pub(super) file: u64,
    pub(super) page: u64,
}

/// A page's place. An odd version says that somebody writes to it; whoever reads looks before
/// and after, and takes nothing if the version changed.
#[derive(Default)]
struct Place {
    version: AtomicU64,
    file: AtomicU64,
    page: AtomicU64,
    /// Made when first used, by whoever made the version odd, so that nobody waits for it; and
    /// used again for other pages.
    words: OnceLock<Box<[AtomicU64; WORDS]>>,
}

impl Place {
    fn holds(&self, id: PageId) -> bool {
        self.file.load(Ordering::Relaxed) == id.file && self.page.load(Ordering::Relaxed) == id.page
    }

    fn get(&self, id: PageId, first: usize, tags: &mut [Tag]) -> bool {
        let before = self.version.load(Ordering::Acquire);
        if !before.is_multiple_of(2) || !self.holds(id) {
            return false;
        }
        let Some(words) = self.words.get() else { return false };
        let words = words[first * TAG_WORDS..].chunks_exact(TAG_WORDS);
        for (tag, words) in tags.iter_mut().zip(words) {
            for (bytes, word) in tag.chunks_exact_mut(size_of::<u64>()).zip(words) {
                bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
            }
        }
        fence(Ordering::Acquire);
        self.version.load(Ordering::Relaxed) == before
    }

    /// Puts a page here, or takes it away, unless somebody else is at it.
    fn put(&self, id: PageId, tags: &[u8]) {
        let before = self.version.load(Ordering::Relaxed);
        let mine = before.is_multiple_of(2)
            && self
                .version
                .compare_exchange(before, before + 1, Ordering::Acquire, Ordering::Relaxed)
                .is_ok();
        if !mine {
            return;
        }
        fence(Ordering::Release);
        self.file.store(id.file, Ordering::Relaxed);
        self.page.store(id.page, Ordering::Relaxed);
        let words = self.words.get_or_init(|| Box::new([const { AtomicU64::new(0) }; WORDS]));
        for (word, bytes) in words.iter().zip(tags.chunks_exact(size_of::<u64>())) {
            let bytes = bytes.try_into().unwrap_or_default();
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        self.version.store(before + 2, Ordering::Release);
    }
}

/// No page's.
const NOTHING: PageId = PageId { file: 0, page: u64::MAX };

pub(super) struct TagCache {
    sets: Box<[[Place; WAYS]]>,
    /// Which place the next page takes from another one.
    next: AtomicU64,
}

impl TagCache {
    fn new(pages: usize) -> Self {
        let sets = (0..(pages / WAYS).max(1)).map(|_| Default::default()).collect();
        Self { sets, next: AtomicU64::new(0) }
    }

    /// That of the process.
    pub(super) fn shared() -> &'static Self {
        static SHARED: Made<TagCache> = Made::new();
        SHARED.get_or_make(|| Self::new(PAGES))
    }

    /// Neighbours stand in neighbouring sets, files begin anywhere: at multiples of the golden
    /// ratio (Knuth, The Art of Computer Programming, 6.4).
    fn set(&self, id: PageId) -> &[Place; WAYS] {
        let start = id.file.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        &self.sets[((start + id.page) % self.sets.len() as u64) as usize]
    }

    /// Fills `tags` from number `first` of a page on, if that is here.
    pub(super) fn get(&self, id: PageId, first: u64, tags: &mut [Tag]) -> bool {
        debug_assert!(first + tags.len() as u64 <= PAGE_TAGS);
        self.set(id).iter().any(|place| place.get(id, first as usize, tags))
    }

    /// Has the processor fetch what [`get`](Self::get) will look for.
    pub(super) fn will_get(&self, id: PageId, first: u64, count: usize) {
        let place = self.set(id).iter().find(|place| place.holds(id));
        if let Some(words) = place.and_then(|place| place.words.get()) {
            will_read(&words[first as usize * TAG_WORDS..][..count * TAG_WORDS]);
        }
    }

    /// Keeps a page, or its beginning.
    pub(super) fn put(&self, id: PageId, tags: &[u8]) {
        let set = self.set(id);
        let own = set.iter().find(|place| place.holds(id) || place.holds(NOTHING));
        let own = own.or_else(|| set.iter().find(|place| place.words.get().is_none()));
        let place =
            own.unwrap_or_else(|| &set[self.next.fetch_add(1, Ordering::Relaxed) as usize % WAYS]);
        place.put(id, tags);
    }

    /// Drops a page that may be wrong.
    pub(super) fn forget(&self, id: PageId) {
        let places = self.set(id).iter();
        places.filter(|place| place.holds(id)).for_each(|place| place.put(NOTHING, &[]));
    }
}

#[cfg(test)]
mod tests;
