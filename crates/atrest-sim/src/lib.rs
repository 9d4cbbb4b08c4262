//! Whole histories of a store on a disk that fails, with a look at every crash; and of a
//! keyring in a bucket whose answers get lost. A history follows from its seed.

#![allow(missing_docs, reason = "a program in two halves")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use serde::Serialize;

mod act;
mod bucket;
mod check;
mod lsm;
mod model;
mod rng;
mod shrink;
mod site;
mod steps;
mod world;

pub use shrink::shrink;

/// What is wrong, in words.
pub type Problem = String;

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Figures {
    /// Whole histories.
    pub histories: u64,
    /// Steps of them.
    pub steps: u64,
    /// Disks that a crash left, each opened and compared.
    pub images: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Steps that failed because of them.
    pub errors: u64,
    /// Processes that were killed.
    pub kills: u64,
    /// Crashes that a history went on from.
    pub crashes: u64,
    /// Requests to buckets.
    pub requests: u64,
}

impl Figures {
    /// Adds those of another run.
    pub fn add(&mut self, other: &Self) {
        self.histories += other.histories;
        self.steps += other.steps;
        self.images += other.images;
        self.faults += other.faults;
        self.errors += other.errors;
        self.kills += other.kills;
        self.crashes += other.crashes;
        self.requests += other.requests;
    }
}

/// Seeds of this remainder are histories of a bucket.
const BUCKET_IN: u64 = 64;

/// Lives through the history of a seed; through these of its steps alone, if some are given.
///
/// After each step at most `looks` disks that crashes may have left are opened, picked at random:
/// `usize::MAX` for all. Randomness goes on from there, so other `looks` is another history.
///
/// # Errors
/// What is wrong, with the step it was found in.
pub fn run(seed: u64, only: Option<&[usize]>, looks: usize) -> Result<Figures, Problem> {
    // Randomness is the process's.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    one_processor();
    atrest::forget_keystream();
    atrest::simulation::seed_randomness(Some(&seed.to_le_bytes()));
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        if seed.is_multiple_of(BUCKET_IN) {
            bucket::run(seed, only)
        } else {
            disk(seed, only, looks)
        }
    }));
    atrest::simulation::seed_randomness(None);
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// The steps of a seed, in words.
pub fn describe(seed: u64) -> Vec<String> {
    if seed.is_multiple_of(BUCKET_IN) {
        return bucket::describe(seed);
    }
    let (setup, items) = steps::history(seed);
    let items = items.iter().map(|item| format!("{item:?}"));
    [format!("{setup:?}")].into_iter().chain(items).collect()
}

/// How many steps the history of a seed has.
pub fn len(seed: u64) -> usize {
    if seed.is_multiple_of(BUCKET_IN) { bucket::len(seed) } else { steps::history(seed).1.len() }
}

fn disk(seed: u64, only: Option<&[usize]>, looks: usize) -> Result<Figures, Problem> {
    let (setup, items) = steps::history(seed);
    let mut world = world::World::new(seed, setup, looks);
    for item in &items {
        if only.is_none_or(|only| only.contains(&item.number)) {
            world
                .live(seed, item)
                .map_err(|problem| format!("step {}, {item:?}: {problem}", item.number))?;
        }
    }
    world.end().map_err(|problem| format!("at the end: {problem}"))?;
    world.figures.histories = 1;
    Ok(world.figures)
}

/// What uses threads for speed uses one, and so does the same in the same order each time.
fn one_processor() {
    let allowed = rustix::thread::sched_getaffinity(None);
    let Ok(allowed) = allowed else { return };
    let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu));
    if let Some(first) = first {
        let mut one = rustix::thread::CpuSet::new();
        one.set(first);
        // A machine that does not let it runs less alike.
        let _ = rustix::thread::sched_setaffinity(None, &one);
    }
}
