//! How an opening waits that the key service does not answer.

use std::time::Duration;

use super::machine::{Jitter, between};

/// Longest wait before the second try; doubled before each further one.
const FIRST: Duration = Duration::from_millis(250);
const MAX: Duration = Duration::from_secs(30);

/// The waits between its tries: each at random from half of its longest, so that processes
/// that were started together do not ask together when an outage ends.
pub(in super::super) struct Pauses {
    most: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { most: FIRST }
    }
}

impl Pauses {
    pub(in super::super) fn next(&mut self, jitter: Jitter) -> Duration {
        let half = self.most / 2;
        self.most = (self.most * 2).min(MAX);
        between(half, half, jitter)
    }
}
