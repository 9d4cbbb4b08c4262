//! A token for a while, as the server grants it.

use std::time::Duration;

use serde::Deserialize;

use crate::kept::{Fresh, Lasts};
use crate::secret::Secret;

/// A token with what its server said of it.
pub(super) struct Lease {
    pub(super) token: Secret,
    /// How long it lasted at first.
    pub(super) lifetime: Duration,
}

/// What a log-in and a renewal answer.
#[derive(Deserialize)]
pub(super) struct Leased {
    pub auth: Auth,
}

#[derive(Deserialize)]
pub(super) struct Auth {
    client_token: Secret,
    /// Seconds; 0 for ever.
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

/// A token that lasts `left` seconds, and lasted `at_first`. It is renewed in the middle of
/// its life, by whatever can.
pub(super) fn fresh(token: Secret, left: u64, at_first: Duration, renews: bool) -> Fresh<Lease> {
    let left = Duration::from_secs(left);
    let lasts =
        Lasts { good_for: left, lifetime: at_first, renew_before: renews.then_some(at_first / 2) };
    let lasts = Some(lasts).filter(|_| !left.is_zero());
    Fresh { value: Lease { token, lifetime: at_first }, lasts }
}

impl Auth {
    /// The token, which is one that was there before if its `first` lifetime is given.
    pub(super) fn into_fresh(self, first: Option<Duration>) -> Fresh<Lease> {
        let granted = Duration::from_secs(self.lease_duration);
        let at_first = first.unwrap_or(granted);
        // Near its longest life a token is renewed for less and less.
        let renews = match first {
            Some(first) => self.renewable && granted > first / 2,
            None => self.renewable,
        };
        fresh(self.client_token, self.lease_duration, at_first, renews)
    }
}
