//! The library through its public API.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod access;
mod access_bound;
mod attributes;
mod backup;
mod bad_input;

mod counts;
mod crash;
mod credentials;
mod dependencies;
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
mod direct;
mod files;
mod golden;
mod independent;
mod keystream;
mod kms;
mod mapped;
mod moves;
mod processes;

mod recover;
mod renewal;
mod rotation;
mod rules;
mod slots;
mod suites;
mod support;
mod temporary;
mod verify;
