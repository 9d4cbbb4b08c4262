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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_half_to_whole_of_a_longest_that_doubles_up_to_its_limit() {
        for jitter in [0, Jitter::MAX] {
            let mut pauses = Pauses::default();
            let longest = [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000];
            for most in longest.map(Duration::from_millis) {
                let expected = if jitter == 0 { most / 2 } else { most };
                assert_eq!(pauses.next(jitter), expected);
            }
        }
    }
}
