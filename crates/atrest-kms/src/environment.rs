//! Where providers find credentials and settings: environment variables, the process's or
//! a given set.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use atrest::kms::{KmsError, KmsErrorKind, SecretFile};

use crate::fail::fail;
use crate::secret::Secret;

/// The variables a provider reads its credentials and settings from, at each use.
///
/// [`process`](Self::process) is the environment of the process. A fixed set keeps the
/// credentials of several stores in one process apart. `Debug` shows no value.
#[derive(Clone)]
pub struct Environment(Variables);

#[derive(Clone)]
enum Variables {
    Process,
    Fixed(Arc<BTreeMap<String, Secret>>),
}

/// Longest token or credentials file, in bytes; real ones are a few KiB.
const FILE_LEN_MAX: usize = 64 * 1024;

impl Environment {
    /// The environment of the process.
    pub fn process() -> Self {
        Self(Variables::Process)
    }

    /// Only these variables.
    pub fn fixed<N: Into<String>, V: Into<String>>(
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), Secret::new(value.into())))
            .collect();
        Self(Variables::Fixed(Arc::new(variables)))
    }

    /// The variable, unless it is unset, empty or not UTF-8.
    pub(crate) fn var(&self, name: &str) -> Option<Secret> {
        let value = match &self.0 {
            Variables::Process => Secret::new(std::env::var(name).ok()?),
            Variables::Fixed(variables) => variables.get(name)?.clone(),
        };
        (!value.expose().is_empty()).then_some(value)
    }

    /// A variable that is not secret, such as a path or a region.
    pub(crate) fn plain(&self, name: &str) -> Option<String> {
        self.var(name).map(|value| value.expose().to_owned())
    }

    /// `path` in the home directory.
    pub(crate) fn home(&self, path: &str) -> Option<PathBuf> {
        Some(PathBuf::from(self.plain("HOME")?).join(path))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Variables::Process => f.write_str("Environment(process)"),
            Variables::Fixed(variables) => {
                f.write_str("Environment")?;
                f.debug_list().entries(variables.keys()).finish()
            }
        }
    }
}

/// Reads a small file of text that holds a credential, without the white space around it.
///
/// # Errors
/// `Unauthenticated` if there is no such file, or nothing in it. `Misconfigured` if it is
/// unreadable, no regular file, too long or not UTF-8.
pub(crate) fn read_secret_file(path: &str, what: &str) -> Result<Secret, KmsError> {
    let file = SecretFile::read(path, FILE_LEN_MAX).map_err(|source| {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => KmsErrorKind::Unauthenticated,
            _ => KmsErrorKind::Misconfigured,
        };
        fail(kind, format!("the {what} {path} cannot be read")).with_source(source)
    })?;
    match std::str::from_utf8(file.bytes()) {
        Ok(text) if !text.trim().is_empty() => Ok(Secret::new(text.trim().to_owned())),
        Ok(_) => Err(fail(KmsErrorKind::Unauthenticated, format!("the {what} {path} is empty"))),
        Err(_) => Err(fail(KmsErrorKind::Misconfigured, format!("the {what} is not UTF-8"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_names_only() {
        let environment = Environment::fixed([("VAULT_TOKEN", "s.hidden")]);
        let shown = format!("{environment:?}");
        assert!(shown.contains("VAULT_TOKEN") && !shown.contains("hidden"), "{shown}");
    }

    #[test]
    fn empty_counts_as_unset() {
        let environment = Environment::fixed([("A", ""), ("B", "b")]);
        assert!(environment.var("A").is_none());
        assert_eq!(environment.plain("B").as_deref(), Some("b"));
        assert!(environment.var("C").is_none());
    }
}
