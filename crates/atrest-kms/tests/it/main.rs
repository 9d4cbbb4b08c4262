//! Every provider against a real process of its service on 127.0.0.1.
//!
//! `tests/servers/install` puts the servers in place; the tests start and stop them. A
//! suite whose server does not start says so on standard error and is skipped, or fails
//! if `ATREST_REQUIRE_SERVERS=1`.

// Tests may panic: that is how they fail.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc)]

mod aws;
mod azure;
mod conformance;
mod denials;
mod encoding;
mod gcp;
mod kmip;
mod local;
mod outage;
mod pkcs11;
mod proxies;
mod registry;
mod secrecy;
mod servers;
mod uris;
mod vault;
mod vault_tokens;
