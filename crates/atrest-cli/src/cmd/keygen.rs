//! `atrest keygen`: a new customer's key in a file.

use std::io;
use std::path::{Path, PathBuf};

use atrest::kms::KeyUri;
use atrest::{Error, ErrorKind};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::key;
use crate::output::Out;
use crate::paint::{BOLD, clean};

const EXAMPLES: &str = "\
Examples:
  atrest keygen /etc/app/cmek.key
  atrest init data --cmek file:///etc/app/cmek.key

JSON fields: path, key_uri
";

/// Make a key file that can serve as the customer's key (CMEK).
///
/// 64 random bytes, readable by the owner alone. An existing file is never overwritten.
/// Keep a copy in a safe place, away from the data: without it nothing can be read.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to put it; must not exist.
    path: PathBuf,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    path: String,
    key_uri: String,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let path = std::path::absolute(&self.path)
            .map_err(|e| Failure::io("the path has no absolute form", &self.path, e))?;
        let key_uri = named(&path)?;
        let committing = crate::signal::Committing::begin();
        atrest::kms::generate_key_file(&path).map_err(|error| {
            let advice = match error.kind() {
                ErrorKind::Io(io::ErrorKind::AlreadyExists) => {
                    "give another path: a key that may be in use is never overwritten"
                }
                ErrorKind::Io(io::ErrorKind::NotFound) => "make the directory first",
                _ => return Failure::from(error),
            };
            Failure::from(error).advise(advice)
        })?;
        drop(committing);
        let report = Report { path: path.display().to_string(), key_uri };
        out.result(&report, || {
            format!(
                "Made the key file {}, readable by its owner alone.\n\
                 Use it as     --cmek {}\n\
                 Keep a copy away from the data: without this key nothing can be read.",
                BOLD.paint(&clean(&report.path)),
                clean(&report.key_uri),
            )
        })
    }
}

/// The URI of a key file at `path`. No command takes a key that no URI names.
fn named(path: &Path) -> Result<String> {
    let uri = path.to_str().map(|_| key::file_uri(path));
    match uri.filter(|uri| uri.parse::<KeyUri>().is_ok()) {
        Some(uri) => Ok(uri),
        None => {
            let what = "expected a path in UTF-8, without blanks and control characters, of at most 2000 bytes";
            let error = Error::new(ErrorKind::InvalidArgument, what).with_path(path);
            Err(Failure::from(error).advise("give another path: no key URI can name this one"))
        }
    }
}
