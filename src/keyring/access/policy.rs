//! How often access to the customer's key is checked, and how long it may be unclear.

use std::time::Duration;

use crate::kms::LapsedCredential;

/// How long a store goes on while its key service does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grace {
    /// Not at all: the first check without an answer suspends the store.
    None,
    /// This long from the first check without an answer.
    For(Duration),
    /// Forever: an outage never suspends the store. Whoever cuts it off from its key
    /// service then keeps it running.
    Forever,
}

impl Grace {
    /// `None` for endless.
    fn time(self) -> Option<Duration> {
        match self {
            Self::None => Some(Duration::ZERO),
            Self::For(grace) => Some(grace),
            Self::Forever => None,
        }
    }
}

/// When a process checks that it may still use the customer's key, and when it gives its
/// keys up. It holds for this process and is stored nowhere.
///
/// Opening a store never uses grace: no key service, no keys.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct AccessPolicy {
    /// Between two checks, give or take a tenth. The first one after an opening, and after an
    /// outage or a loss of access, comes at any moment between a tenth of it and that end, so
    /// that many processes which begin together do not ask together. Default: 5 minutes.
    pub check_interval: Duration,
    /// Longest time for one check, all slots and retries together. Default: 15 s.
    pub check_deadline: Duration,
    /// Denials in a row before access counts as lost; at least 1. Default: 3.
    pub confirmations: u32,
    /// Shortest time between the first and the last of them. Default: 30 s.
    pub confirm_over: Duration,
    /// Longest time between a denial and either a good check or the loss of access, if
    /// the service does not answer often enough to confirm. Default: 5 minutes.
    pub suspicion_max: Duration,
    /// Default: 1 hour.
    pub unreachable_grace: Grace,
    /// How long a process goes on that cannot follow the keyring: its storage does not
    /// answer, or another process changed it so that it does not open with the keys given
    /// here. Access that was withdrawn in the store, a slot that was removed and a data key
    /// that is to be destroyed are noticed no other way. The keyring is read every
    /// `check_interval`. Default: 1 hour.
    pub view_grace: Grace,
    /// What it means that the key service does not accept this process's credentials.
    /// Default: [`NoAnswer`](LapsedCredential::NoAnswer). Then who takes access away by taking
    /// the credentials away has the bound [`worst_case_unreachable`](Self::worst_case_unreachable);
    /// with [`Denial`](LapsedCredential::Denial) it is [`worst_case`](Self::worst_case).
    pub lapsed_credential: LapsedCredential,
    /// Between two checks while the service does not answer or access is lost, give or
    /// take a tenth, whatever it said, be it that the key is destroyed: no longer than this,
    /// a tenth and one `check_deadline` after the service gives the key again files work
    /// again, if the storage answers. Default: 1 minute, and so less than 2.
    pub recovery_interval: Duration,
}

impl Default for AccessPolicy {
    fn default() -> Self {
        Self {
            check_interval: Duration::from_secs(300),
            check_deadline: Duration::from_secs(15),
            confirmations: 3,
            confirm_over: Duration::from_secs(30),
            suspicion_max: Duration::from_secs(300),
            unreachable_grace: Grace::For(Duration::from_secs(3600)),
            view_grace: Grace::For(Duration::from_secs(3600)),
            lapsed_credential: LapsedCredential::NoAnswer,
            recovery_interval: Duration::from_secs(60),
        }
    }
}

impl AccessPolicy {
    /// Longest time from the moment at which the key service begins to deny access to the
    /// moment at which every file refuses, if the service answers: with interval `I`,
    /// deadline `D`, `n` confirmations over `C`
    ///
    /// ```text
    /// 2 D + 1.1 I + C + (n - 1) D
    /// ```
    ///
    /// since the last good answer may have been `D` on its way, the next check begins at
    /// most `1.1 I` later, and each denial takes at most `D`. 7 minutes by default; 6
    /// minutes with a service that answers at once. The time that the service itself
    /// takes to heed its new policy comes on top.
    ///
    /// It holds whatever the storage does, and whatever other operations wait for, where
    /// the keyring has its [own threads](super::Options::background), or a thread of the
    /// caller's does nothing but [`watch`](super::Access::watch).
    ///
    /// ```
    /// # use atrest::keyring::AccessPolicy;
    /// assert_eq!(AccessPolicy::default().worst_case().as_secs(), 7 * 60);
    /// ```
    pub fn worst_case(&self) -> Duration {
        let rounds = self.confirmations.saturating_sub(1);
        let round = self.confirm_spacing().saturating_add(self.check_deadline);
        self.until_first_answer().saturating_add(round.saturating_mul(rounds))
    }

    /// The same if the service may stop answering at any moment, as when somebody cuts
    /// the store off: with grace `G` and longest suspicion `S`
    ///
    /// ```text
    /// 2 D + 1.1 I + max(G, S) + D
    /// ```
    ///
    /// `None` with [`Grace::Forever`]: then nothing ends it.
    pub fn worst_case_unreachable(&self) -> Option<Duration> {
        let grace = self.grace()?.max(self.suspicion_max);
        Some(self.until_first_answer().saturating_add(grace).saturating_add(self.check_deadline))
    }

    /// How long a good check vouches for access while no other check gives an answer.
    pub(super) fn lease(&self) -> Option<Duration> {
        Some(self.until_first_answer().saturating_add(self.grace()?))
    }

    /// How long what was read of the keyring vouches for the keys.
    pub(super) fn view_lease(&self) -> Option<Duration> {
        Some(self.until_first_answer().saturating_add(self.view_grace.time()?))
    }

    /// `None` for endless.
    pub(super) fn grace(&self) -> Option<Duration> {
        self.unreachable_grace.time()
    }

    pub(super) fn confirm_spacing(&self) -> Duration {
        let rounds = self.confirmations.saturating_sub(1);
        let spacing = self.confirm_over.checked_div(rounds).unwrap_or_default();
        // Rounded up, so that the last confirmation is not a nanosecond early.
        spacing.saturating_add(Duration::from_nanos(1)).min(self.confirm_over)
    }

    fn until_first_answer(&self) -> Duration {
        let interval = self.check_interval.saturating_add(self.check_interval / 10);
        interval.saturating_add(self.check_deadline.saturating_mul(2))
    }
}
