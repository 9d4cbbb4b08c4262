#![doc = include_str!("../README.md")]
#![allow(
    clippy::missing_panics_doc,
    clippy::unwrap_used,
    reason = "a broken contract ends the test by a panic, wherever it is found"
)]

mod backup;
mod clock;
mod engine;
mod keyring;
pub mod kms;
mod left_out;
pub mod mem_fs;
mod scripted;
mod vfs;

pub use backup::backup_target_conformance;
pub use clock::ManualClock;
pub use engine::{Answer, Engine, engine_conformance, engine_survives_kills};
pub use keyring::keyring_storage_conformance;
pub use kms::kms_conformance;
pub use left_out::left_out;
pub use mem_fs::MemFs;
pub use scripted::{Mode, ScriptedKms};
pub use vfs::vfs_conformance;
