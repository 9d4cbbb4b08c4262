//! From `--cmek URI` to the customer's key, asking for passphrases where one is needed.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use atrest::ErrorKind;
use atrest::keyring::SlotInfo;
use atrest::kms::{Kms, KmsErrorKind, Passphrase};
use zeroize::Zeroizing;

use crate::failure::{Failure, Result};
use crate::schemes;
use crate::signal::{self, NoEcho};

/// Where a passphrase may stand instead of being asked for.
pub(crate) const PASSPHRASE_VARIABLE: &str = "ATREST_PASSPHRASE";
/// The same for the new passphrase of `rotate cmek`.
pub(crate) const NEW_PASSPHRASE_VARIABLE: &str = "ATREST_NEW_PASSPHRASE";

/// Where the customer's keys may stand instead of on the command line.
const CMEK_VARIABLE: &str = "ATREST_CMEK";

const SEVERAL: &str = "Once for each slot of a store with several. Without it: the variable \
                       ATREST_CMEK, several separated by blanks.";

/// `--cmek`, once for each key.
#[derive(clap::Args)]
pub(crate) struct CmekArgs {
    #[arg(long, value_name = "URI")]
    #[arg(help = schemes::help(), long_help = schemes::long_help(SEVERAL))]
    cmek: Vec<String>,
}

impl CmekArgs {
    /// The keys given; there may be none.
    pub(crate) fn open(&self) -> Result<Vec<Arc<dyn Kms>>> {
        self.uris().iter().map(|uri| open(uri, Words::Known, PASSPHRASE_VARIABLE)).collect()
    }

    /// The same of a command that cannot do without.
    pub(crate) fn some(&self) -> Result<Vec<Arc<dyn Kms>>> {
        let keys = self.open()?;
        if keys.is_empty() {
            return Err(expected("the customer's key, found none", "with --cmek URI"));
        }
        Ok(keys)
    }

    /// The one key of a store that is made.
    pub(crate) fn new_key(&self) -> Result<Arc<dyn Kms>> {
        match &self.uris()[..] {
            [uri] => open(uri, Words::New, PASSPHRASE_VARIABLE),
            [] => {
                let how =
                    "as --cmek file:///PATH, made by `atrest keygen /PATH`, or as another URI";
                Err(expected("the customer's key, found none", how))
            }
            uris => Err(expected(
                &format!("one customer's key for a new store, found {}", uris.len()),
                "with --cmek URI, add the others later with `atrest cmek add`",
            )),
        }
    }

    /// Whether anybody can wrap by the key of a slot, as the slot says or as the key does that
    /// is given for it: whoever wrote the keyring wrote the former.
    pub(crate) fn is_public(&self, slot: &SlotInfo) -> bool {
        let scheme = |uri: &str| uri.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        let of_slot = |uri: &String| scheme(uri) == scheme(&slot.key_uri);
        let given = self.uris();
        let mut all = given.iter().filter(|uri| of_slot(uri)).chain([&slot.key_uri]);
        all.any(|uri| atrest_kms::wraps_for_anybody(uri))
    }

    /// On the command line, or else in the variable. An empty one is as good as none.
    fn uris(&self) -> Vec<String> {
        if !self.cmek.is_empty() {
            return self.cmek.iter().filter(|uri| !uri.is_empty()).cloned().collect();
        }
        std::env::var(CMEK_VARIABLE).map_or(Vec::new(), |text| separated(&text))
    }
}

fn expected(what: &str, how: &str) -> Failure {
    let kind = ErrorKind::Kms(KmsErrorKind::Misconfigured);
    Failure::new(kind, format!("expected {what}"))
        .advise(format!("give it {how}; without --cmek it comes from {CMEK_VARIABLE}"))
}

/// The URIs in a text. Blanks separate them: no URI has any inside. What begins with no scheme
/// stays with what is in front of it, so that the error is about the whole.
fn separated(text: &str) -> Vec<String> {
    let mut uris: Vec<String> = Vec::new();
    for piece in text.split_inclusive(char::is_whitespace) {
        match uris.last_mut() {
            Some(uri) if !begins_with_scheme(piece) => uri.push_str(piece),
            _ => uris.push(piece.to_owned()),
        }
    }
    let trimmed = uris.iter().map(|uri| uri.trim().to_owned());
    trimmed.filter(|uri| !uri.is_empty()).collect()
}

fn begins_with_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    })
}

/// Whether the words of a passphrase are new, and so asked for twice.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Words {
    Known,
    New,
}

/// The customer's key that `uri` names. A passphrase comes from `variable`, or from the
/// terminal, without echo.
pub(crate) fn open(uri: &str, words: Words, variable: &str) -> Result<Arc<dyn Kms>> {
    if uri == "passphrase:" {
        return Ok(Arc::new(Passphrase::new(passphrase(words, variable)?)?));
    }
    atrest_kms::from_uri(uri).map_err(|error| {
        let failure = Failure::from(error);
        match std::path::absolute(uri) {
            Ok(path) if !uri.contains(':') && path.exists() => {
                failure.advise(format!("a key is given as a URI: --cmek {}", file_uri(&path)))
            }
            _ => failure,
        }
    })
}

/// The URI of a key file.
pub(crate) fn file_uri(path: &Path) -> String {
    format!("file://{}", path.display())
}

fn passphrase(words: Words, variable: &str) -> Result<String> {
    if let Ok(words) = std::env::var(variable) {
        return Ok(words);
    }
    // The prompt is on the terminal itself, whatever standard input and output are; but
    // without one on standard error nobody is there to see it.
    if !std::io::stderr().is_terminal() {
        let what = format!("expected a passphrase in the variable {variable}, or a terminal");
        let advice = format!("set {variable}, or run the command in a terminal");
        return Err(Failure::new(ErrorKind::Kms(KmsErrorKind::Misconfigured), what).advise(advice));
    }
    let prompt = if words == Words::New { "New passphrase: " } else { "Passphrase: " };
    let first = ask(prompt)?;
    if words == Words::New {
        let second = Zeroizing::new(ask("The same again: ")?);
        if first != *second {
            drop(Zeroizing::new(first));
            let failure = Failure::new(ErrorKind::InvalidArgument, "the two passphrases differ");
            return Err(failure.advise("run the command again and type the same words twice"));
        }
    }
    Ok(first)
}

fn ask(prompt: &str) -> Result<String> {
    let _no_echo = NoEcho::begin();
    rpassword::prompt_password(prompt).map_err(|error| {
        if error.kind() == std::io::ErrorKind::Interrupted {
            signal::interrupted();
        }
        atrest::Error::io("the terminal gives no passphrase", error).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_separate_uris() {
        let of = |text: &str| separated(text);
        assert_eq!(of(""), [""; 0]);
        assert_eq!(of("  "), [""; 0]);
        assert_eq!(of("env:A"), ["env:A"]);
        assert_eq!(
            of(" env:A\n\tfile:///b  hcvault://h/k,1 \n"),
            ["env:A", "file:///b", "hcvault://h/k,1"]
        );
        // No URIs: the error is about the whole.
        let wrong = of("file:///my own keys/a env:B");
        assert_eq!(wrong, ["file:///my own keys/a", "env:B"]);
        assert!(wrong[0].parse::<atrest::kms::KeyUri>().is_err());
        assert_eq!(of("cmek.key other"), ["cmek.key other"]);
    }
}
