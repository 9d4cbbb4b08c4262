//! Which run of the machine this is: a virtual machine that is started twice from one snapshot
//! runs every process twice, each with the same keys at the same place of a file.
//!
//! Where the machine below offers the device `vmclock` with a counter of generations, Linux
//! gives its page to every process (`/dev/vmclock0`, `include/uapi/linux/vmclock-abi.h`), and
//! the counter in it is another one before a copy runs. Nothing tells of it elsewhere.

// See the module above: there is no safe interface to a page that somebody else writes.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::made::Made;

const DEVICE: &str = "/dev/vmclock0";
const MAGIC: u32 = u32::from_le_bytes(*b"VCLK");
const VERSION: u16 = 1;
/// Of the flags: that there is a counter.
const HAS_COUNTER: u64 = 1 << 8;
/// Where the fields are, and the length that has the last of them.
const AT_VERSION: usize = 8;
const AT_FLAGS: usize = 24;
const AT_COUNTER: usize = 104;
const LEN: usize = 112;

/// Another number in another copy of the machine, where that can be known; otherwise 0.
#[inline]
pub(super) fn generation() -> u64 {
    static COUNTER: Made<Option<&AtomicU64>> = Made::new();
    // Written before the copy runs, so nothing has to be ordered.
    match *COUNTER.get_or_make(|| counter(Path::new(DEVICE))) {
        Some(counter) => counter.load(Ordering::Relaxed),
        None => 0,
    }
}

/// The counter in a device's page. `None` where there is none.
#[cold]
fn counter(device: &Path) -> Option<&'static AtomicU64> {
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    use std::io::Read;
    let mut file = File::open(device).ok()?;
    // By a call, which fails where a look at the page would end the process.
    let mut start = [0; LEN];
    file.read_exact(&mut start).ok()?;
    let at = |at: usize, len: usize| start.get(at..at + len);
    let magic = u32::from_le_bytes(at(0, 4)?.try_into().ok()?);
    let size = u32::from_le_bytes(at(4, 4)?.try_into().ok()?);
    let version = u16::from_le_bytes(at(AT_VERSION, 2)?.try_into().ok()?);
    let flags = u64::from_le_bytes(at(AT_FLAGS, 8)?.try_into().ok()?);
    let page_len = rustix::param::page_size();
    let has_counter = (magic, version) == (MAGIC, VERSION)
        && (LEN..=page_len).contains(&(size as usize))
        && flags & HAS_COUNTER != 0;
    if !has_counter {
        return None;
    }
    // SAFETY: a mapping of its own, at an address that the system chooses, only to be read.
    let page = unsafe {
        mmap(std::ptr::null_mut(), page_len, ProtFlags::READ, MapFlags::SHARED, &file, 0)
    };
    let counter = page.ok()?.cast::<u8>().wrapping_add(AT_COUNTER).cast::<AtomicU64>();
    // SAFETY: within the page, aligned to 8 bytes, never unmapped, and only loaded from; who
    // else writes it does so in one piece.
    Some(unsafe { &*counter })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    fn page() -> Vec<u8> {
        let mut page = vec![0; rustix::param::page_size()];
        page[..4].copy_from_slice(b"VCLK");
        page[4..8].copy_from_slice(&4096_u32.to_le_bytes());
        page[AT_VERSION] = 1;
        page[AT_FLAGS..AT_FLAGS + 8].copy_from_slice(&(HAS_COUNTER | 1).to_le_bytes());
        page[AT_COUNTER..LEN].copy_from_slice(&7_u64.to_le_bytes());
        page
    }

    #[test]
    fn a_counter_is_seen_to_change_without_a_call() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmclock0");
        std::fs::write(&path, page()).unwrap();
        let counter = counter(&path).unwrap();
        assert_eq!(counter.load(Ordering::Relaxed), 7);
        let device = File::options().write(true).open(&path).unwrap();
        device.write_all_at(&8_u64.to_le_bytes(), AT_COUNTER as u64).unwrap();
        assert_eq!(counter.load(Ordering::Relaxed), 8);
    }

    #[test]
    fn what_has_no_counter_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmclock0");
        assert!(counter(&path).is_none(), "nothing is there");
        let edits: [(&str, usize, u8); 5] = [
            ("magic", 0, b'W'),
            ("size below the counter", 5, 0),
            ("size above the page", 7, 1),
            ("version", AT_VERSION, 2),
            ("no counter", AT_FLAGS + 1, 0),
        ];
        for (what, at, byte) in edits {
            let mut page = page();
            page[at] = byte;
            std::fs::write(&path, page).unwrap();
            assert!(counter(&path).is_none(), "{what}");
        }
        std::fs::write(&path, &page()[..LEN - 1]).unwrap();
        assert!(counter(&path).is_none(), "too short");
    }
}
