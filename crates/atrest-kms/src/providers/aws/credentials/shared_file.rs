//! The shared credentials file: sections of `name = value` lines.

use atrest::kms::{KmsError, KmsErrorKind};

use super::Credentials;
use crate::environment::{Environment, read_secret_file};
use crate::secret::Secret;

/// The section's credentials, `None` if there is no file, section or key in it.
pub(super) fn read(
    environment: &Environment,
    profile: &str,
) -> Result<Option<Credentials>, KmsError> {
    let path = environment
        .plain("AWS_SHARED_CREDENTIALS_FILE")
        .or_else(|| Some(environment.home(".aws/credentials")?.to_str()?.to_owned()));
    let Some(path) = path else { return Ok(None) };
    match read_secret_file(&path, "credentials file") {
        Ok(text) => Ok(section(text.expose(), profile)),
        Err(error) if error.kind() == KmsErrorKind::Unauthenticated => Ok(None),
        Err(error) => Err(error),
    }
}

fn section(text: &str, profile: &str) -> Option<Credentials> {
    let (mut inside, mut key_id, mut secret_key, mut session_token) = (false, None, None, None);
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = name.trim() == profile;
        } else if let Some((name, value)) = line.split_once('=').filter(|_| inside) {
            let value = value.trim();
            match name.trim() {
                "aws_access_key_id" => key_id = Some(value.to_owned()),
                "aws_secret_access_key" => secret_key = Some(Secret::new(value.to_owned())),
                "aws_session_token" => session_token = Some(Secret::new(value.to_owned())),
                _ => {}
            }
        }
    }
    Some(Credentials { key_id: key_id?, secret_key: secret_key?, session_token, expires: None })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "[default]\naws_access_key_id = A\naws_secret_access_key=B=\n\
        # [other]\n[ other ]\n; comment\naws_access_key_id=C\naws_secret_access_key = D\n\
        aws_session_token = E\nregion = x\n[half]\naws_access_key_id=F\n";

    #[test]
    fn sections() {
        let found = section(FILE, "default").expect("a section");
        assert_eq!((found.key_id.as_str(), found.secret_key.expose()), ("A", "B="));
        assert!(found.session_token.is_none());
        let found = section(FILE, "other").expect("a section");
        assert_eq!(found.session_token.expect("a token").expose(), "E");
        assert!(section(FILE, "half").is_none());
        assert!(section(FILE, "missing").is_none());
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "[\\[\\]=# a\n]{0,80}") {
            drop(section(&text, "a"));
        }
    }
}
