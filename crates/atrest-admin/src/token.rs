//! The bearer token.

use std::fmt;
use std::path::Path;

use atrest::kms::SecretFile;
use atrest::{Error, ErrorKind, Result};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Shortest token: 16 random bytes in base64 are longer.
const LEN_MIN: usize = 16;
/// Longest token, far above any in use, so that a wrong file is not read whole.
const LEN_MAX: usize = 4096;

/// The token that a client has to show. Only its SHA-256 is kept, and digests are
/// compared in constant time, so that neither content nor length shows in the time taken.
pub struct Token([u8; 32]);

impl Token {
    /// A token of 16 to 4096 visible ASCII characters.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument).
    pub fn new(token: &str) -> Result<Self> {
        let len = token.len();
        if !(LEN_MIN..=LEN_MAX).contains(&len) {
            let what = format!("expected a token of {LEN_MIN} to {LEN_MAX} bytes, found {len}");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            let what = "expected a token of visible ASCII characters without spaces";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        Ok(Self(Sha256::digest(token).into()))
    }

    /// The token in a file that its owner alone can access (mode 0600 or stricter), or, of a
    /// file of root's, its group can read; a line end after it does not count.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for the file's mode or content,
    /// [`Io`](ErrorKind::Io).
    pub fn from_file(path: &Path) -> Result<Self> {
        let io = |error| Error::io("the token file cannot be read", error).with_path(path);
        let refuse = |what| Error::new(ErrorKind::InvalidArgument, what).with_path(path);
        let file = SecretFile::read(path, LEN_MAX + 2).map_err(io)?;
        file.check_private()
            .map_err(|why| refuse(format!("others may use the token file: {why}")))?;
        let text = std::str::from_utf8(file.bytes())
            .map_err(|_| refuse("expected a token of visible ASCII characters".into()))?;
        Self::new(text.trim_end_matches(['\r', '\n'])).map_err(|error| error.with_path(path))
    }

    /// Whether an `Authorization` header's value shows this token.
    pub(crate) fn is_shown_by(&self, authorization: &[u8]) -> bool {
        const SCHEME: &[u8] = b"bearer ";
        let Some((scheme, token)) = authorization.split_at_checked(SCHEME.len()) else {
            return false;
        };
        let digest: [u8; 32] = Sha256::digest(token).into();
        scheme.eq_ignore_ascii_case(SCHEME) && bool::from(digest.ct_eq(&self.0))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_is_accepted() {
        let token = Token::new("0123456789abcdef").expect("valid");
        assert!(token.is_shown_by(b"Bearer 0123456789abcdef"));
        assert!(token.is_shown_by(b"bearer 0123456789abcdef"));
        for bad in [
            &b""[..],
            b"Bearer",
            b"Bearer ",
            b"Bearer 0123456789abcde",
            b"Bearer 0123456789abcdef ",
            b"Bearer 0123456789abcdeF",
            b"Basic  0123456789abcdef",
            b"0123456789abcdef",
        ] {
            assert!(!token.is_shown_by(bad), "{bad:?}");
        }
        assert_eq!(format!("{token:?}"), "Token(..)");
        drop(Token::new("short").expect_err("too short"));
        drop(Token::new("0123456789 abcdef").expect_err("a space"));
    }

    #[test]
    fn a_token_file_is_read_without_waiting() {
        use std::os::unix::fs::PermissionsExt as _;

        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        std::fs::write(&path, "0123456789abcdef\r\n").expect("written");
        for (mode, good) in [(0o600, true), (0o400, true), (0o660, false), (0o604, false)] {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, permissions).expect("changed");
            assert_eq!(Token::from_file(&path).is_ok(), good, "{mode:o}");
        }
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.is_ok_and(|status| status.success()));
        for path in [pipe.as_path(), dir.path(), Path::new("/dev/zero")] {
            let refused = Token::from_file(path).expect_err("no regular file");
            assert!(matches!(refused.kind(), ErrorKind::Io(_)), "{refused}");
        }
    }
}
