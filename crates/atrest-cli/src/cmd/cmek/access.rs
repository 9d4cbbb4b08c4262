//! Withdrawing access to a store, giving it back, and looking at it.

use std::sync::Arc;

use atrest::ErrorKind;
use atrest::keyring::{AccessPolicy, KeyringInfo};
use atrest::kms::{Credential, Kms};
use serde::Serialize;

use crate::advice::Verdict;
use crate::failure::Result;
use crate::output::Out;
use crate::paint::{GREEN, YELLOW, clean};
use crate::place::Place;
use crate::store::{self, StoreArgs};
use crate::table::{Align, Cell, Table};
use crate::{signal, units};

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
    #[command(flatten)]
    at: StoreArgs,
}

/// Field names are stable.
#[derive(Serialize)]
struct Done {
    done: &'static str,
}

impl Revoke {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let _committing = signal::Committing::begin();
        let done = self.withdraw()?;
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

    fn withdraw(&self) -> Result<&'static str> {
        self.at.check()?;
        let keys = self.at.cmek.open()?;
        if !keys.is_empty() {
            match self.at.open_with(keys) {
                Ok(store) => {
                    store.commit(|store| store.keyring().access().revoke())?;
                    // Where the mark could not be written a request stands for it, which is less: so
                    // that is said too where nobody can tell.
                    let requested = self.at.is_revocation_requested().unwrap_or(true);
                    return Ok(if requested { "requested" } else { "marked" });
                }
                Err(failure) => match failure.kind() {
                    Some(ErrorKind::CmekRevoked) => return Ok("already"),
                    // Whoever has it open, or a key given back later, finds the request.
                    Some(ErrorKind::KeyringBusy | ErrorKind::Kms(_)) => {}
                    _ => return Err(failure),
                },
            }
        }
        if self.at.is_pinned() {
            self.at.check_pins(&self.at.inspect()?)?;
        }
        self.at.request_revocation()?;
        Ok("requested")
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
    #[command(flatten)]
    at: StoreArgs,
}

impl Restore {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let committing = signal::Committing::begin();
        drop(self.at.open_and_restore()?);
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
  atrest cmek status s3://backups/data

JSON fields: state (\"active\", \"revoked\", \"unavailable\" or, without a key, \"unknown\"),
revocation_requested, store_id, store_key_id, generation, written_ns, slots [name, key_uri,
key_version, created_ns], keys [key_uri, answer (\"good\" or an error kind),
credential_expires_s where it ends], worst_case_s, worst_case_unreachable_s: from revocation
at the key service to refusal, with the default checks
")]
pub(crate) struct Status {
    #[command(flatten)]
    at: StoreArgs,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_expires_s: Option<u64>,
}

impl Status {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let place = Place::parse(&self.at.dir)?;
        if let Place::Directory(dir) = &place {
            store::check(dir)?;
        }
        let info = store::inspect_anywhere(&place)?;
        self.at.check_pins(&info)?;
        let (mut keys, mut kinds) = (Vec::new(), Vec::new());
        for key in self.at.cmek.open()? {
            let key_uri = key.key_uri().to_string();
            let kind = self.try_key(&place, key.clone())?;
            let credential = key.credential();
            if let Some(ending) = credential.filter(Credential::is_ending) {
                let left = units::duration(ending.expires_in);
                out.warn(&format!("the credential for {key_uri} ends in {left}: renew it"));
            }
            let credential_expires_s = credential.map(|one| one.expires_in.as_secs());
            let answer = kind.map_or("good", |kind| Verdict::of(kind).name);
            keys.push(KeyReport { key_uri, answer, credential_expires_s });
            kinds.push(kind);
        }
        let policy = AccessPolicy::default();
        let requested = store::is_revocation_requested(&place)?;
        let report = StatusReport {
            state: match kinds.as_slice() {
                _ if requested || kinds.contains(&Some(ErrorKind::CmekRevoked)) => "revoked",
                [] => "unknown",
                kinds if kinds.contains(&None) => "active",
                _ => "unavailable",
            },
            revocation_requested: requested,
            info,
            keys,
            worst_case_s: policy.worst_case().as_secs(),
            worst_case_unreachable_s: policy.worst_case_unreachable().map(|time| time.as_secs()),
        };
        out.result(&report, || report.text())
    }

    /// Whether the store opens with this key; `None` if it does. Other failures than of
    /// keys fail the command.
    fn try_key(&self, place: &Place, key: Arc<dyn Kms>) -> Result<Option<ErrorKind>> {
        match self.at.read_keys(place, vec![key]) {
            Ok(_) => Ok(None),
            Err(failure) => match failure.kind() {
                Some(
                    kind @ (ErrorKind::Kms(_) | ErrorKind::CmekRevoked | ErrorKind::WrongStoreKey),
                ) => Ok(Some(kind)),
                _ => Err(failure),
            },
        }
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
