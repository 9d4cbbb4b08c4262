//! What the soak asks of an engine.

use std::path::Path;
use std::time::Duration;

use atrest::Store;
use atrest::keyring::{AccessPolicy, Grace, Options};

use super::Any;
use super::journal::Journal;

/// Records by number, each replaced as a whole.
pub(super) trait Engine: Sync {
    /// Longest record in bytes.
    fn len_max(&self) -> usize;

    /// Durable when it returns.
    fn put(&self, key: u32, value: &[u8]) -> Any<()>;

    fn get(&self, key: u32) -> Any<Option<Vec<u8>>>;

    fn store(&self) -> &Store;

    /// What it does besides now and then: re-encryption, retirement. How many keys it destroyed.
    fn renew(&self) -> Any<u64>;

    /// A backup, and a restore of it, of which every record is held to the model. How many were.
    fn back_up(&self, scratch: &Path, journal: &Journal) -> Any<u64>;

    fn close(&self);
}

/// Everything sooner than in life, so that minutes see it all.
pub(super) fn options() -> Options {
    let mut options = Options::default();
    let access: &mut AccessPolicy = &mut options.access;
    access.check_interval = Duration::from_secs(1);
    access.check_deadline = Duration::from_secs(4);
    access.confirm_over = Duration::from_secs(1);
    access.suspicion_max = Duration::from_secs(8);
    access.recovery_interval = Duration::from_millis(500);
    access.unreachable_grace = Grace::For(Duration::from_secs(6));
    options
}
