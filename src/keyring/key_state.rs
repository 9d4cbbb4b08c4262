//! The states of a data key, and the bytes that stand for them.

use wincode::{SchemaRead, SchemaWrite};

/// What may be done with a data key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, SchemaRead, SchemaWrite)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
#[wincode(tag_encoding = "u8")]
pub enum KeyState {
    /// New files are encrypted under it.
    #[wincode(tag = 1)]
    Active,
    /// Old files are read with it.
    #[wincode(tag = 2)]
    DecryptOnly,
    /// Its wrapped bytes are erased; the record stays as proof.
    #[wincode(tag = 3)]
    Destroyed,
    /// No file is under it; it is destroyed after a time of grace.
    #[wincode(tag = 4)]
    Retiring,
}

impl KeyState {
    /// Whether another key has replaced it, and it can still be read with.
    pub(crate) fn is_replaced(self) -> bool {
        matches!(self, Self::DecryptOnly | Self::Retiring)
    }
}
