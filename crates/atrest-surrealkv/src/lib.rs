#![doc = include_str!("../README.md")]

mod roots;
mod tree;

pub use roots::RootKeys;
pub use tree::EncryptedTree;
