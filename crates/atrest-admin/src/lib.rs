//! The status API, the metrics and the health of stores encrypted with [`atrest`], over
//! HTTP.
//!
//! [`router`] is an axum router that an engine mounts beside its own routes;
//! [`Server`] serves it alone, on loopback or over TLS, as `atrest serve` does. The API
//! has the paths and the schema of CockroachDB Cloud's CMEK API, so that its clients can
//! talk to it, and restores what was revoked.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use atrest::{Keyring, keyring::DirectoryStorage, kms::KeyFile};
//! use atrest_admin::{AdminState, Keys, Store, Token, router};
//!
//! # fn main() -> atrest::Result<()> {
//! # let kms = Arc::new(KeyFile::new("cmek.key")?);
//! # let keyring = Keyring::open(DirectoryStorage::new("data"), kms, Default::default())?;
//! let keys = Keys::new(atrest::kms::from_uri).allow("file:///etc/app/keys/")?;
//! let state = AdminState::new(Token::from_file("admin.token".as_ref())?, keys)
//!     .with_cluster("orders", vec![Store::of_keyring("eu-central-1", keyring)])?;
//! let routes = router(state); // An `axum::Router`.
//! # let _ = routes;
//! # Ok(())
//! # }
//! ```
//!
//! Whoever has the token can take the store away from its users and put it under another
//! of the keys allowed. No answer holds a secret.

mod api;
mod cluster;
mod connections;
mod events;
#[cfg(feature = "danger-internals")]
mod fuzz;
mod health;
mod info;
mod keys;
mod looks;
mod metered;
mod metrics;
mod operation;
mod router;
mod rpc;
mod server;
mod stall;
mod state;
mod store;
mod time;
mod token;

pub use api::{
    ActionRequest, ClusterInfo, ClusterSpec, CmekStatus, CustomerAction, KeyInfo, KeySpec, KeyType,
    RegionInfo, RegionSpec,
};
pub use keys::Keys;
pub use metered::KmsMetrics;
pub use router::{OPENAPI, router};
pub use server::{PlainHttp, Server, tls_config};
pub use state::AdminState;
pub use store::Store;
pub use token::Token;

/// What the fuzz target calls.
#[cfg(feature = "danger-internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::fuzz::requests;
}
