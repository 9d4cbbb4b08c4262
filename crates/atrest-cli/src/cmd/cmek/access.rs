//! Withdrawing access to a store, giving it back, and looking at it.

use std::path::{Path, PathBuf};

use atrest::keyring::{AccessPolicy, KeyringInfo};
use atrest::{ErrorKind, Keyring};
use serde::Serialize;

use crate::advice::Verdict;
use crate::failure::Result;
use crate::key::{self, CmeksArg, Words};
use crate::output::{GREEN, Out, YELLOW, clean};
use crate::table::{Align, Cell, Table};
use crate::{signal, store, units};

/// Withdraw access to a store: nothing opens it until `cmek restore`.
///
/// With --cmek the store is marked under its own key, so that deleting a file cannot undo
/// it. Without, or if the key service does not give the key, or if another process has the
/// store open, a request is left beside the keyring: it keeps the store from opening, and
/// the process that has it open gives its keys up and makes the mark at its next check
/// (every 5 minutes by default).
///
/// To take access from whoever runs the store, revoke the key at the key service.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek revoke data --cmek file:///etc/app/cmek.key
  atrest cmek revoke data

JSON fields: done (\"marked\", \"requested\" or \"already\")
")]
pub(crate) struct Revoke {
    /// The store's directory.
    dir: PathBuf,
    /// The customer's key.
    #[arg(long, value_name = "URI", env = "ATREST_CMEK")]
    cmek: Option<String>,
}

/// Field names are stable.
#[derive(Serialize)]
struct Done {
    done: &'static str,
}

impl Revoke {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let storage = store::storage(&self.dir)?;
        let committing = signal::Committing::begin();
        let opened = match self.cmek.as_deref().filter(|uri| !uri.is_empty()) {
            Some(uri) => {
                let kms = key::open(uri, Words::Known, key::PASSPHRASE_VARIABLE)?;
                let keyring = Keyring::open(store::storage(&self.dir)?, kms, store::options());
                Some(keyring.map_err(|error| error.with_path(&self.dir)))
            }
            None => None,
        };
        let done = match opened {
            Some(Ok(keyring)) => {
                keyring.access().revoke()?;
                "marked"
            }
            Some(Err(error)) if error.kind() == ErrorKind::CmekRevoked => "already",
            Some(Err(error))
                if !matches!(error.kind(), ErrorKind::KeyringBusy | ErrorKind::Kms(_)) =>
            {
                return Err(error.into());
            }
            Some(Err(_)) | None => {
                atrest::keyring::Access::request_revocation(&storage)?;
                "requested"
            }
        };
        drop(committing);
        out.result(&Done { done }, || {
            let text = match done {
                "marked" => "Access is withdrawn: the store is marked, and opens only after `cmek restore`.",
                "already" => "Access was withdrawn already.",
                _ => "Access is withdrawn from whoever opens the store from now on. A process that has it open \
                      gives its keys up at its next check.",
            };
            text.into()
        })
    }
}

/// Give access back to a store that `cmek revoke` took it from.
///
/// The key service has to give the key. A process that has the store open restores by its
/// own call: this command then fails, since another process has the store open.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek restore data --cmek file:///etc/app/cmek.key

JSON fields: done (\"restored\")
")]
pub(crate) struct Restore {
    /// The store's directory.
    dir: PathBuf,
    #[command(flatten)]
    cmek: CmeksArg,
}

impl Restore {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let storage = store::storage(&self.dir)?;
        let kms = self.cmek.open()?;
        let committing = signal::Committing::begin();
        let keyring = atrest::keyring::Access::open_and_restore(storage, kms, store::options());
        drop(keyring.map_err(|error| error.with_path(&self.dir))?);
        drop(committing);
        out.result(&Done { done: "restored" }, || "Access is given back.".into())
    }
}

/// Show whether the store can be opened, and what each of its keys answers.
///
/// Every key given is tried on its slots by itself. Without one: the slots, and whether a
/// revocation was requested. Exits with 0 whatever the state is.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek status data
  atrest cmek status data --cmek file:///etc/app/eu.key --cmek file:///etc/app/us.key

JSON fields: state (\"active\", \"revoked\", \"unavailable\" or, without a key, \"unknown\"),
revocation_requested, slots [name, key_uri, key_version, created_ns], keys [key_uri,
answer (\"good\" or an error kind)], worst_case_s, worst_case_unreachable_s: from
revocation at the key service to refusal, with the default checks
")]
pub(crate) struct Status {
    /// The store's directory.
    dir: PathBuf,
    /// The customer's keys to try; may be given several times.
    #[arg(long, value_name = "URI", env = "ATREST_CMEK")]
    cmek: Vec<String>,
}

/// Field names are stable.
#[derive(Serialize)]
struct StatusReport {
    state: &'static str,
    revocation_requested: bool,
    #[serde(flatten)]
    info: KeyringInfo,
    keys: Vec<KeyReport>,
    worst_case_s: u64,
    worst_case_unreachable_s: Option<u64>,
}

/// Field names are stable.
#[derive(Serialize)]
struct KeyReport {
    key_uri: String,
    answer: &'static str,
}

impl Status {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let storage = store::storage(&self.dir)?;
        let (mut keys, mut kinds) = (Vec::new(), Vec::new());
        for uri in self.cmek.iter().filter(|uri| !uri.is_empty()) {
            let kms = key::open(uri, Words::Known, key::PASSPHRASE_VARIABLE)?;
            let key_uri = kms.key_uri().to_string();
            let kind = try_key(&self.dir, kms)?;
            let answer = kind.map_or("good", |kind| Verdict::of(kind).name);
            keys.push(KeyReport { key_uri, answer });
            kinds.push(kind);
        }
        let policy = AccessPolicy::default();
        let requested = atrest::keyring::Access::is_revocation_requested(&storage)?;
        let report = StatusReport {
            state: match kinds.as_slice() {
                _ if requested || kinds.contains(&Some(ErrorKind::CmekRevoked)) => "revoked",
                [] => "unknown",
                kinds if kinds.contains(&None) => "active",
                _ => "unavailable",
            },
            revocation_requested: requested,
            info: KeyringInfo::read(&storage)?,
            keys,
            worst_case_s: policy.worst_case().as_secs(),
            worst_case_unreachable_s: policy.worst_case_unreachable().map(|time| time.as_secs()),
        };
        out.result(&report, || report.text())
    }
}

/// Whether the store opens with this key; `None` if it does. Other failures than of keys
/// fail the command.
fn try_key(dir: &Path, kms: std::sync::Arc<dyn atrest::kms::Kms>) -> Result<Option<ErrorKind>> {
    match Keyring::open_read_only(store::storage(dir)?, kms, store::options()) {
        Ok(_) => Ok(None),
        Err(error) => match error.kind() {
            kind @ (ErrorKind::Kms(_) | ErrorKind::CmekRevoked | ErrorKind::WrongStoreKey) => {
                Ok(Some(kind))
            }
            _ => Err(error.with_path(dir).into()),
        },
    }
}

impl StatusReport {
    fn text(&self) -> String {
        let paint = if self.state == "active" { GREEN } else { YELLOW };
        let mut lines = vec![format!("access: {}", paint.paint(self.state))];
        if self.revocation_requested {
            lines.push("  a revocation is requested".into());
        }
        let columns = ["slot", "customer's key", "version", "answer"];
        let mut table = Table::new(&columns.map(|column| (column, Align::Left)));
        for slot in &self.info.slots {
            let tried = self.keys.iter().find(|key| key.key_uri == slot.key_uri);
            let answer = tried.map_or("not tried", |key| key.answer);
            let paint = if answer == "good" { GREEN } else { YELLOW };
            table.row([
                clean(&slot.name).into(),
                clean(&slot.key_uri).into(),
                clean(&slot.key_version).into(),
                Cell::painted(answer, paint),
            ]);
        }
        lines.push(table.render());
        let worst = std::time::Duration::from_secs(self.worst_case_s);
        lines.push(format!(
            "a process refuses at most {} after the key service does, by default",
            units::duration(worst)
        ));
        lines.join("\n")
    }
}
