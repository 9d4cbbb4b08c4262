//! What a file is, by its first bytes. The one place that decides it.

use crate::error::ErrorKind;
use crate::header::{Header, KEYRING_MAGIC, begins_encrypted};

/// What a file's first bytes say.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Contents {
    /// 0 bytes, as a crash between creation and first write leaves a file.
    Empty,
    /// A well-formed header; not proven by its key.
    Encrypted(Box<Header>),
    /// Fewer bytes than a header, beginning like one: nothing was ever readable in it.
    Torn,
    /// An encrypted file whose key nobody can tell, or a file that cannot be read.
    Unreadable(ErrorKind),
    /// The image of a keyring: never data, not even as plaintext.
    Keyring,
    /// Anything else. What another tool encrypted counts here.
    Plaintext,
}

impl Contents {
    /// Judges the first 4096 bytes of a file, or all of a shorter one.
    pub fn of(start: &[u8]) -> Self {
        if start.is_empty() {
            return Self::Empty;
        }
        if start.starts_with(&KEYRING_MAGIC) {
            return Self::Keyring;
        }
        if !begins_encrypted(start) {
            return Self::Plaintext;
        }
        match Header::parse(start) {
            Ok(header) => Self::Encrypted(Box::new(header)),
            Err(error) if error.kind() == ErrorKind::TruncatedHeader => Self::Torn,
            Err(error) => Self::Unreadable(error.kind()),
        }
    }

    /// The header of an encrypted file.
    pub fn header(&self) -> Option<&Header> {
        match self {
            Self::Encrypted(header) => Some(header),
            _ => None,
        }
    }
}

/// Whether a file that begins so may be read as plaintext, where plaintext is allowed:
/// the same answer as that of [`Contents::of`], without parsing a header.
pub(crate) fn begins_plaintext(start: &[u8]) -> bool {
    !start.is_empty() && !begins_encrypted(start) && !start.starts_with(&KEYRING_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{HEADER_LEN, MAGIC};

    fn name(start: &[u8]) -> &'static str {
        match Contents::of(start) {
            Contents::Empty => "empty",
            Contents::Encrypted(_) => "encrypted",
            Contents::Torn => "torn",
            Contents::Unreadable(_) => "unreadable",
            Contents::Keyring => "keyring",
            Contents::Plaintext => "plaintext",
        }
    }

    #[test]
    fn each_kind_of_start() {
        let mut whole = vec![0; HEADER_LEN];
        whole[..8].copy_from_slice(&MAGIC);
        for (start, expected) in [
            (&b""[..], "empty"),
            (b"SQLite format 3", "plaintext"),
            (b"age-encryption.org/v1", "plaintext"),
            (&KEYRING_MAGIC, "keyring"),
            (&whole, "unreadable"),
            // Never plaintext: it may be a header that a crash cut off.
            (&MAGIC[..1], "torn"),
            (&whole[..HEADER_LEN - 1], "torn"),
            // One byte is not yet a keyring's, and begins as a header does.
            (&KEYRING_MAGIC[..1], "torn"),
            (&KEYRING_MAGIC[..5], "plaintext"),
        ] {
            assert_eq!(name(start), expected, "{start:?}");
            assert_eq!(begins_plaintext(start), expected == "plaintext", "{start:?}");
        }
    }
}
