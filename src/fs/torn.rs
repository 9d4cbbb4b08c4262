//! Files of which only a beginning could be read, for reports.

use std::path::PathBuf;

use serde::Serialize;

use crate::suite::log::{Torn, TornReason};

/// A log that could only be read up to its first frame that is not good, or a file of suite 1
/// that was copied up to the first place that was never
/// [written](crate::Reader::written_len). Field names are stable: they are the JSON of the
/// command line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TornFile {
    /// The file.
    #[serde(serialize_with = "crate::shown::path")]
    pub path: PathBuf,
    /// What ended it; `None` for a log that became shorter while it was backed up.
    pub reason: Option<TornReason>,
    /// Plaintext bytes in front of it, which are good.
    pub kept_bytes: u64,
    /// Bytes on disk behind them, which are not read.
    pub lost_bytes: u64,
}

impl TornFile {
    /// What [`Reader::torn`](crate::Reader::torn) says of a file.
    pub fn new(path: PathBuf, torn: &Torn) -> Self {
        Self {
            path,
            reason: Some(torn.reason),
            kept_bytes: torn.offset_bytes,
            lost_bytes: torn.len_bytes,
        }
    }
}
