//! Parquet files under keys of a keyring: by Parquet's own writer and reader, and by whole sessions of
//! DataFusion, over encrypted objects too.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod keys;
mod life;
#[path = "../../../atrest-cli/tests/it/moto.rs"]
mod moto;
mod retirement;
mod revocation;
mod sessions;
mod support;
mod warehouse;
