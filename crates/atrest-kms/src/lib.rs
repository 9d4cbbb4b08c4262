#![doc = include_str!("../README.md")]

mod from_uri;
mod providers;
mod public;

// What providers share; each uses its part, all of them together use all of it.
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod environment;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod fail;
#[cfg(feature = "_rest")]
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod kept;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod provider;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod redact;
#[cfg(feature = "_rest")]
mod rest;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod retry;
#[cfg(feature = "danger-internals")]
mod script;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod secret;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod time;
#[cfg_attr(not(feature = "all"), allow(dead_code))]
mod uri;

pub use environment::Environment;
pub use from_uri::{from_uri, from_uri_with, schemes};
pub use providers::Scheme;
pub use public::wraps_for_anybody;

/// What the fuzz targets call.
#[cfg(feature = "danger-internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::providers::fuzz::{aws, azure, gcp, key_uri, kmip, vault};
}
