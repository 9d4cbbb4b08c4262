use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::*;
use crate::derive::{Derived, Purpose, derive};

const KEYS: usize = 2000;
const FILES: usize = 200_000;

/// A prefix that names a data key, of suite 1.
fn prefix(key: usize, file: usize) -> [u8; PREFIX_LEN] {
    let mut prefix = [0; PREFIX_LEN];
    prefix[12] = 1;
    for (at, byte) in (key as u64).to_le_bytes().into_iter().enumerate() {
        // Wherever the id lies: only its difference counts.
        prefix[48 + at] = byte;
        prefix[32 + at] = byte;
    }
    prefix[PREFIX_LEN - 8..].copy_from_slice(&(file as u64).to_le_bytes());
    prefix
}

/// The longest of many calls, each of which every opening waits for: the median of five
/// rounds, for the machine is not alone.
fn longest(mut call: impl FnMut(usize)) -> Duration {
    let mut rounds: Vec<_> = (0..5)
        .map(|round| {
            let started = Instant::now();
            call(round);
            started.elapsed()
        })
        .collect();
    rounds.sort_unstable();
    rounds[2]
}

/// All keys withdrawn and given back, with openings one after the other beside it.
fn longest_opening_beside_give_back(handles: &Handles, derived: &Derived) -> String {
    let mut rounds: Vec<_> = (0..5)
        .map(|_| {
            handles.withdraw();
            let began = Instant::now();
            let waiting = handles.let_in();
            let (done, listed) = (AtomicBool::new(false), began.elapsed());
            let (took, longest) = std::thread::scope(|scope| {
                let openings = scope.spawn(|| {
                    let mut longest = Duration::ZERO;
                    while !done.load(Ordering::SeqCst) {
                        let slot = KeySlot::new(&prefix(0, FILES), derived);
                        let began = Instant::now();
                        assert!(handles.register(&slot));
                        longest = longest.max(began.elapsed());
                        std::thread::sleep(Duration::from_micros(20));
                    }
                    longest
                });
                handles.give_back(&waiting, |slot| {
                    let derived = derive(&[7; 32], Purpose::File, &[&slot.prefix]);
                    Some(slot.again(&derived))
                });
                let took = began.elapsed();
                done.store(true, Ordering::SeqCst);
                (took, openings.join().unwrap_or_default())
            });
            (longest.max(listed), listed, took)
        })
        .collect();
    rounds.sort_unstable();
    let (longest, listed, took) = rounds[2];
    format!("{took:?}, an opening waits at most {longest:?} (listing them {listed:?})")
}

/// `cargo test --release -p atrest --lib -- --ignored --nocapture openings_wait`
#[test]
#[ignore = "a measurement"]
fn how_long_openings_wait() {
    let derived = derive(&[7; 32], Purpose::File, &[]);
    for one_key in [false, true] {
        let handles = Handles::default();
        let open: Vec<_> = (0..FILES)
            .map(|file| {
                let key = if one_key { 0 } else { file % KEYS };
                let slot = KeySlot::new(&prefix(key, file), &derived);
                assert!(handles.register(&slot));
                slot
            })
            .collect();
        let mut keys: Vec<_> =
            open.iter().step_by(FILES / KEYS + 1).map(|s| s.data_key_id()).collect();
        keys.extend((KEYS..2 * KEYS).map(|key| crate::header::data_key_id(&prefix(key, 0))));
        let close = longest(|_| {
            handles.close(&keys, false);
        });
        handles.reopen();
        let written = longest(|round| {
            assert!(!handles.is_being_written(&open[FILES / 2 + round].prefix));
        });
        let give_back = longest_opening_beside_give_back(&handles, &derived);
        let few = keys.iter().copied().take(1).collect();
        let withdraw = longest(|_| handles.withdraw_keys(&few));
        let keys = if one_key { 1 } else { KEYS };
        println!(
            "{FILES} open files under {keys} keys: closing 4000 keys {close:?}, asking of one file \
             {written:?}, withdrawing one key {withdraw:?}, giving all back {give_back}"
        );
    }
}
