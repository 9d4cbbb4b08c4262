//! Whether the time of the kernels depends on the key or on the data (dudect, Welch's t-test).
//!
//! `cargo bench --bench dudect --features danger-internals`: |t| over 4.5 in every one of
//! several runs hints at a leak, over 10 is one. Class `Left` uses one fixed key or plaintext,
//! class `Right` random ones. Calls of one class are otherwise the same: each round key schedule
//! and buffer has its place in memory, filled before the clock starts.

use std::cell::RefCell;
use std::hint::black_box;

use atrest::internals::{CtrKey, GcmKey, Width};
use dudect_bencher::ctbench::{BenchFn, BenchMetadata, BenchName, BenchOpts, run_benches_console};
use dudect_bencher::rand::RngExt;
use dudect_bencher::{BenchRng, Class, CtRunner};

const SAMPLES: usize = 40_000;

/// The class of each sample, and what its secret bytes are masked with.
fn classes(rng: &mut BenchRng) -> Vec<(Class, u8)> {
    (0..SAMPLES)
        .map(|_| if rng.random::<bool>() { (Class::Left, 0) } else { (Class::Right, 0xff) })
        .collect()
}

/// Fixed against random data under one key, or with `by_key` fixed against random keys.
fn apply(runner: &mut CtRunner, rng: &mut BenchRng, width: Width, len: usize, by_key: bool) {
    let (mut key, mut data) = ([0; 32], vec![0; len]);
    // `run_one` takes no `FnMut`.
    let buf = RefCell::new(vec![0; len]);
    for (class, keep) in classes(rng) {
        // Drawn for both classes, so that both leave the caches alike.
        rng.fill(&mut key);
        rng.fill(&mut data[..]);
        for byte in &mut key {
            *byte &= if by_key { keep } else { 0 };
        }
        for (to, byte) in buf.borrow_mut().iter_mut().zip(&data) {
            *to = byte & if by_key { 0 } else { keep };
        }
        let Some(ctr) = CtrKey::with_width(&key, [0; 8], width) else {
            return;
        };
        runner
            .run_one(class, || ctr.apply_in_place(black_box(1), black_box(&mut buf.borrow_mut())));
    }
}

/// The same for sealing.
fn seal(runner: &mut CtRunner, rng: &mut BenchRng, width: Width, len: usize, by_key: bool) {
    let (mut key, mut data) = ([0; 32], vec![0; len]);
    let buf = RefCell::new(vec![0; len]);
    for (class, keep) in classes(rng) {
        // Drawn for both classes, so that both leave the caches alike.
        rng.fill(&mut key);
        rng.fill(&mut data[..]);
        for byte in &mut key {
            *byte &= if by_key { keep } else { 0 };
        }
        for byte in &mut data {
            *byte &= if by_key { 0 } else { keep };
        }
        let Some(gcm) = GcmKey::with_width(&key, &[0; 12], width) else {
            return;
        };
        runner.run_one(class, || gcm.seal(0, b"", black_box(&data), &mut buf.borrow_mut()));
    }
}

/// Tags that are wrong in the first byte against tags that are wrong in the last one.
fn compare(runner: &mut CtRunner, rng: &mut BenchRng) {
    let gcm = GcmKey::from_parts(&[1; 32], &[0; 12]);
    let mut sealed = vec![0; 100];
    let tag = gcm.seal(0, b"", &[0; 100], &mut sealed);
    let plain = RefCell::new(vec![0; 100]);
    for (class, keep) in classes(rng) {
        let mut wrong = tag;
        wrong[0] ^= 1 & !keep;
        wrong[15] ^= 1 & keep;
        runner.run_one(class, || {
            gcm.open(0, b"", black_box(&sealed), black_box(&wrong), 0, &mut plain.borrow_mut())
        });
    }
}

/// Fixed against random keys, expanded.
fn expand(runner: &mut CtRunner, rng: &mut BenchRng) {
    for (class, keep) in classes(rng) {
        let mut random = [0; 32];
        rng.fill(&mut random);
        let key = random.map(|byte: u8| byte & keep);
        runner.run_one(class, || CtrKey::with_width(black_box(&key), [0; 8], Width::Aes128));
    }
}

macro_rules! checks {
    ($($name:ident: $work:ident($width:ident, $len:expr, $by_key:expr);)*) => {
        $(fn $name(runner: &mut CtRunner, rng: &mut BenchRng) {
            $work(runner, rng, Width::$width, $len, $by_key);
        })*

        const CHECKS: &[(&str, Width, BenchFn)] = &[
            $((stringify!($name), Width::$width, $name),)*
            ("schedule", Width::Aes128, expand),
            ("tag", Width::Portable, compare),
        ];
    };
}

checks! {
    aesni_data_100: apply(Aes128, 100, false);
    aesni_key_100: apply(Aes128, 100, true);
    aesni_data_16k: apply(Aes128, 16 << 10, false);
    aesni_key_16k: apply(Aes128, 16 << 10, true);
    vaes256_data_100: apply(Vaes256, 100, false);
    vaes256_key_100: apply(Vaes256, 100, true);
    vaes256_data_16k: apply(Vaes256, 16 << 10, false);
    vaes256_key_16k: apply(Vaes256, 16 << 10, true);
    vaes512_data_100: apply(Vaes512, 100, false);
    vaes512_key_100: apply(Vaes512, 100, true);
    vaes512_data_16k: apply(Vaes512, 16 << 10, false);
    vaes512_key_16k: apply(Vaes512, 16 << 10, true);
    gcm_aesni_data_100: seal(Aes128, 100, false);
    gcm_aesni_key_100: seal(Aes128, 100, true);
    gcm_aesni_data_16k: seal(Aes128, 16 << 10, false);
    gcm_aesni_key_16k: seal(Aes128, 16 << 10, true);
    gcm_vaes256_data_100: seal(Vaes256, 100, false);
    gcm_vaes256_key_100: seal(Vaes256, 100, true);
    gcm_vaes256_data_16k: seal(Vaes256, 16 << 10, false);
    gcm_vaes256_key_16k: seal(Vaes256, 16 << 10, true);
    gcm_vaes512_data_100: seal(Vaes512, 100, false);
    gcm_vaes512_key_100: seal(Vaes512, 100, true);
    gcm_vaes512_data_16k: seal(Vaes512, 16 << 10, false);
    gcm_vaes512_key_16k: seal(Vaes512, 16 << 10, true);
}

fn main() -> std::io::Result<()> {
    // Cargo passes options of its own.
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let mut benches = Vec::new();
    for (name, width, benchfn) in CHECKS.iter().copied() {
        if width.is_available() {
            benches.push(BenchMetadata { name: BenchName(name), seed: None, benchfn });
        } else {
            println!("skipped: {name}, because this machine has no {}", width.name());
        }
    }
    run_benches_console(BenchOpts { filter, ..BenchOpts::default() }, benches)
}
