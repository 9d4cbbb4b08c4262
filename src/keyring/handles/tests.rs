use std::time::{Duration, Instant};

use super::*;
use crate::derive::{Purpose, derive};

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
        let few = keys.iter().copied().take(1).collect();
        let withdraw = longest(|_| handles.withdraw_keys(&few));
        let keys = if one_key { 1 } else { KEYS };
        println!(
            "{FILES} open files under {keys} keys: closing 4000 keys {close:?}, asking of one file \
             {written:?}, withdrawing one key {withdraw:?}"
        );
    }
}
