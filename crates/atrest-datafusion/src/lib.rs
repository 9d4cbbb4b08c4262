#![doc = include_str!("../README.md")]

mod factory;
mod files;
mod sealed;

pub use factory::ParquetKeys;
pub use files::{FileCount, ParquetFiles};
