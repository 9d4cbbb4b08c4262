//! What a program runs whose engine `atrest-bench soak` starts, steers and kills: writers, readers,
//! rotations and backups, and a model of what has to be there, which outlives a kill.
//!
//! Apart from the soak, so that an engine may be a program of its own: [`live`] is all of it but the
//! [`Engine`].

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod engine;
mod journal;
mod life;
mod rng;

pub use engine::{Engine, options};
pub use journal::Journal;
pub use life::{Done, Life, Said, Wrong, live};
pub use rng::Rng;

/// Whatever an engine says.
pub type Any<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;
