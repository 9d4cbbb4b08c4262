//! `atrest init`: a new store.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atrest::names::LOCK_FILE;
use atrest::{DataKeyId, IntegrityPolicy, Options, PlaintextPolicy, StoreId, StoreKeyId};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Out;
use crate::paint::{BOLD, clean};
use crate::place::refuse_uri;
use crate::scan::{Scan, refuse_foreign, scan};
use crate::store::StoreArgs;
use crate::{signal, units};

const EXAMPLES: &str = "\
Examples:
  atrest init data --cmek file:///etc/app/cmek.key
  atrest init data --cmek passphrase:
  atrest init data --cmek env:CMEK --rotation-period 7d --rotation-bytes 1TiB
  atrest init ledger --cmek env:CMEK --integrity authenticated
  atrest init db --cmek env:CMEK --integrity authenticated,table=confidential
  atrest init old-data --cmek file:///etc/app/cmek.key --allow-plaintext
  atrest init data --cmek file:///etc/app/cmek.key --mirror /mnt/b/keyring

JSON fields: directory, store_id, store_key_id, data_key_id, key_uri, rotation_period_s,
rotation_bytes, plaintext, integrity, plaintext_files
";

/// Create a store: a directory with a keyring.
///
/// DIR is created if needed. The customer's key wraps a random key of its slot, that one a
/// random store key, and the store key the first data key.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    at: StoreArgs,
    /// Age at which the data key rotates.
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = units::parse_duration)]
    rotation_period: Duration,
    /// Bytes after which the data key rotates; without it only age counts.
    #[arg(long, value_name = "BYTES", value_parser = units::parse_bytes)]
    rotation_bytes: Option<u64>,
    /// Read files that are not encrypted, from before encryption was switched on.
    #[arg(long)]
    allow_plaintext: bool,
    /// What files have to be: `confidential` (unreadable to who takes the disk) or
    /// `authenticated` (a changed, moved or cut body is refused, too); KIND=NAME behind it for
    /// exceptions. Kinds: table, log, manifest, blob, other.
    #[arg(long, value_name = "NAME[,KIND=NAME]", default_value_t, value_parser = units::parse_integrity)]
    integrity: IntegrityPolicy,
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
    integrity: IntegrityPolicy,
    plaintext_files: u64,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        refuse_uri(&self.at.dir)?;
        self.at.refuse_pins()?;
        let key = self.at.cmek.new_key()?;
        let found = self.look(out.is_json())?;
        let keyring = self.at.patiently(|| {
            let _committing = signal::Committing::begin();
            let made = make_directories(&self.at.dir)?;
            let created = self.at.create(key.clone(), self.options());
            created.inspect_err(|_| made.take_back(&self.at.dir))
        })?;
        let status = keyring.status();
        let report = Report {
            directory: self.at.dir.display().to_string(),
            store_id: keyring.store_id(),
            store_key_id: status.info.store_key_id,
            data_key_id: keyring.keys().active_id()?,
            key_uri: status.info.slots[0].key_uri.clone(),
            rotation_period_s: self.rotation_period.as_secs(),
            rotation_bytes: self.rotation_bytes,
            plaintext: status.settings.plaintext,
            integrity: status.settings.integrity,
            plaintext_files: found.plaintext.files,
        };
        self.warn(&report, out);
        out.result(&report, || self.text(&report))
    }

    fn options(&self) -> Options {
        let mut options = self.at.options();
        let settings = &mut options.settings;
        settings.rotation_period = self.rotation_period;
        settings.rotation_bytes = self.rotation_bytes;
        settings.integrity = self.integrity;
        if self.allow_plaintext {
            settings.plaintext = PlaintextPolicy::Allow;
        }
        options
    }

    /// What lies in the directory. Where a store is, its creation says so better.
    fn look(&self, json: bool) -> Result<Scan> {
        let dir = &self.at.dir;
        if !dir.is_dir() {
            return Ok(Scan::default());
        }
        let found = scan(dir, None, json)?;
        if !self.at.has_keyring()? {
            refuse_foreign(&found, dir)?;
        }
        Ok(found)
    }

    fn text(&self, report: &Report) -> String {
        let limit = self
            .rotation_bytes
            .map_or(String::new(), |bytes| format!(" or {} encrypted", units::bytes(bytes)));
        format!(
            "Created the store {} in {}.\n  customer's key   {}\n  store key        {}\n  data key         \
             {}, rotates after {}{limit}\n  files            {}",
            report.store_id,
            BOLD.paint(&clean(&report.directory)),
            clean(&report.key_uri),
            report.store_key_id,
            report.data_key_id,
            units::duration(self.rotation_period),
            report.integrity,
        )
    }

    /// What works, and is probably a mistake.
    fn warn(&self, report: &Report, out: &mut Out) {
        if report.plaintext_files > 0 && !self.allow_plaintext {
            out.warn(&format!(
                "{} there not encrypted and will be refused; --allow-plaintext reads them",
                match report.plaintext_files {
                    1 => "1 file is".to_owned(),
                    more => format!("{} files are", units::count(more)),
                }
            ));
        }
        let key_file = report.key_uri.strip_prefix("file://").map(Path::new);
        let inside = |path: &Path| {
            Some(path.canonicalize().ok()?.starts_with(self.at.dir.canonicalize().ok()?))
        };
        if key_file.and_then(inside) == Some(true) {
            out.warn("the key file lies in the store itself: whoever takes the disk has both");
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
            let _ = fs::remove_file(dir.join(LOCK_FILE));
            for path in &self.0 {
                let _ = fs::remove_dir(path);
            }
        }
    }
}
