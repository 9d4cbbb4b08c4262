//! The encrypting store through its public API.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

use atrest_object_store::v0_14 as served;

/// foyer fills its blocks up with whatever stood in memory, plaintext among it.
#[global_allocator]
static ALLOCATOR: atrest::WipingAllocator = atrest::WipingAllocator;

mod authenticated;
mod backup;
mod caches;
mod churn;
mod costs;
mod engine;
mod foyer;
mod keyring;
mod liar;
mod lies;
mod meddle;
mod model;
mod multipart;
mod policy;
mod published;
mod reads;
mod retries;
mod spy;
mod steering;
mod support;
mod tamper;
mod versions;
