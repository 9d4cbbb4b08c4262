//! From `--cmek URI` to the customer's key, asking for passphrases where one is needed.
//! The only place that knows how a scheme is opened.

use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;

use atrest::ErrorKind;
use atrest::kms::{Kms, KmsErrorKind, Passphrase};
use zeroize::Zeroizing;

use crate::failure::{Failure, Result};
use crate::schemes;
use crate::signal::{self, NoEcho};

/// Where a passphrase may stand instead of being asked for.
pub(crate) const PASSPHRASE_VARIABLE: &str = "ATREST_PASSPHRASE";
/// The same for the new passphrase of `rotate cmek`.
pub(crate) const NEW_PASSPHRASE_VARIABLE: &str = "ATREST_NEW_PASSPHRASE";

const SEVERAL: &str = "May be given several times, for a store with several slots.";

/// `--cmek`, required.
#[derive(clap::Args)]
pub(crate) struct CmekArg {
    #[arg(long, value_name = "URI", env = "ATREST_CMEK")]
    #[arg(help = schemes::help(), long_help = schemes::long_help(""))]
    pub(crate) cmek: String,
}

/// `--cmek`, required, for each slot that is needed.
#[derive(clap::Args)]
pub(crate) struct CmeksArg {
    #[arg(long, value_name = "URI", env = "ATREST_CMEK", required = true)]
    #[arg(help = schemes::help(), long_help = schemes::long_help(SEVERAL))]
    cmek: Vec<String>,
}

impl CmeksArg {
    pub(crate) fn open(&self) -> Result<Vec<Arc<dyn Kms>>> {
        self.cmek.iter().map(|uri| open(uri, Words::Known, PASSPHRASE_VARIABLE)).collect()
    }
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
