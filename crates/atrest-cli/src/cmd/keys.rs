//! `atrest keys`: what is under each data key, and the end of those nothing uses.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::{KeyState, RetireOutcome, Retirement};
use atrest::kms::Kms;
use atrest::store::{DestructionProof, KeyUsage, ScanProgress};
use atrest::{DataKeyId, ErrorKind, StoreId};
use clap::Subcommand;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::key::{self, CmekArg, Words};
use crate::output::{DIM, GREEN, Out, YELLOW, clean};
use crate::table::{Align, Cell, Table, bar};
use crate::{progress, signal, store, units};

mod directories;
mod holds;
mod keyspaces;

/// Width of a data key's bar, in characters.
const BAR_LEN: usize = 20;

/// Data keys: what is under them, retiring them, proving it, holds, keyspaces.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    List(List),
    Retire(Retire),
    Proof(Proof),
    Holds(holds::Holds),
    #[command(name = "hold")]
    AddHold(holds::AddHold),
    Release(holds::Release),
    Directories(directories::Directories),
    ForgetDirectory(directories::ForgetDirectory),
    Keyspaces(keyspaces::Keyspaces),
    AddKeyspace(keyspaces::AddKeyspace),
    Shred(Shred),
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        match &self.what {
            What::List(args) => args.run(out),
            What::Retire(args) => args.run(out),
            What::Proof(args) => args.run(out),
            What::Holds(args) => args.run(out),
            What::AddHold(args) => args.run(out),
            What::Release(args) => args.run(out),
            What::Directories(args) => args.run(out),
            What::ForgetDirectory(args) => args.run(out),
            What::Keyspaces(args) => args.run(out),
            What::AddKeyspace(args) => args.run(out),
            What::Shred(args) => args.run(out),
        }
    }
}

/// List the data keys, oldest first, with what is under each.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys list data
  atrest keys list data --json | jq '.keys[] | select(.files == 0) | .id'

JSON fields: keys [id, keyspace, state, exposed, created_ns, retired_ns, retire_after_ns,
destroyed_ns, encrypted_bytes (ever, in all files, at least), files, bytes, age_ns,
last_created_ns], plaintext, torn, unreadable, foreign [files, bytes], unknown_keys [id,
files, bytes]
")]
struct List {
    #[command(flatten)]
    at: Store,
}

/// Destroy the data keys that no file is under.
///
/// A key without files is marked first; a run after the time of grace looks again and
/// destroys it: its wrapped bytes are erased, the store key is replaced and older images
/// of the keyring are removed. A key with one file, or that a backup holds, stays.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys retire data
  atrest keys retire data --grace 30d

JSON fields: keys [id, outcome (in-use, held, open, retiring, destroyed), with held: by,
with retiring: until_ns]
")]
struct Retire {
    #[command(flatten)]
    at: Store,
    /// Time between finding no file and destroying the key.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "7d")]
    grace: Duration,
}

/// Show that destroyed data keys are gone: their records, and that no file names them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys proof data
  atrest keys proof data --key 0123456789abcdef0123456789abcdef --json

JSON fields: proofs [id, keyspace, state, exposed, created_ns, retired_ns,
retire_after_ns, destroyed_ns, encrypted_bytes (at least: more if a process was killed),
files_read, keyring (store_id, generation, mac)]. It is an error if a file names a destroyed
key.
")]
struct Proof {
    #[command(flatten)]
    at: Store,
    /// One data key; the default is all that are destroyed.
    #[arg(long, value_name = "ID")]
    key: Option<DataKeyId>,
}

/// DESTROY all data keys of a keyspace or of the store, and so all that is under them.
///
/// Nothing brings the files back, but a copy of an older keyring together with the
/// customer's key. What is meant has to be said twice.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys shred data --keyspace tenant-17 --confirm tenant-17
  atrest keys shred data --store --confirm 0123456789abcdef0123456789abcdef

JSON fields: shredded (a keyspace's name, or the store's id)
")]
#[command(group = clap::ArgGroup::new("which").required(true))]
struct Shred {
    #[command(flatten)]
    at: Store,
    /// One keyspace.
    #[arg(long, value_name = "NAME", group = "which")]
    keyspace: Option<String>,
    /// The whole store.
    #[arg(long, group = "which")]
    store: bool,
    /// The keyspace's name, or the store's id, once more.
    #[arg(long, value_name = "NAME")]
    confirm: String,
}

/// The store that a command is about.
#[derive(clap::Args)]
struct Store {
    /// The store's directory.
    dir: PathBuf,
    #[command(flatten)]
    cmek: CmekArg,
}

impl Store {
    fn read_only(&self) -> Result<atrest::Store> {
        Ok(atrest::Store::over(store::open_read_only(&self.dir, self.kms()?)?)?)
    }

    fn writable(&self) -> Result<atrest::Store> {
        Ok(atrest::Store::over(store::open(&self.dir, self.kms()?)?)?)
    }

    fn kms(&self) -> Result<Arc<dyn Kms>> {
        drop(store::storage(&self.dir)?);
        key::open(&self.cmek.cmek, Words::Known, key::PASSPHRASE_VARIABLE)
    }
}

/// Lets `work` show how many headers were read.
fn scanning<T>(json: bool, work: impl FnOnce(&(dyn Fn(ScanProgress) + Sync)) -> T) -> T {
    let bar = progress::files("Reading headers", json);
    let result = work(&|p| bar.set_position(p.files));
    bar.finish_and_clear();
    result
}

impl List {
    fn run(&self, out: &mut Out) -> Result<()> {
        let fs = self.at.read_only()?;
        let usage = scanning(out.is_json(), |on_scan| fs.renewal().scan_usage(on_scan))?;
        out.result(&usage, || table(&usage.keys))
    }
}

fn table(keys: &[KeyUsage]) -> String {
    use Align::{Left, Right};
    let mut table = Table::new(&[
        ("id", Left),
        ("keyspace", Left),
        ("state", Left),
        ("age", Right),
        ("files", Right),
        ("on disk", Right),
        ("rewritten in", Right),
        ("share", Left),
    ]);
    let total = keys.iter().map(|key| key.count.bytes).sum::<u64>().max(1) as f64;
    for key in keys {
        let rewritten = match key.churned_in() {
            _ if key.key.state == KeyState::Destroyed => String::new(),
            Some(Duration::ZERO) => "done".into(),
            Some(left) => format!("~{}", units::duration(left)),
            None => "-".into(),
        };
        table.row([
            key.key.id.to_string().into(),
            clean(&key.key.keyspace).into(),
            state(key),
            units::duration(Duration::from_nanos(key.age_ns)).into(),
            units::count(key.count.files).into(),
            units::bytes(key.count.bytes).into(),
            rewritten.into(),
            bar(key.count.bytes as f64 / total, BAR_LEN).into(),
        ]);
    }
    table.render()
}

fn state(key: &KeyUsage) -> Cell {
    match key.key.state {
        _ if key.key.exposed && key.key.state != KeyState::Destroyed => {
            Cell::painted("exposed", YELLOW)
        }
        KeyState::Active => Cell::painted("active", GREEN),
        KeyState::DecryptOnly => "decrypt-only".into(),
        KeyState::Retiring => "retiring".into(),
        KeyState::Destroyed => Cell::painted("destroyed", DIM),
        _ => "unknown".into(),
    }
}

impl Retire {
    fn run(&self, out: &mut Out) -> Result<()> {
        let fs = self.at.writable()?;
        let committing = signal::Committing::begin();
        let retired =
            scanning(out.is_json(), |on_scan| fs.renewal().retire(None, self.grace, on_scan))?;
        drop(committing);
        out.result(&retired, || retired_text(&retired))
    }
}

fn retired_text(retired: &Retirement) -> String {
    if retired.keys.is_empty() {
        return "No data key was replaced yet: there is nothing to retire.".into();
    }
    let words = |outcome: &RetireOutcome| match outcome {
        RetireOutcome::InUse => "has files".into(),
        RetireOutcome::Held { by } => format!("is held by {}", clean(&by.join(", "))),
        RetireOutcome::Open => "has open files".into(),
        RetireOutcome::Retiring { until_ns } => {
            format!("has no files, is destroyed by a run after {}", units::time(*until_ns))
        }
        RetireOutcome::Destroyed => YELLOW.paint("is destroyed"),
        _ => "stays".into(),
    };
    let lines = retired.keys.iter().map(|key| format!("  {} {}", key.id, words(&key.outcome)));
    lines.collect::<Vec<_>>().join("\n")
}

/// Field names are stable.
#[derive(Serialize)]
struct ProofReport {
    proofs: Vec<DestructionProof>,
}

impl Proof {
    fn run(&self, out: &mut Out) -> Result<()> {
        let fs = self.at.read_only()?;
        let proofs = scanning(out.is_json(), |on_scan| match self.key {
            Some(id) => fs.renewal().prove_destroyed(id, on_scan).map(|proof| vec![proof]),
            None => fs.renewal().prove_all_destroyed(on_scan),
        })?;
        let report = ProofReport { proofs };
        out.result(&report, || {
            let Some(first) = report.proofs.first() else {
                return "No data key was destroyed yet.".into();
            };
            let mut lines = vec![format!(
                "None of {} names these keys; keyring generation {} says so under its MAC.",
                units::counted(first.files_read, "file"),
                first.keyring.generation
            )];
            lines.extend(report.proofs.iter().map(|proof| {
                let key = &proof.key;
                format!(
                    "  {} created {}, destroyed {}, encrypted at least {}",
                    key.id,
                    units::time(key.created_ns),
                    units::time(key.destroyed_ns.unwrap_or_default()),
                    units::bytes(key.encrypted_bytes)
                )
            }));
            lines.join("\n")
        })
    }
}

/// Field names are stable.
#[derive(Serialize)]
struct ShredReport<'a> {
    shredded: &'a str,
}

impl Shred {
    fn run(&self, out: &mut Out) -> Result<()> {
        let refuse = |what: String| {
            Err(Failure::new(ErrorKind::InvalidArgument, what)
                .advise("repeat behind --confirm what is to be destroyed"))
        };
        let fs = self.at.writable()?;
        let committing = signal::Committing::begin();
        match &self.keyspace {
            Some(name) if *name == self.confirm => fs.keyring().keyspaces().danger_shred(name)?,
            Some(name) => {
                return refuse(format!("expected --confirm {name}, found {}", self.confirm));
            }
            None => match self.confirm.parse::<StoreId>() {
                Ok(id) => fs.keyring().keyspaces().danger_shred_store(id)?,
                Err(_) => {
                    return refuse(format!("expected the store's id, found {}", self.confirm));
                }
            },
        }
        drop(committing);
        let report = ShredReport { shredded: &self.confirm };
        out.result(&report, || format!("Destroyed the keys of {}.", clean(&self.confirm)))
    }
}
