//! Files mapped into memory for reading.
//!
//! All `unsafe` of it is here. The bytes of a map are the file's: whoever may write to the file
//! changes them, at any time. So nothing but decryption gets to see them, which loads each one
//! once, into a register or a copy, and believes nothing that it did not verify there.

// A map has no safe interface: its memory is the system's to take away.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Maps of one process, at most. Linux allows 65,530 to a process (`vm.max_map_count`), for all it
/// does.
const MAPS_MAX: usize = 16 << 10;

static MAPS: AtomicUsize = AtomicUsize::new(0);

/// A file as long as it was when it was mapped. Who has one can do nothing with it but give it
/// back: what it holds is for [`Reader`](crate::Reader) alone.
#[derive(Debug)]
pub struct Map {
    start: NonNull<u8>,
    len: usize,
    _counted: Counted,
}

// SAFETY: memory that is only read, by whatever thread, and unmapped when nobody has it any more.
unsafe impl Send for Map {}
// SAFETY: as above.
unsafe impl Sync for Map {}

/// One of the maps that a process may have.
#[derive(Debug)]
struct Counted(());

impl Counted {
    fn new(max: usize) -> Option<Self> {
        let more = |count| (count < max).then_some(count + 1);
        let counted = MAPS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        counted.is_ok().then(|| Self(()))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        MAPS.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Map {
    /// `None` for an empty file, for one that no address space holds, and where there are too
    /// many maps.
    ///
    /// # Errors
    /// Whatever the system says, of file systems without maps too.
    pub(crate) fn of(file: &File) -> io::Result<Option<Self>> {
        let Ok(len) = usize::try_from(file.metadata()?.len()) else { return Ok(None) };
        if len == 0 || isize::try_from(len).is_err() {
            return Ok(None);
        }
        let Some(counted) = Counted::new(MAPS_MAX) else { return Ok(None) };
        // SAFETY: at a place of the system's choice, so that nothing else is mapped over.
        let start =
            unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0)? };
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Some(Self { start, len, _counted: counted }))
    }

    /// The file's bytes, for code that reads each once and takes any value for possible. Those of
    /// a page that the file lost since, or that the disk cannot read, end the process (`SIGBUS`).
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are mapped as long as `self` is. Somebody else may change them,
        // which no reference allows for: it is turned into a pointer by the kernels of the
        // ciphers before anything is read, and by the portable ones behind a copy that the
        // compiler cannot look through.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: what was mapped, and nobody reads any more.
        // Nothing to be done if it fails, which only bad arguments make it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_number_of_maps_is_bounded() {
        let now = MAPS.load(Ordering::Relaxed);
        // Other tests have maps, too: so many more than these are there never.
        let first = Counted::new(now + 1000).unwrap();
        assert!(Counted::new(0).is_none() && Counted::new(1).is_none());
        drop(first);
    }

    #[test]
    fn a_file_is_mapped_as_it_is_and_an_empty_one_is_not() {
        let path = tempfile::NamedTempFile::new().unwrap();
        assert!(Map::of(path.as_file()).unwrap().is_none());
        std::fs::write(path.path(), vec![7; 10_000]).unwrap();
        let map = Map::of(&File::open(path.path()).unwrap()).unwrap().unwrap();
        assert_eq!(map.bytes(), vec![7; 10_000]);
    }
}
