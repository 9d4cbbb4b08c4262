//! `atrest init`: a new store.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atrest::keyring::DirectoryStorage;
use atrest::{DataKeyId, Keyring, PlaintextPolicy, StoreId, StoreKeyId, Suite};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::key::{self, CmekArg, Words};
use crate::output::{BOLD, Out, clean, warn};
use crate::{scan, signal, store, units};

const EXAMPLES: &str = "\
Examples:
  atrest init data --cmek file:///etc/app/cmek.key
  atrest init data --cmek passphrase:
  atrest init data --cmek env:CMEK --rotation-period 7d --rotation-bytes 1TiB
  atrest init ledger --cmek env:CMEK --authenticated
  atrest init old-data --cmek file:///etc/app/cmek.key --allow-plaintext

JSON fields: directory, store_id, store_key_id, data_key_id, key_uri, rotation_period_s,
rotation_bytes, plaintext, minimum_suite, plaintext_files
";

/// Create a store: a directory with a keyring.
///
/// DIR is created if needed. A random store key is made and wrapped by the customer's
/// key; the first data key is made and wrapped by the store key.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The store's directory.
    dir: PathBuf,
    #[command(flatten)]
    cmek: CmekArg,
    /// Age at which the data key rotates.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = units::parse_duration)]
    rotation_period: Duration,
    /// Bytes after which the data key rotates; without it only age counts.
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    rotation_bytes: Option<u64>,
    /// Read files that are not encrypted, from before encryption was switched on.
    #[arg(long)]
    allow_plaintext: bool,
    /// Refuse files whose body is not authenticated (suite 1), and write none.
    #[arg(long)]
    authenticated: bool,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    directory: String,
    store_id: StoreId,
    store_key_id: StoreKeyId,
    data_key_id: DataKeyId,
    key_uri: String,
    rotation_period_s: u64,
    rotation_bytes: Option<u64>,
    plaintext: PlaintextPolicy,
    minimum_suite: Suite,
    plaintext_files: u64,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let kms = key::open(&self.cmek.cmek, Words::New, key::PASSPHRASE_VARIABLE)?;
        let mut options = store::options();
        options.settings.rotation_period = self.rotation_period;
        options.settings.rotation_bytes = self.rotation_bytes;
        if self.allow_plaintext {
            options.settings.plaintext = PlaintextPolicy::Allow;
        }
        if self.authenticated {
            options.settings.minimum_suite = Suite::Aes256GcmChunks;
        }
        let committing = signal::Committing::begin();
        let made = make_directories(&self.dir)?;
        let created = Keyring::create(DirectoryStorage::new(&self.dir), kms, options);
        let keyring = created.map_err(|error| {
            made.take_back(&self.dir);
            Failure::from(error.with_path(&self.dir))
        })?;
        drop(committing);
        let status = keyring.status();
        let scan = scan::scan(&self.dir, None, out.is_json())?;
        let report = Report {
            directory: self.dir.display().to_string(),
            store_id: keyring.store_id(),
            store_key_id: status.info.store_key_id,
            data_key_id: keyring.keys().active_id()?,
            key_uri: status.info.slots[0].key_uri.clone(),
            rotation_period_s: self.rotation_period.as_secs(),
            rotation_bytes: self.rotation_bytes,
            plaintext: status.settings.plaintext,
            minimum_suite: status.settings.minimum_suite,
            plaintext_files: scan.plaintext.files,
        };
        self.warn(&report);
        out.result(&report, || self.text(&report))
    }

    fn text(&self, report: &Report) -> String {
        let limit = self
            .rotation_bytes
            .map_or(String::new(), |bytes| format!(" or {} encrypted", units::bytes(bytes)));
        format!(
            "Created the store {} in {}.\n  customer's key   {}\n  store key        {}\n  data key         \
             {}, rotates after {}{limit}",
            report.store_id,
            BOLD.paint(&clean(&report.directory)),
            clean(&report.key_uri),
            report.store_key_id,
            report.data_key_id,
            units::duration(self.rotation_period),
        )
    }

    /// What works, and is probably a mistake.
    fn warn(&self, report: &Report) {
        if report.plaintext_files > 0 && !self.allow_plaintext {
            warn(&format!(
                "{} there not encrypted and will be refused; --allow-plaintext reads them",
                match report.plaintext_files {
                    1 => "1 file is".to_owned(),
                    more => format!("{} files are", units::count(more)),
                }
            ));
        }
        let key_file = report.key_uri.strip_prefix("file://").map(Path::new);
        let inside = |path: &Path| {
            Some(path.canonicalize().ok()?.starts_with(self.dir.canonicalize().ok()?))
        };
        if key_file.and_then(inside) == Some(true) {
            warn("the key file lies in the store itself: whoever takes the disk has both");
        }
    }
}

/// The directories that were made, outermost first.
struct Made(Vec<PathBuf>);

fn make_directories(dir: &Path) -> Result<Made> {
    let missing: Vec<_> = dir
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .map(Path::to_owned)
        .collect();
    fs::create_dir_all(dir)
        .map_err(|source| Failure::io("the directory cannot be created", dir, source))?;
    Ok(Made(missing))
}

impl Made {
    /// Leaves no trace of a store that was not created.
    fn take_back(&self, dir: &Path) {
        if self.0.iter().any(|made| made == dir) {
            // Ours, and empty but for the lock. What fails here stays and does no harm.
            let _ = fs::remove_file(dir.join("KEYRING.lock"));
            for path in &self.0 {
                let _ = fs::remove_dir(path);
            }
        }
    }
}
