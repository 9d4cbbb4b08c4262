//! `atrest keys proof`: that destroyed data keys are gone.

use atrest::store::DestructionProof;
use atrest::{DataKeyId, Error, ErrorKind};
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
/// it came back from elsewhere; so does a copy of the keyring that a recovery put aside, or
/// that could not be removed when the key was destroyed.
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
(store_id, generation, mac)]. Exit code 7 if a file names a key that was retired, 6 if one is
too damaged to tell its key.
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
    proofs: Vec<DestructionProof>,
}

impl Proof {
    pub(super) fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open_read_only()?;
        self.at.check_mirrors()?;
        let copies = store.keyring().keys().copies_aside().map_err(Failure::from)?;
        if !copies.is_empty() {
            let what = format!("copies of the keyring may still hold keys: {}", copies.join(", "));
            return Err(Failure::from(Error::new(ErrorKind::CorruptHeader, what)).advise(
                "when no file needs them any more: atrest recover DIR --cmek URI --forget-aside",
            ));
        }
        let renewal = store.store().renewal();
        let proofs = scanning(out.is_json(), |on_scan| match self.key {
            Some(id) => renewal.prove_destroyed(id, on_scan).map(|proof| vec![proof]),
            None => renewal.prove_all_destroyed(on_scan),
        });
        let report = Report { proofs: proofs.map_err(advise)? };
        out.result(&report, || report.text())
    }
}

fn advise(error: Error) -> Failure {
    let advice = match error.kind() {
        ErrorKind::UnknownKey => "see `atrest keys list DIR` for the keys of the store",
        ErrorKind::KeyDestroyed => {
            "nothing can read them: find out where they came from, and delete them"
        }
        ErrorKind::CorruptHeader => {
            "restore or delete what `atrest verify DIR` names, and run the command again"
        }
        _ => return Failure::from(error),
    };
    Failure::from(error).advise(advice)
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
        lines.extend(self.proofs.iter().map(text));
        lines.join("\n")
    }
}

fn text(proof: &DestructionProof) -> String {
    let key = &proof.key;
    let files = match proof.files {
        0 => "no file names it".into(),
        files => format!("{} under it, unreadable for good", units::counted(files, "file")),
    };
    let keyspace =
        if proof.shredded { format!(" with {}", clean(&key.keyspace)) } else { String::new() };
    format!(
        "  {} created {}, destroyed {}{keyspace}, encrypted at least {}, {files}",
        key.id,
        units::time(key.created_ns),
        units::time(key.destroyed_ns.unwrap_or_default()),
        units::bytes(key.encrypted_bytes)
    )
}
