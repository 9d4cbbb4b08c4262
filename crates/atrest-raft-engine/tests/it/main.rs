//! raft-engine on encrypted files.
#![allow(clippy::unwrap_used, missing_docs)]

mod keystream;
mod life;
mod support;
mod tail;
