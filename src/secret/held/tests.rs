use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwapAny;

use super::*;
use crate::process::tests::{beside_forked_child, in_forked_child};
use crate::secret::KeyMemory;

/// The bytes at an address, even one that another test gives back meanwhile.
fn bytes_at(address: usize, len: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; len];
    let memory = File::open("/proc/self/mem").unwrap();
    memory.read_exact_at(&mut bytes, address as u64).ok().map(|()| bytes)
}

struct Counted(Arc<AtomicUsize>, [u8; 200]);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn the_last_reference_wipes_and_no_earlier_one() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let one = Secret::new(Counted(dropped.clone(), [0xa7; 200]));
    let address = (&raw const one.1).addr();
    let other = one.clone();
    drop(one);
    assert_eq!(bytes_at(address, 200).unwrap(), [0xa7; 200]);
    assert_eq!((dropped.load(Ordering::Relaxed), other.1), (0, [0xa7; 200]));
    drop(other);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    let left = bytes_at(address, 200).unwrap_or_default();
    assert!(!left.windows(16).any(|bytes| bytes == [0xa7; 16]), "{left:x?}");
}

#[test]
fn a_swap_under_readers_loses_and_leaks_nothing() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let new = |byte| Secret::new(Counted(dropped.clone(), [byte; 200]));
    let place = ArcSwapAny::<Option<Secret<Counted>>>::new(Some(new(0)));
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let guard = place.load();
                    let Some(found) = guard.as_ref() else { continue };
                    let kept = found.clone();
                    let found = found.get().unwrap().1;
                    assert_eq!(found, [found[0]; 200]);
                    drop(guard);
                    assert_eq!(kept.get().unwrap().1, found);
                }
            });
        }
        for round in 0..20_000 {
            place.store((round % 3 > 0).then(|| new(round as u8)));
        }
        ended.store(true, Ordering::Relaxed);
    });
    drop(place);
    assert_eq!(dropped.load(Ordering::Relaxed), 1 + 20_000 - 20_000_usize.div_ceil(3));
}

#[cfg(target_os = "linux")]
#[test]
fn a_forked_child_has_nothing_and_says_so() {
    let mut parents = Secret::new([7_u8; 200]);
    let refused = |secret: &Secret<[u8; 200]>| {
        secret.get().is_err_and(|error| error.kind() == ErrorKind::Poisoned)
    };
    let address = (&raw const *parents).addr();
    assert!(in_forked_child(|| {
        let copy = parents.clone();
        let all_refused = refused(&parents) && refused(&copy);
        drop(copy);
        // What it makes itself is its own, also beside what it got.
        let own = Secret::new([8_u8; 200]);
        let others_refused = in_forked_child(|| refused(&own));
        all_refused
            && refused(&parents)
            && bytes_at(address, 200).unwrap() == [0; 200]
            && others_refused
            && own.get().is_ok_and(|own| *own == [8; 200])
            && own.get().is_ok_and(|own| (&raw const *own).addr() != address)
    }));
    assert_eq!(parents.get_mut(), &[7; 200]);
}

/// Another thread may be in the arena at the moment of a fork, for ever.
#[test]
fn a_child_waits_for_no_lock_of_its_parents() {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                drop(Secret::new([1_u8; 200]));
            }
        });
        for _ in 0..60 {
            let child = || Secret::new([2_u8; 200]).get().is_ok();
            assert!(beside_forked_child(child, || ()));
        }
        ended.store(true, Ordering::Relaxed);
    });
}

/// The flags of the mapping with this address, and whether the ones beside it are guards.
#[cfg(target_os = "linux")]
fn mapping(address: usize) -> (Vec<String>, bool) {
    struct Found {
        start: usize,
        end: usize,
        access: String,
        flags: Vec<String>,
    }
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut all: Vec<Found> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap();
        if first == "VmFlags:" {
            all.last_mut().unwrap().flags = words.map(str::to_owned).collect();
        } else if let Some((start, end)) = first.split_once('-') {
            let number = |hex| usize::from_str_radix(hex, 16).unwrap();
            let access = words.next().unwrap().to_owned();
            all.push(Found { start: number(start), end: number(end), access, flags: vec![] });
        }
    }
    let at = all.iter().position(|found| (found.start..found.end).contains(&address)).unwrap();
    // A slab may be locked in part, which makes two mappings of one.
    let secret = |found: &&Found| found.flags.iter().any(|flag| flag == "wf");
    let before = all[..at].iter().rev().find(|found| !secret(found)).unwrap();
    let after = all[at..].iter().find(|found| !secret(found)).unwrap();
    let closed = |guard: &Found| guard.access == "---p";
    (all[at].flags.clone(), closed(before) && closed(after))
}

#[cfg(target_os = "linux")]
#[test]
fn the_system_knows_what_is_secret() {
    let secret = Secret::new([3_u8; 24]);
    let (flags, guarded) = mapping((&raw const *secret).addr());
    assert!(guarded, "no guard pages");
    for (flag, what) in [("dd", "left out of dumps"), ("wf", "wiped at a fork")] {
        assert!(flags.iter().any(|found| found == flag), "not {what}: {flags:?}");
    }
    let found = KeyMemory::now();
    assert!(found.bytes > 0 && found.undumped_bytes == found.bytes, "{found:?}");
    assert_eq!((found.unforked_bytes, found.outside_bytes), (found.bytes, 0));
    assert!(found.locked_bytes <= found.bytes);
    if found.is_locked() {
        assert!(flags.iter().any(|found| found == "lo"), "not locked: {flags:?}");
        // The system puts no locked page out, be it asked to.
        let page = rustix::param::page_size();
        let at = std::ptr::without_provenance_mut((&raw const *secret).addr() / page * page);
        // SAFETY: what is put out comes back unchanged when it is used.
        let put_out = unsafe { rustix::mm::madvise(at, page, rustix::mm::Advice::LinuxPageOut) };
        assert_eq!(put_out, Err(rustix::io::Errno::INVAL));
    }
}
