//! The tests of `it` that need no SlateDB, under `object_store` 0.13.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

extern crate object_store_0_13 as object_store;

use atrest_object_store::v0_13 as served;

#[path = "../it/authenticated.rs"]
mod authenticated;
#[path = "../it/backup.rs"]
mod backup;
#[path = "../it/costs.rs"]
mod costs;
#[path = "../it/keyring.rs"]
mod keyring;
#[path = "../it/meddle.rs"]
mod meddle;
#[path = "../it/model.rs"]
mod model;
#[path = "../it/multipart.rs"]
mod multipart;
#[path = "../it/policy.rs"]
mod policy;
#[path = "../it/published.rs"]
mod published;
#[path = "../it/reads.rs"]
mod reads;
#[path = "../it/spy.rs"]
mod spy;
#[path = "../it/support.rs"]
mod support;
