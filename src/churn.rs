//! Old keys go away: which files are under which data key, which of them an engine should
//! rewrite first, and rewriting those that never change by themselves.
//!
//! New files get the newest data key; old files change only when the engine rewrites
//! them. [`EncryptedFs::usage`](crate::EncryptedFs::usage) tells how far that is.

mod reencrypt;
mod retire;
mod stale;
mod throttle;
mod usage;
mod visitors;

pub use crate::scan::{OnScan, ScanProgress};
pub use reencrypt::{CommitHook, Reencrypt, ReencryptProgress, ReencryptReport, Skipped, SpecOf};
pub use retire::DestructionProof;
pub use stale::{StaleFile, StaleFiles, StaleJudge, StalePolicy, StaleReason};
pub use usage::{Count, KeyUsage, UnknownKeyUsage, Usage, churned_in};
