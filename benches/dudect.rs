//! Whether the time of the kernels depends on the key or on the data.
//!
//! `cargo bench --bench dudect --features danger-internals [FILTER]` on a quiet machine. The method
//! is that of O. Reparaz, J. Balasch and I. Verbauwhede, *Dude, is my code constant time?* (2017):
//! class `Fixed` uses one key or plaintext, class `Random` random ones, and Welch's t-test compares
//! their times, of all samples and of those below a hundred thresholds, since what disturbs a
//! machine makes samples slow. The greatest |t| of them counts. Over 4.5 in every one of several
//! runs hints at a leak, over 10 is one; so the least of the runs is what to look at. Calls of one
//! class are otherwise the same: each round key schedule and buffer has its place in memory, filled
//! before the clock starts.

use std::hint::black_box;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use atrest::internals::{CtrKey, GcmKey, Width};

const SAMPLES: usize = 40_000;
const RUNS: usize = 5;

#[derive(Clone, Copy, PartialEq)]
enum Class {
    Fixed,
    Random,
}

/// The times of one run.
#[derive(Default)]
struct Times {
    fixed_ns: Vec<f64>,
    random_ns: Vec<f64>,
}

impl Times {
    fn run_one<T>(&mut self, class: Class, mut work: impl FnMut() -> T) {
        let begun = Instant::now();
        black_box(work());
        let ns = begun.elapsed().as_nanos() as f64;
        match class {
            Class::Fixed => self.fixed_ns.push(ns),
            Class::Random => self.random_ns.push(ns),
        }
    }

    /// The greatest |t|.
    fn t_max(&self) -> f64 {
        let mut all = [&self.fixed_ns[..], &self.random_ns[..]].concat();
        all.sort_by(f64::total_cmp);
        // As the paper's authors crop: densest near the slow end.
        let threshold = |i: i32| {
            let share = 1.0 - 0.5_f64.powf(10.0 * f64::from(i + 1) / 100.0);
            all[((all.len() as f64 * share) as usize).min(all.len() - 1)]
        };
        let thresholds = (0..100).map(threshold).chain([f64::INFINITY]);
        thresholds.map(|below| welch(&self.fixed_ns, &self.random_ns, below)).fold(0.0, f64::max)
    }
}

/// |t| of the samples up to a threshold; 0 where there are too few to say.
fn welch(one: &[f64], other: &[f64], below: f64) -> f64 {
    let of = |samples: &[f64]| {
        let kept: Vec<f64> = samples.iter().copied().filter(|ns| *ns <= below).collect();
        let n = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / n;
        let variance = kept.iter().map(|ns| (ns - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (kept.len(), mean, variance / n)
    };
    let ((n, mean, variance), (m, other_mean, other_variance)) = (of(one), of(other));
    let spread = variance + other_variance;
    if n.min(m) < 500 || spread <= 0.0 { 0.0 } else { (mean - other_mean).abs() / spread.sqrt() }
}

/// SplitMix64: quick, and good enough for what it is compared with.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            piece.copy_from_slice(&self.next().to_le_bytes()[..piece.len()]);
        }
    }
}

type Check = fn(&mut Times, &mut Rng);

/// The class of each sample, and what its secret bytes are masked with.
fn classes(rng: &mut Rng) -> Vec<(Class, u8)> {
    (0..SAMPLES)
        .map(|_| if rng.next() & 1 == 0 { (Class::Fixed, 0) } else { (Class::Random, 0xff) })
        .collect()
}

/// Fixed against random data under one key, or with `by_key` fixed against random keys.
fn apply(times: &mut Times, rng: &mut Rng, width: Width, len: usize, by_key: bool) {
    let (mut key, mut data) = ([0; 32], vec![0; len]);
    let mut buf = vec![0; len];
    for (class, keep) in classes(rng) {
        // Drawn for both classes, so that both leave the caches alike.
        rng.fill(&mut key);
        rng.fill(&mut data[..]);
        for byte in &mut key {
            *byte &= if by_key { keep } else { 0 };
        }
        for (to, byte) in buf.iter_mut().zip(&data) {
            *to = byte & if by_key { 0 } else { keep };
        }
        let Some(ctr) = CtrKey::with_width(&key, [0; 8], width) else {
            return;
        };
        times.run_one(class, || ctr.apply_in_place(black_box(1), black_box(&mut buf)));
    }
}

/// The same for sealing.
fn seal(times: &mut Times, rng: &mut Rng, width: Width, len: usize, by_key: bool) {
    let (mut key, mut data) = ([0; 32], vec![0; len]);
    let mut buf = vec![0; len];
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
        times.run_one(class, || gcm.seal(0, b"", black_box(&data), &mut buf));
    }
}

/// Tags that are wrong in the first byte against tags that are wrong in the last one.
fn compare(times: &mut Times, rng: &mut Rng) {
    let gcm = GcmKey::from_parts(&[1; 32], &[0; 12]);
    let mut sealed = vec![0; 100];
    let tag = gcm.seal(0, b"", &[0; 100], &mut sealed);
    let mut plain = vec![0; 100];
    for (class, keep) in classes(rng) {
        let mut wrong = tag;
        wrong[0] ^= 1 & !keep;
        wrong[15] ^= 1 & keep;
        times.run_one(class, || {
            gcm.open(0, b"", black_box(&sealed), black_box(&wrong), 0, &mut plain)
        });
    }
}

/// Fixed against random keys, expanded.
fn expand(times: &mut Times, rng: &mut Rng) {
    for (class, keep) in classes(rng) {
        let mut random = [0; 32];
        rng.fill(&mut random);
        let key = random.map(|byte: u8| byte & keep);
        times.run_one(class, || CtrKey::with_width(black_box(&key), [0; 8], Width::Aes128));
    }
}

/// A comparison that ends at the first difference: what a leak looks like on this machine. Not
/// seen, the others say nothing.
fn leaky(times: &mut Times, rng: &mut Rng) {
    let right = [7_u8; 1024];
    for (class, keep) in classes(rng) {
        let mut wrong = right;
        wrong[0] ^= 1 & !keep;
        wrong[1023] ^= 1 & keep;
        times.run_one(class, || {
            let differs = |(a, b): (&u8, &u8)| black_box(*a) != black_box(*b);
            black_box(&right).iter().zip(black_box(&wrong)).position(differs)
        });
    }
}

macro_rules! checks {
    ($($name:ident: $work:ident($width:ident, $len:expr, $by_key:expr);)*) => {
        $(fn $name(times: &mut Times, rng: &mut Rng) {
            $work(times, rng, Width::$width, $len, $by_key);
        })*

        const CHECKS: &[(&str, Width, Check)] = &[
            $((stringify!($name), Width::$width, $name),)*
            ("schedule", Width::Aes128, expand),
            ("tag", Width::Portable, compare),
            ("leaky", Width::Portable, leaky),
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

fn main() {
    // Cargo passes options of its own.
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut rng = Rng(since.as_nanos() as u64);
    println!("{SAMPLES} samples, {RUNS} runs: the greatest |t| of a run");
    println!("{:<24} {:>8} {:>8} {:>8}", "check", "least", "median", "most");
    for (name, width, check) in CHECKS.iter().filter(|(name, ..)| name.contains(&filter)) {
        if !width.is_available() {
            println!("{name:<24} skipped: this machine has no {}", width.name());
            continue;
        }
        let mut found: Vec<f64> = (0..RUNS)
            .map(|_| {
                let mut times = Times::default();
                check(&mut times, &mut rng);
                times.t_max()
            })
            .collect();
        found.sort_by(f64::total_cmp);
        let told = if found[0] > 4.5 { "  <- look" } else { "" };
        let [least, median, most] = [found[0], found[RUNS / 2], found[RUNS - 1]];
        println!("{name:<24} {least:>8.2} {median:>8.2} {most:>8.2}{told}");
    }
}
