//! `atrest keys proof`: that destroyed data keys are gone.

use atrest::keyring::{Anchor, DataKeyStatus, KeyState, KeyspaceStatus};
use atrest::store::{KeyUsage, Usage};
use atrest::{DataKeyId, Error, ErrorKind, Keyring};
use serde::Serialize;

use super::scanning;
use crate::failure::{Failure, Result};
use crate::output::Out;
use crate::paint::clean;
use crate::store::StoreArgs;
use crate::units;

/// Show that destroyed data keys are gone: their records, and that no file names them.
///
/// Files under keys that `keys shred` destroyed may lie there still; they are counted, and
/// nothing reads them. A file under a key that `keys retire` destroyed fails the command:
/// it came back from elsewhere; so does a copy of the keyring that a recovery put aside.
/// Copies elsewhere, such as file system snapshots and the older versions of objects in a
/// bucket, cannot be seen from here.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys proof data
  atrest keys proof data --key 0123456789abcdef0123456789abcdef --json

JSON fields: proofs [id, keyspace, state, exposed, created_ns, retired_ns,
retire_after_ns, destroyed_ns, encrypted_bytes (at least: more if a process was killed),
shredded, files (that name it still: 0 unless it was shredded), files_read, keyring
(store_id, generation, mac)]. Exit code 6 if a file names a key that was retired, or is too
damaged to tell its key.
")]
pub(super) struct Proof {
    #[command(flatten)]
    at: StoreArgs,
    /// One data key; the default is all that are destroyed.
    #[arg(long, value_name = "ID")]
    key: Option<DataKeyId>,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    proofs: Vec<Destroyed>,
}

/// Field names are stable.
#[derive(Serialize)]
struct Destroyed {
    #[serde(flatten)]
    key: DataKeyStatus,
    shredded: bool,
    files: u64,
    files_read: u64,
    keyring: Anchor,
}

impl Proof {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open_read_only()?;
        let usage = scanning(out.is_json(), |on_scan| store.store().renewal().scan_usage(on_scan))?;
        let copies = store.keyring().keys().copies_aside().map_err(Failure::from)?;
        if !copies.is_empty() {
            let what = format!("copies of the keyring may still hold keys: {}", copies.join(", "));
            return Err(Failure::from(Error::new(ErrorKind::CorruptHeader, what)).advise(
                "when no file needs them any more: atrest recover DIR --cmek URI --forget-aside",
            ));
        }
        let proofs = self.chosen(&usage)?.into_iter();
        let proofs =
            proofs.map(|key| prove(key, &usage, store.keyring())).collect::<Result<_>>()?;
        let report = Report { proofs };
        out.result(&report, || report.text())
    }

    fn chosen<'a>(&self, usage: &'a Usage) -> Result<Vec<&'a KeyUsage>> {
        let is_destroyed = |key: &&KeyUsage| key.key.state == KeyState::Destroyed;
        let Some(id) = self.key else {
            return Ok(usage.keys.iter().filter(is_destroyed).collect());
        };
        let Some(key) = usage.of_key(id) else {
            let what = format!("data key {id} is not in the keyring");
            return Err(Failure::new(ErrorKind::UnknownKey, what)
                .advise("see `atrest keys list DIR` for the keys of the store"));
        };
        if !is_destroyed(&key) {
            let what = format!("data key {id} is not destroyed: it is {:?}", key.key.state);
            return Err(Failure::new(ErrorKind::InvalidArgument, what)
                .advise("`atrest keys retire DIR` destroys it once no file is under it"));
        }
        Ok(vec![key])
    }
}

fn prove(of: &KeyUsage, usage: &Usage, keyring: &Keyring) -> Result<Destroyed> {
    // A keyspace without data keys was shredded, and its files with it.
    let is_of_key = |space: &KeyspaceStatus| space.name == of.key.keyspace;
    let shredded =
        keyring.keyspaces().list().iter().any(|space| is_of_key(space) && space.active.is_none());
    let refuse = |what, advice| {
        Err(Failure::from(Error::new(ErrorKind::CorruptHeader, what)).advise(advice))
    };
    if of.count.files != 0 && !shredded {
        let files = units::counted(of.count.files, "file");
        return refuse(
            format!("{files} under the destroyed data key {}: nothing can read them", of.key.id),
            "find out where they came from, and delete them",
        );
    }
    if usage.unreadable.files != 0 {
        let files = units::counted(usage.unreadable.files, "damaged file");
        return refuse(
            format!("the data keys of {files} cannot be told"),
            "restore or delete what `atrest verify DIR` names, and run the command again",
        );
    }
    Ok(Destroyed {
        key: of.key.clone(),
        shredded,
        files: of.count.files,
        files_read: files_read(usage),
        keyring: keyring.anchor(),
    })
}

fn files_read(usage: &Usage) -> u64 {
    let others = [usage.plaintext, usage.temporary, usage.torn, usage.unreadable, usage.foreign];
    usage.keys.iter().map(|key| key.count.files).sum::<u64>()
        + usage.unknown_keys.iter().map(|key| key.count.files).sum::<u64>()
        + others.iter().map(|count| count.files).sum::<u64>()
}

impl Report {
    fn text(&self) -> String {
        let Some(first) = self.proofs.first() else {
            return "No data key was destroyed yet.".into();
        };
        let generation = first.keyring.generation;
        let mut lines = vec![format!(
            "Read the headers of {}; keyring generation {generation} says under its MAC that these keys are destroyed:",
            units::counted(first.files_read, "file"),
        )];
        lines.extend(self.proofs.iter().map(Destroyed::text));
        lines.join("\n")
    }
}

impl Destroyed {
    fn text(&self) -> String {
        let key = &self.key;
        let files = match self.files {
            0 => "no file names it".into(),
            files => format!("{} under it, unreadable for good", units::counted(files, "file")),
        };
        let keyspace =
            if self.shredded { format!(" with {}", clean(&key.keyspace)) } else { String::new() };
        format!(
            "  {} created {}, destroyed {}{keyspace}, encrypted at least {}, {files}",
            key.id,
            units::time(key.created_ns),
            units::time(key.destroyed_ns.unwrap_or_default()),
            units::bytes(key.encrypted_bytes)
        )
    }
}
