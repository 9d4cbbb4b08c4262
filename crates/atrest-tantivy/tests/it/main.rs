//! An index of this repository's own texts.
#![allow(clippy::unwrap_used, missing_docs)]

mod crash;
mod directory;
mod index;
mod life;
mod support;
