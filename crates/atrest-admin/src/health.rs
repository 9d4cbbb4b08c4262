//! Liveness and readiness, which are not the same: starting a server again brings no revoked
//! key back.

use std::path::Path;

use atrest::keyring::AccessState;

use crate::info::state_of_closed;
use crate::state::AdminState;
use crate::store::{State, Store};

/// With less room no keyring is written, and so no rotation and no mark of a revocation: a
/// keyring is a few KiB.
const ROOM_MIN_BYTES: u64 = 64 * 1024;

/// How a store stands. The words are stable: they are the answer's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// Its directory is not there, or is not a directory any more.
    DirectoryGone,
    /// No key is in memory.
    Closed(AccessState),
    /// Nothing can be committed.
    DiskFull,
    /// The key service denied access, which is being confirmed.
    Suspect,
    /// The key service does not answer, or the keyring cannot be followed: until the grace
    /// is over all is well.
    Grace,
    Good,
}

impl Health {
    /// Of all stores the one that stands worst. Reads file systems.
    pub(crate) fn of(state: &AdminState) -> Self {
        let stores = state.clusters().values().flat_map(|cluster| &cluster.stores);
        let worst = stores.map(|store| Self::of_store(store)).min_by_key(|health| health.rank());
        worst.unwrap_or(Self::Good)
    }

    fn of_store(store: &Store) -> Self {
        let on_disk = store.path().map_or(Self::Good, of_directory);
        let access = match store.state() {
            State::Plain => Self::Good,
            State::Closed(closed) => Self::Closed(state_of_closed(&closed)),
            State::Open(keyring) => {
                let access = keyring.access().status();
                match access.state {
                    AccessState::Suspect => Self::Suspect,
                    AccessState::Unreachable => Self::Grace,
                    state if !state.serves() => Self::Closed(state),
                    _ if access.keyring_problem.is_some() => Self::Grace,
                    _ => Self::Good,
                }
            }
        };
        if on_disk.rank() < access.rank() { on_disk } else { access }
    }

    /// The worst first.
    fn rank(self) -> u8 {
        match self {
            Self::DirectoryGone => 0,
            Self::Closed(_) => 1,
            Self::DiskFull => 2,
            Self::Suspect => 3,
            Self::Grace => 4,
            Self::Good => 5,
        }
    }

    pub(crate) fn is_ready(self) -> bool {
        matches!(self, Self::Suspect | Self::Grace | Self::Good)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::DirectoryGone => "directory gone",
            Self::Closed(state) => state.as_str(),
            Self::DiskFull => "disk full",
            Self::Suspect => "suspect",
            Self::Grace => "grace",
            Self::Good => "ok",
        }
    }
}

fn of_directory(path: &Path) -> Health {
    match path.metadata() {
        Ok(metadata) if metadata.is_dir() => {}
        _ => return Health::DirectoryGone,
    }
    match rustix::fs::statvfs(path) {
        Ok(found) if is_full(&found) => Health::DiskFull,
        // What does not tell is tried by the next commit.
        _ => Health::Good,
    }
}

fn is_full(found: &rustix::fs::StatVfs) -> bool {
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    // Some file systems count no files.
    free < ROOM_MIN_BYTES || (found.f_files > 0 && found.f_favail == 0)
}
