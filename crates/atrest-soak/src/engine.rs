//! What the soak asks of an engine.

use std::path::Path;
use std::time::Duration;

use atrest::Store;
use atrest::keyring::{AccessPolicy, Grace, Options};

use crate::{Any, Journal};

/// Records by number, each replaced as a whole.
pub trait Engine: Sync {
    /// Longest record in bytes.
    fn len_max(&self) -> usize;

    /// Durable when it returns.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn put(&self, key: u32, value: &[u8]) -> Any<()>;

    /// From the disk where the engine can be asked for that.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn get(&self, key: u32) -> Any<Option<Vec<u8>>>;

    /// Whose keys are rotated.
    fn store(&self) -> &Store;

    /// What it does besides now and then: re-encryption, retirement. How many keys it destroyed.
    ///
    /// # Errors
    /// Whatever the engine says.
    fn renew(&self) -> Any<u64>;

    /// A backup, and a restore of it, of which every record is held to the model. How many were.
    ///
    /// # Errors
    /// Whatever the engine says, and [`Wrong`](crate::Wrong) of a record.
    fn back_up(&self, scratch: &Path, journal: &Journal) -> Any<u64>;

    /// In good order.
    fn close(&self);
}

/// Everything sooner than in life, so that minutes see it all.
pub fn options() -> Options {
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
