//! `atrest keys`: what is under each data key, and the end of those nothing uses.

use std::time::Duration;

use atrest::keyring::{KeyState, LiveKeys, RetireOutcome, Retirement};
use atrest::store::{KeyUsage, ScanProgress};
use atrest::{DataKeyId, ErrorKind, StoreId};
use clap::Subcommand;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Out;
use crate::paint::{DIM, GREEN, YELLOW, clean};
use crate::scan::passed_by;
use crate::store::StoreArgs;
use crate::table::{Align, Cell, Table, bar};
use crate::{progress, signal, units};

mod directories;
mod holds;
mod keyspaces;
mod proof;

/// Width of a data key's bar, in characters.
const BAR_LEN: usize = 20;

/// Data keys: what is under them, retiring them, proving it, holds, keyspaces.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys list data --cmek file:///etc/app/cmek.key
  atrest keys retire data --cmek file:///etc/app/cmek.key
  atrest keys proof data --cmek file:///etc/app/cmek.key
")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    List(List),
    Retire(Retire),
    Proof(proof::Proof),
    Holds(holds::Holds),
    #[command(name = "hold")]
    AddHold(holds::AddHold),
    Release(holds::Release),
    Directories(directories::Directories),
    ForgetDirectory(directories::ForgetDirectory),
    TakeDirectory(directories::TakeDirectory),
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
            What::TakeDirectory(args) => args.run(out),
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
last_created_ns], plaintext, temporary, torn, unreadable, foreign [files, bytes],
unknown_keys [id, files, bytes], nested_stores, lost_found
")]
struct List {
    #[command(flatten)]
    at: StoreArgs,
}

/// Destroy the data keys that no file is under.
///
/// A key without files is marked first; a run after the time of grace looks again and
/// destroys it: its wrapped bytes are erased, the store key is replaced and older images
/// of the keyring are removed. A key with one file, or with a hold (`keys hold`), stays.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest keys retire data
  atrest keys retire data --grace 30d

JSON fields: keys [id, outcome (in-use, held, open, retiring, destroyed), with held: by,
with retiring: until_ns], nested_stores and lost_found: directories in which nobody looked
")]
struct Retire {
    #[command(flatten)]
    at: StoreArgs,
    /// Time between finding no file and destroying the key.
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration, default_value = "7d")]
    grace: Duration,
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
    at: StoreArgs,
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

/// Lets `work` show how many headers were read.
fn scanning<T>(json: bool, work: impl FnOnce(&(dyn Fn(ScanProgress) + Sync)) -> T) -> T {
    let bar = progress::files("Reading headers", json);
    let result = work(&|p| bar.set_position(p.files));
    bar.finish_and_clear();
    result
}

impl List {
    fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open_read_only()?;
        let usage = scanning(out.is_json(), |on_scan| store.store().renewal().scan_usage(on_scan))?;
        out.result(&usage, || {
            let passed_by = passed_by(&usage.passed_by, "counted");
            [vec![table(&usage.keys)], passed_by].concat().join("\n")
        })
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

/// Knows of no file, and ends the work when it is asked after an interruption: behind each
/// look at the store, before anything is changed.
struct Interruption;

impl LiveKeys for Interruption {
    fn keys_in_use(&self) -> atrest::Result<Vec<DataKeyId>> {
        if signal::is_interrupted() {
            let kind = ErrorKind::Io(std::io::ErrorKind::Interrupted);
            return Err(atrest::Error::new(kind, "interrupted"));
        }
        Ok(Vec::new())
    }
}

impl Retire {
    fn run(&self, out: &mut Out) -> Result<()> {
        let store = self.at.open()?;
        let retired = scanning(out.is_json(), |on_scan| {
            store.commit_stoppable(|store| {
                if store.directories().list().is_empty() {
                    let what = "the keyring knows no directory of the store";
                    return Err(atrest::Error::new(ErrorKind::InvalidArgument, what));
                }
                store.renewal().retire(Some(&Interruption), self.grace, on_scan)
            })
        })?;
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
    let passed_by = passed_by(&retired.passed_by, "looked into");
    lines.chain(passed_by).collect::<Vec<_>>().join("\n")
}

/// Field names are stable.
#[derive(Serialize)]
struct ShredReport<'a> {
    shredded: &'a str,
}

/// What is destroyed, once it was said twice.
enum Shredded<'a> {
    Keyspace(&'a str),
    Store(StoreId),
}

impl Shred {
    fn run(&self, out: &mut Out) -> Result<()> {
        let refuse = |what: String| {
            Err(Failure::new(ErrorKind::InvalidArgument, what)
                .advise("repeat behind --confirm what is to be destroyed"))
        };
        let what = match &self.keyspace {
            Some(name) if *name == self.confirm => Shredded::Keyspace(name),
            Some(name) => {
                return refuse(format!("expected --confirm {name}, found {}", self.confirm));
            }
            None => match self.confirm.parse() {
                Ok(id) => Shredded::Store(id),
                Err(_) => {
                    return refuse(format!("expected the store's id, found {}", self.confirm));
                }
            },
        };
        self.at.open()?.commit(|fs| match what {
            Shredded::Keyspace(name) => fs.keyring().keyspaces().danger_shred(name),
            Shredded::Store(id) => fs.keyring().keyspaces().danger_shred_store(id),
        })?;
        let report = ShredReport { shredded: &self.confirm };
        out.result(&report, || format!("Destroyed the keys of {}.", clean(&self.confirm)))
    }
}
