//! The command `atrest`, run as a process.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod backup;
mod bad_input;
mod buckets;
mod cmek;
mod core_dumps;
#[cfg(feature = "demo")]
mod demo;
mod disks;
mod doctor;
mod exit_codes;
mod few_threads;
mod fields;
mod help;
mod interruption;
mod json;
mod keys;
mod kill;
mod moto;
mod open_files;
mod opening;
mod passphrases;
mod pins;
mod round_trip;
mod s3;
mod serve;
mod slots;
mod support;
mod torn;
