//! `atrest status`: what a store is made of.

use std::collections::BTreeMap;
use std::time::Duration;

use atrest::keyring::{AuditEvent, DataKeyStatus, KeyState, KeyringInfo, KeyringStatus};
use atrest::names::KEYRING_FILE;
use atrest::store::churned_in;
use atrest::{Clock, DataKeyId, Keyring, PlaintextPolicy, Settings, SystemClock};
use serde::Serialize;

use crate::failure::Result;
use crate::output::Out;
use crate::paint::{BOLD, DIM, GREEN, YELLOW, clean};
use crate::place::Place;
use crate::scan::{Scan, Usage, passed_by_lines, scan as scan_directory, scan_bucket};
use crate::store::{self, StoreArgs};
use crate::table::{Align, Cell, Table, bar};
use crate::units;

const EXAMPLES: &str = "\
Examples:
  atrest status data
  atrest status data --cmek file:///etc/app/cmek.key
  atrest status data --json | jq '.files.plaintext.files'
  atrest status s3://backups/data --cmek file:///etc/app/cmek.key

JSON fields: directory, authenticated, store_id, store_key_id, generation, written_ns,
slots [name, key_uri, key_version, created_ns], newer_images (generations; not empty if
an old keyring was put back), anchor (null without a key), public_slots (names of slots by
whose keys anybody can wrap), settings [rotation_period_s,
rotation_bytes, plaintext, integrity], data_keys [id, files, bytes, and with a key
keyspace, state, exposed, created_ns, age_s, retired_ns, destroyed_ns, encrypted_bytes
(at least), rewritten_in_s (null if nothing can be said)], history [number, at_ns,
generation, what, store_key_id, detail], files [encrypted, plaintext, temporary, empty and
problem with files and bytes each; problems with path, kind, message; nested_stores and
lost_found: directories of other stores and of file systems' repairs, which are not counted].
Without --cmek, settings
and history are null.
";

/// Width of a data key's bar, in characters.
const BAR_LEN: usize = 20;
/// Problem files shown to people; machines get a hundred.
const PROBLEMS_SHOWN: usize = 10;

/// Show a store's keys, settings and files.
///
/// Without --cmek: what can be read without any key, not authenticated. With it: all, and
/// every file's header is proven, also in the store's directories elsewhere. The store is only read, beside a writer or not.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    at: StoreArgs,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    directory: String,
    authenticated: bool,
    #[serde(flatten)]
    info: KeyringInfo,
    /// To be kept elsewhere and given as --anchor.
    anchor: Option<String>,
    /// Slots by whose keys anybody can wrap: the store is to be pinned.
    public_slots: Vec<String>,
    /// Images newer than the keyring: it was put back.
    newer_images: Vec<u64>,
    settings: Option<Settings>,
    data_keys: Vec<KeyReport>,
    history: Option<Vec<AuditEvent>>,
    files: Scan,
}

/// A data key with the files under it. Field names are stable.
#[derive(Serialize)]
struct KeyReport {
    id: DataKeyId,
    files: u64,
    bytes: u64,
    #[serde(flatten)]
    known: Option<Known>,
}

#[derive(Serialize)]
struct Known {
    keyspace: String,
    state: KeyState,
    exposed: bool,
    created_ns: u64,
    age_s: u64,
    retired_ns: Option<u64>,
    destroyed_ns: Option<u64>,
    encrypted_bytes: u64,
    /// When the engine will have rewritten what is left, if it goes on as it did.
    rewritten_in_s: Option<u64>,
}

impl Known {
    fn new(key: DataKeyStatus, bytes: u64, now_ns: u64) -> Self {
        let age_ns = now_ns.saturating_sub(key.created_ns);
        Self {
            rewritten_in_s: churned_in(&key, bytes, age_ns).map(|left| left.as_secs()),
            keyspace: key.keyspace,
            state: key.state,
            exposed: key.exposed,
            created_ns: key.created_ns,
            age_s: now_ns.saturating_sub(key.created_ns) / 1_000_000_000,
            retired_ns: key.retired_ns,
            destroyed_ns: key.destroyed_ns,
            encrypted_bytes: key.encrypted_bytes,
        }
    }
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let place = Place::parse(&self.at.dir)?;
        let scan = |keyring: Option<&Keyring>| match &place {
            Place::Directory(dir) => scan_directory(dir, keyring, out.is_json()),
            Place::Bucket(bucket) => scan_bucket(bucket, keyring, out.is_json()),
        };
        if let Place::Directory(dir) = &place {
            store::check(dir)?;
        }
        let keys = self.at.cmek.open()?;
        let mut report = if keys.is_empty() {
            let info = store::inspect_anywhere(&place)?;
            self.at.check_pins(&info)?;
            Report::without_keys(self, info, scan(None)?)
        } else {
            let store = self.at.read_keys(&place, keys)?;
            let mut files = scan(Some(store.keyring()))?;
            if let Place::Directory(dir) = &place {
                let (mut there, absent) = store.elsewhere(dir)?;
                let foreign = store.store().directories().foreign();
                there.retain(|other| !foreign.iter().any(|(foreign, _)| foreign == other));
                for other in there {
                    files.add(scan_directory(&other, Some(store.keyring()), out.is_json())?);
                }
                let foreign = foreign.iter().map(|(_, error)| error);
                let not_counted = absent.iter().chain(foreign);
                not_counted.for_each(|error| out.warn(&format!("not counted: {error}")));
            }
            // After the scan, which reads the keyring again if a writer rotated.
            let anchor = store.keyring().anchor().to_string();
            Report::authenticated(self, store.keyring().status(), files).with_anchor(anchor)
        };
        let public = report.info.slots.iter().filter(|slot| self.at.cmek.is_public(slot));
        report.public_slots = public.map(|slot| slot.name.clone()).collect();
        report.newer_images = store::newer_images(&place, &report.info)?;
        out.result(&report, || report.text())
    }
}

impl Report {
    fn authenticated(args: &Args, status: KeyringStatus, files: Scan) -> Self {
        let now_ns = SystemClock.now_ns();
        let usage = |id| files.by_key.get(&id).copied().unwrap_or_default();
        let data_keys = status.data_keys.into_iter().map(|key| {
            let Usage { files, bytes } = usage(key.id);
            KeyReport { id: key.id, files, bytes, known: Some(Known::new(key, bytes, now_ns)) }
        });
        Self {
            directory: args.at.dir.display().to_string(),
            authenticated: true,
            data_keys: data_keys.collect(),
            info: status.info,
            anchor: None,
            public_slots: Vec::new(),
            newer_images: Vec::new(),
            settings: Some(status.settings),
            history: Some(status.history),
            files,
        }
    }

    fn with_anchor(mut self, anchor: String) -> Self {
        self.anchor = Some(anchor);
        self
    }

    fn without_keys(args: &Args, info: KeyringInfo, files: Scan) -> Self {
        let by_key: &BTreeMap<_, _> = &files.by_key;
        let data_keys = by_key.iter().map(|(id, usage)| KeyReport {
            id: *id,
            files: usage.files,
            bytes: usage.bytes,
            known: None,
        });
        Self {
            directory: args.at.dir.display().to_string(),
            authenticated: false,
            data_keys: data_keys.collect(),
            info,
            anchor: None,
            public_slots: Vec::new(),
            newer_images: Vec::new(),
            settings: None,
            history: None,
            files,
        }
    }

    fn text(&self) -> String {
        let how = if self.authenticated {
            GREEN.paint("authenticated")
        } else {
            YELLOW.paint("not authenticated: read without a key; --cmek proves it")
        };
        let mut lines = vec![
            format!("{}: {how}", BOLD.paint(&clean(&self.directory))),
            format!("  store       {}", self.info.store_id),
            format!("  store key   {}", self.info.store_key_id),
            format!(
                "  keyring     generation {}, written {}",
                self.info.generation,
                units::time(self.info.written_ns)
            ),
        ];
        if !self.newer_images.is_empty() {
            let newer: Vec<_> =
                self.newer_images.iter().map(|newer| format!("{KEYRING_FILE}.{newer}")).collect();
            let what = format!("put back: {} beside it are newer", newer.join(", "));
            lines.push(format!("              {}", YELLOW.paint(&what)));
        }
        lines.extend(self.info.slots.iter().map(|slot| {
            let version = match slot.key_version.as_str() {
                "" => String::new(),
                version => format!(", version {}", clean(version)),
            };
            let since = units::time(slot.created_ns);
            let (name, uri) = (clean(&slot.name), clean(&slot.key_uri));
            let public = if self.public_slots.contains(&slot.name) {
                YELLOW.paint(
                    "; anybody can wrap by it: add proof=PS256, or pin the store with --store-id",
                )
            } else {
                String::new()
            };
            format!("  CMEK slot   {name}: {uri}{version}, since {since}{public}")
        }));
        lines.extend(self.anchor.as_ref().map(|anchor| format!("  anchor      {anchor}")));
        lines.extend(self.settings.as_ref().map(settings_line));
        lines.push(format!("\n{}", BOLD.paint("Data keys")));
        lines.push(self.key_table());
        lines.push(format!("\n{}", BOLD.paint("Files")));
        lines.push(self.files_table());
        lines.extend(self.files.problems.iter().take(PROBLEMS_SHOWN).map(|problem| {
            let (path, what) = (&problem.path, &problem.message);
            format!("  {} {path}: {what}", YELLOW.paint("!"))
        }));
        let hidden = self.files.problem.files.saturating_sub(PROBLEMS_SHOWN as u64);
        if hidden > 0 {
            lines.push(format!("  {} and {hidden} more", YELLOW.paint("!")));
        }
        let Scan { nested_stores, lost_found, .. } = &self.files;
        lines.extend(passed_by_lines(nested_stores, lost_found, "counted"));
        lines.join("\n")
    }

    fn key_table(&self) -> String {
        if self.data_keys.is_empty() {
            return format!("  {}", DIM.paint("no file names one"));
        }
        use Align::{Left, Right};
        let mut columns = vec![("id", Left), ("files", Right), ("on disk", Right)];
        if self.authenticated {
            columns.extend([("state", Left), ("age", Right), ("rewritten in", Right)]);
        }
        columns.push(("share", Left));
        let mut table = Table::new(&columns);
        let total = self.files.encrypted.bytes.max(1) as f64;
        for key in &self.data_keys {
            let mut row: Vec<Cell> = vec![
                key.id.to_string().into(),
                units::count(key.files).into(),
                units::bytes(key.bytes).into(),
            ];
            if let Some(known) = &key.known {
                row.push(state_cell(known));
                row.push(units::duration(Duration::from_secs(known.age_s)).into());
                row.push(rewritten_in(known).into());
            }
            row.push(bar(key.bytes as f64 / total, BAR_LEN).into());
            table.row(row);
        }
        table.render()
    }

    fn files_table(&self) -> String {
        let mut table =
            Table::new(&[("", Align::Left), ("files", Align::Right), ("on disk", Align::Right)]);
        let plaintext = match self.settings.as_ref().map(|settings| settings.plaintext) {
            Some(PlaintextPolicy::Require) => "plaintext, refused",
            Some(PlaintextPolicy::Allow) => "plaintext, allowed",
            None => "plaintext",
        };
        let rows = [
            ("encrypted", self.files.encrypted, true),
            (plaintext, self.files.plaintext, true),
            ("temporary", self.files.temporary, false),
            ("empty", self.files.empty, false),
            ("with problems", self.files.problem, false),
        ];
        for (name, usage, always) in rows {
            if always || usage.files > 0 {
                table.row([
                    name.into(),
                    units::count(usage.files).into(),
                    units::bytes(usage.bytes).into(),
                ]);
            }
        }
        table.render()
    }
}

/// When compaction will have finished a key.
fn rewritten_in(key: &Known) -> String {
    match key.rewritten_in_s {
        _ if key.state == KeyState::Destroyed => String::new(),
        Some(0) => "done".into(),
        Some(seconds) => format!("~{}", units::duration(Duration::from_secs(seconds))),
        None => "-".into(),
    }
}

fn state_cell(key: &Known) -> Cell {
    let state = match key.state {
        KeyState::Active => "active",
        KeyState::DecryptOnly => "decrypt-only",
        KeyState::Retiring => "retiring",
        KeyState::Destroyed => "destroyed",
        _ => "unknown",
    };
    match (key.exposed, key.state) {
        (true, _) => Cell::painted(format!("{state}, exposed"), YELLOW),
        (false, KeyState::Active) => Cell::painted(state, GREEN),
        (false, _) => state.into(),
    }
}

fn settings_line(settings: &Settings) -> String {
    let limit = settings
        .rotation_bytes
        .map_or(String::new(), |limit| format!(" or {} encrypted", units::bytes(limit)));
    let plaintext = match settings.plaintext {
        PlaintextPolicy::Require => "refused",
        PlaintextPolicy::Allow => "allowed",
    };
    format!(
        "  settings    data key rotates after {}{limit}; plaintext files {plaintext}; files {}",
        units::duration(settings.rotation_period),
        settings.integrity
    )
}
