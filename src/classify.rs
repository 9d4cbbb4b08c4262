//! What a file is, by its first bytes. The one place that decides it.

use crate::error::ErrorKind;
use crate::header::{Header, KEYRING_MAGIC, begins_encrypted, is_unwritten};

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
    /// Zeros where a header would be: plaintext where that is allowed, and otherwise torn, a header
    /// that a power cut kept from the disk. [`where_plaintext_is`](Self::where_plaintext_is) tells.
    Unwritten,
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
        if is_unwritten(start) {
            return Self::Unwritten;
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

    /// What it is in a store that allows plaintext, or does not: never
    /// [`Unwritten`](Self::Unwritten).
    pub fn where_plaintext_is(self, allowed: bool) -> Self {
        match self {
            Self::Unwritten if allowed => Self::Plaintext,
            Self::Unwritten => Self::Torn,
            other => other,
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

    fn name(what: &Contents) -> &'static str {
        match what {
            Contents::Empty => "empty",
            Contents::Encrypted(_) => "encrypted",
            Contents::Torn => "torn",
            Contents::Unwritten => "unwritten",
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
            (&[0], "unwritten"),
            (&[0; HEADER_LEN], "unwritten"),
            (b"\0\0SSTable", "plaintext"),
        ] {
            assert_eq!(name(&Contents::of(start)), expected, "{start:?}");
            let allowed = Contents::of(start).where_plaintext_is(true);
            let plain = matches!(expected, "plaintext" | "unwritten");
            assert_eq!(name(&allowed), if plain { "plaintext" } else { expected });
            assert_eq!(begins_plaintext(start), plain, "{start:?}");
            let refused = Contents::of(start).where_plaintext_is(false);
            let torn = matches!(expected, "torn" | "unwritten");
            assert_eq!(name(&refused), if torn { "torn" } else { expected });
        }
    }
}
