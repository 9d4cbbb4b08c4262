//! SurrealKV under root keys of a store.
#![allow(clippy::unwrap_used, missing_docs)]

mod life;
mod roots;
mod support;
