//! Interleaved pairs: machines are shared and noisy, so only what ran back to back is
//! compared, and only by the median of the ratios.

use std::time::{Duration, Instant};

use crate::Row;

/// How long to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Pairs of one measurement.
    pub pairs: usize,
    /// Time of one side of a pair.
    pub slice: Duration,
}

impl Effort {
    /// For a report to be published.
    pub const FULL: Self = Self { pairs: 61, slice: Duration::from_millis(5) };
    /// For a first look.
    pub const QUICK: Self = Self { pairs: 15, slice: Duration::from_millis(2) };
}

/// Seconds of one operation, medians of both sides, and the median of `b / a`.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    /// Of the first operation.
    pub a: f64,
    /// Of the second.
    pub b: f64,
    /// Median of `b / a` over the pairs: above 1 when the first is faster.
    pub b_over_a: f64,
}

/// Runs two operations in turn, the order changing from pair to pair.
pub fn interleaved(effort: Effort, a: &mut dyn FnMut(), b: &mut dyn FnMut()) -> Pair {
    let (count_a, count_b) = (calibrate(effort.slice, a), calibrate(effort.slice, b));
    let mut times_a = Vec::with_capacity(effort.pairs);
    let mut times_b = Vec::with_capacity(effort.pairs);
    let mut ratios = Vec::with_capacity(effort.pairs);
    for pair in 0..effort.pairs {
        let (time_a, time_b) = if pair % 2 == 0 {
            let time_a = time(count_a, a);
            (time_a, time(count_b, b))
        } else {
            let time_b = time(count_b, b);
            (time(count_a, a), time_b)
        };
        times_a.push(time_a);
        times_b.push(time_b);
        ratios.push(time_b / time_a);
    }
    Pair { a: median(&mut times_a), b: median(&mut times_b), b_over_a: median(&mut ratios) }
}

/// The row of two operations on as many bytes, in GB/s.
pub fn rate_row(
    name: String,
    effort: Effort,
    bytes: usize,
    ours: &mut dyn FnMut(),
    theirs: &mut dyn FnMut(),
) -> Row {
    let pair = interleaved(effort, ours, theirs);
    let rate = |seconds: f64| bytes as f64 / seconds / 1e9;
    let (atrest, peer) = (rate(pair.a), rate(pair.b));
    Row { name, unit: "GB/s", atrest, peer, ratio: pair.b_over_a }
}

/// Runs until a slice is filled; at least once.
fn calibrate(slice: Duration, operation: &mut dyn FnMut()) -> u32 {
    operation();
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed() < slice {
        operation();
        count += 1;
    }
    count.max(1)
}

fn time(count: u32, operation: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..count {
        operation();
    }
    start.elapsed().as_secs_f64() / f64::from(count)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
