//! What the doctor looks at.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::keyring::{AuditEvent, AuditKind, KeyState, KeyringInfo, KeyringStatus};
use atrest::kms::Kms;
use atrest::names::{KEYRING_FILE, LOCK_FILE, NameKind, is_keyring_name, kind_of};
use atrest::{Clock, ErrorKind, PlaintextPolicy, SystemClock};

use super::Finding;
use super::findings::Findings;
use super::owners::owners;
use crate::advice::Verdict;
use crate::failure::{Failure, Result};
use crate::scan::{Scan, open_regular, scan};
use crate::store::{Opened, StoreArgs};
use crate::units;

/// A store that moved as often in as long is not moved for good.
const CHURN_MIN: usize = 3;
const CHURN_NS: u64 = 30 * 86_400 * 1_000_000_000;
/// Times this far in the future come from a wrong clock.
const CLOCK_TOLERANCE_NS: u64 = 5 * 60 * 1_000_000_000;

/// All checks, those first whose problems explain the others.
pub(super) fn all(at: &StoreArgs, keys: Vec<Arc<dyn Kms>>, json: bool) -> Result<Vec<Finding>> {
    let mut to = Findings::default();
    let dir = &at.dir;
    let names = names(dir)?;
    restore(&names, &mut to);
    let opened = (!keys.is_empty()).then(|| at.read_only_with(keys));
    let status = match &opened {
        Some(Ok(store)) => Some(store.keyring().status()),
        _ => None,
    };
    let info = match &status {
        Some(status) => Ok(status.info.clone()),
        None => at.inspect(),
    };
    let info = keyring(info, &names, &mut to);
    if let Some(info) = &info {
        rolled_back(at, info, &mut to);
        pinned(at, info, opened.is_none(), &mut to);
        unlocked(&opened, &mut to);
        if let Err(failure) = at.check_mirrors() {
            to.problem(
                "mirror",
                told(&failure),
                "give it with --mirror to a command that writes; where it was given up and destroyed, remove the file that tells of it",
            );
        }
    }
    lock(dir, &mut to);
    modes(dir, &names, &mut to);
    owners(dir, &mut to)?;
    clock(info.as_ref(), status.as_ref(), &mut to);
    rotation(status.as_ref(), &mut to);
    place(status.as_ref(), &mut to);
    let store = opened.as_ref().and_then(|opened| opened.as_ref().ok());
    let mut found = scan(dir, store.map(Opened::keyring), json)?;
    if let Some(store) = store {
        elsewhere(dir, store, &mut found, &mut to, json)?;
    }
    leftovers(&names, &found, store, &mut to);
    files(&found, status.as_ref(), &mut to);
    Ok(to.0)
}

/// Names of the entries of the directory itself.
fn names(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let fail = |e| Failure::io("the directory cannot be listed", dir, e);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        names.push((entry.file_name().to_string_lossy().into_owned(), entry.path()));
    }
    names.sort();
    Ok(names)
}

fn restore(names: &[(String, PathBuf)], to: &mut Findings) {
    if names.iter().any(|(name, _)| kind_of(name.as_bytes()) == Some(NameKind::Restore)) {
        to.problem(
            "restore",
            "a restore into this directory was not finished",
            "run the same `atrest backup restore` again; until then this is no store",
        );
    }
}

fn keyring(
    info: Result<KeyringInfo>,
    names: &[(String, PathBuf)],
    to: &mut Findings,
) -> Option<KeyringInfo> {
    let kept = names.iter().filter(|(name, _)| generation(name).is_some()).count();
    match info {
        Ok(info) => {
            let slots = units::counted(info.slots.len() as u64, "CMEK slot");
            to.good("keyring", format!("generation {}, {slots}", info.generation));
            if kept == 0 && info.generation > 1 {
                to.note(
                    "keyring",
                    "no older image is kept",
                    "nothing to do if the store key or the customer's key was rotated; a mirror or a backup keeps more",
                );
            }
            Some(info)
        }
        Err(failure) => {
            let denied = ErrorKind::Io(io::ErrorKind::PermissionDenied);
            let advice = match kept {
                _ if failure.kind() == Some(denied) => "run as the user who owns the store",
                0 => {
                    "restore the keyring from a mirror or the store from a backup; do not create a new one here"
                }
                _ => "see what the kept images open with `atrest recover DIR --cmek URI`",
            };
            to.problem("keyring", told(&failure), advice);
            None
        }
    }
}

fn pinned(at: &StoreArgs, info: &KeyringInfo, without_key: bool, to: &mut Findings) {
    if at.is_pinned() {
        // With a key the opening says so.
        if without_key && let Err(failure) = at.check_pins(info) {
            let kind = failure.kind().unwrap_or(ErrorKind::Poisoned);
            to.problem("keyring", told(&failure), Verdict::of(kind).advice);
        }
        return;
    }
    let Some(slot) = info.slots.iter().find(|slot| at.cmek.is_public(slot)) else { return };
    to.note(
        "keyring",
        format!("anybody can wrap by the key of the slot {}", slot.name),
        "whoever can write to the directory could put a store of his own there: ask for a proof (proof=PS256 in the key's URI), or pin the store with --store-id or --anchor, in the engine's options too",
    );
}

fn rolled_back(at: &StoreArgs, info: &KeyringInfo, to: &mut Findings) {
    let newer = match at.newer_images(info) {
        Ok(newer) if newer.is_empty() => return,
        Ok(newer) => newer,
        Err(failure) => {
            let advice = "run as the user who owns the store";
            return to.problem("keyring", told(&failure), advice);
        }
    };
    let names: Vec<_> =
        newer.iter().map(|generation| format!("{KEYRING_FILE}.{generation}")).collect();
    to.problem(
        "keyring",
        format!("an old keyring was put back: newer are {}", names.join(", ")),
        "find out who did; see what each image opens with `atrest recover DIR --cmek URI`, and choose one",
    );
}

fn generation(name: &str) -> Option<u64> {
    match kind_of(name.as_bytes()) {
        Some(NameKind::Older(generation)) => Some(generation),
        _ => None,
    }
}

fn unlocked(opened: &Option<Result<Opened>>, to: &mut Findings) {
    match opened {
        None => to.note("keys", "not tried", "give the customer's key with --cmek to look further"),
        Some(Ok(store)) => {
            let keys = units::counted(store.keyring().status().data_keys.len() as u64, "data key");
            to.good("keys", format!("the customer's key opens the keyring: {keys}"));
        }
        Some(Err(failure)) => {
            let kind = failure.kind().unwrap_or(ErrorKind::Poisoned);
            to.problem("keys", told(failure), Verdict::of(kind).advice);
        }
    }
}

/// A failure and its nearest cause.
fn told(failure: &Failure) -> String {
    let Some(report) = failure.report() else { return String::new() };
    match report.causes.first() {
        Some(cause) => format!("{}: {cause}", report.message),
        None => report.message,
    }
}

fn lock(dir: &Path, to: &mut Findings) {
    // Without `create`: the doctor leaves nothing behind.
    let file = match open_regular(&dir.join(LOCK_FILE)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return to.good("lock", "nobody ever opened the store for writing");
        }
        Err(error) => {
            let advice = "run as the user who owns the store";
            return to.problem("lock", format!("{LOCK_FILE} cannot be opened: {error}"), advice);
        }
    };
    match file.try_lock_shared() {
        Ok(()) => to.good("lock", "no process has the store open for writing"),
        Err(fs::TryLockError::WouldBlock) => to.note(
            "lock",
            "a process has the store open for writing",
            "nothing to do if that is your engine; what it has not finished may show below",
        ),
        Err(fs::TryLockError::Error(error)) => to.problem(
            "lock",
            format!("the file system does not lock files: {error}"),
            "move the store to a local file system: without locks two writers can meet",
        ),
    }
}

fn leftovers(names: &[(String, PathBuf)], found: &Scan, store: Option<&Opened>, to: &mut Findings) {
    let mut any = false;
    match store.map_or(Ok(Vec::new()), |store| store.keyring().keys().copies_aside()) {
        Ok(copies) => {
            for name in copies.iter().filter(|name| generation(name).is_some()) {
                any = true;
                to.problem(
                    "leftover",
                    format!("{name} may hold keys that were replaced or destroyed since"),
                    "find out why it could not be removed; `atrest keys retire DIR` tries again",
                );
            }
        }
        Err(error) => {
            any = true;
            let advice = "run as the user who owns the store";
            to.problem("leftover", told(&Failure::from(error)), advice);
        }
    }
    let mut tell = |name: &str, shown: &str| {
        let Some((what, advice)) = kind_of(name.as_bytes()).and_then(leftover) else { return };
        any = true;
        to.note("leftover", format!("{shown}: {what}"), advice);
    };
    names.iter().filter(|(name, _)| is_reserved(name)).for_each(|(name, _)| tell(name, name));
    for path in &found.leftovers {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        tell(&name, &path.display().to_string());
    }
    if !any {
        to.good("leftover", "none");
    }
}

/// What a name stands for that need not be there, and what to do about it.
fn leftover(kind: NameKind) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        NameKind::Unfinished => {
            ("a commit that did not finish", "nothing to do: the next commit replaces it")
        }
        NameKind::Staging => (
            "links of a backup that runs or was killed",
            "nothing to do while one runs; the next `atrest backup` takes them away",
        ),
        NameKind::Bad => (
            "a keyring that a recovery kept aside",
            "keep it while files are unreadable; then delete it",
        ),
        NameKind::Reencrypt => (
            "a copy that an interrupted re-encryption was writing",
            "nothing to do: the next `atrest reencrypt` removes it",
        ),
        NameKind::Partial => (
            "a file that a command writes, or was writing when it was killed",
            "nothing to do: the next `atrest reencrypt` removes it",
        ),
        NameKind::Unknown => (
            "a reserved name, which no version up to this one makes",
            "find out who made it: no file of the store may have such a name, and none is read",
        ),
        _ => return None,
    })
}

fn is_reserved(name: &str) -> bool {
    is_keyring_name(name.as_bytes())
}

fn modes(dir: &Path, names: &[(String, PathBuf)], to: &mut Findings) {
    let mut any = false;
    for (name, path) in names.iter().filter(|(name, _)| is_reserved(name)) {
        let Ok(metadata) = path.symlink_metadata() else { continue };
        if metadata.mode() & 0o077 != 0 && metadata.is_file() {
            any = true;
            let mode = metadata.mode() & 0o777;
            to.problem(
                "modes",
                format!("{name} may be used by others: mode {mode:03o}"),
                "chmod 600 it: it is not readable without the customer's key, and nobody else needs it",
            );
        }
    }
    match dir.metadata() {
        Ok(metadata) if metadata.mode() & 0o002 != 0 => {
            any = true;
            let what = "everybody may write to the directory";
            to.problem("modes", what, "chmod o-w it: whoever writes to it can remove the keyring");
        }
        _ => {}
    }
    if !any {
        to.good("modes", "the keyring is its owner's alone");
    }
}

fn clock(info: Option<&KeyringInfo>, status: Option<&KeyringStatus>, to: &mut Findings) {
    let now_ns = SystemClock.now_ns();
    let late = |ns: u64| ns > now_ns.saturating_add(CLOCK_TOLERANCE_NS);
    let advice = "set the clock: keys rotate by it; a store waits a whole period where its times cannot be right";
    match info {
        Some(info) if late(info.written_ns) => {
            let written = units::time(info.written_ns);
            to.problem(
                "clock",
                format!("the keyring was written in the future: {written}"),
                advice,
            );
        }
        Some(_) => {
            let keys = status.map_or(&[][..], |status| &status.data_keys);
            match keys.iter().find(|key| late(key.created_ns)) {
                Some(key) => {
                    let what = format!("data key {} was created in the future", key.id);
                    to.problem("clock", what, advice);
                }
                None => to.good("clock", "no time of the keyring is in the future"),
            }
        }
        None => {}
    }
}

fn rotation(status: Option<&KeyringStatus>, to: &mut Findings) {
    let Some(status) = status else { return };
    let now_ns = SystemClock.now_ns();
    let period_ns = status.settings.rotation_period.as_nanos();
    for key in status.data_keys.iter().filter(|key| key.state == KeyState::Active) {
        let age_ns = u128::from(now_ns.saturating_sub(key.created_ns));
        let age = units::duration(std::time::Duration::from_nanos(age_ns as u64));
        if age_ns > period_ns.saturating_mul(2) {
            to.problem(
                "rotation",
                format!("the active data key of {} is {age} old", key.keyspace),
                "let the engine open the store for writing, or run `atrest rotate data-key DIR`",
            );
        } else {
            to.good("rotation", format!("the active data key of {} is {age} old", key.keyspace));
        }
        if key.exposed {
            let what = format!("the active data key of {} may be known outside", key.keyspace);
            to.problem("rotation", what, "run `atrest rotate data-key DIR`");
        }
    }
}

/// Whether the store is found now here, now there: each place has data keys of its own.
fn place(status: Option<&KeyringStatus>, to: &mut Findings) {
    let Some(status) = status else { return };
    let since_ns = SystemClock.now_ns().saturating_sub(CHURN_NS);
    let moved = |event: &&AuditEvent| event.what == AuditKind::Moved && event.at_ns >= since_ns;
    let count = status.history.iter().filter(moved).count();
    if count < CHURN_MIN {
        return;
    }
    to.note(
        "place",
        format!("the store was opened at another place than before {count} times in 30 days"),
        "mount it at one path: each place has data keys of its own, and more than four are not remembered; `atrest audit DIR` tells when",
    );
}

/// The store's directories that are not below its own.
fn elsewhere(
    dir: &Path,
    store: &Opened,
    found: &mut Scan,
    to: &mut Findings,
    json: bool,
) -> Result<()> {
    let (there, absent) = store.elsewhere(dir)?;
    for other in there {
        let shown = other.display();
        found.add(scan(&other, Some(store.keyring()), json)?);
        let advice = "back it up by other means: `atrest backup` does not take it along";
        to.note("directories", format!("files of the store are in {shown} too"), advice);
    }
    for error in absent {
        let advice =
            "mount it or bring it back, or take it off with `atrest keys forget-directory`";
        to.problem("directories", error.to_string(), advice);
    }
    for (_, error) in store.store().directories().foreign() {
        let advice = "take it over with `atrest keys take-directory`; in a copy of the store take it off with `atrest keys forget-directory`";
        to.problem("directories", error.to_string(), advice);
    }
    Ok(())
}

fn files(found: &Scan, status: Option<&KeyringStatus>, to: &mut Findings) {
    let encrypted = units::counted(found.encrypted.files, "encrypted file");
    match status {
        Some(_) => to.good("files", format!("{encrypted}, every header proven")),
        None => to.good("files", format!("{encrypted}, headers not proven without a key")),
    }
    if found.plaintext.files > 0 {
        let what = units::counted(found.plaintext.files, "plaintext file");
        match status.map(|status| status.settings.plaintext) {
            Some(PlaintextPolicy::Require) => to.problem(
                "files",
                format!("{what}, which every reader refuses"),
                "find out who put them there; encrypt them with `atrest encrypt`, or allow them",
            ),
            _ => to.note("files", what, "re-encrypt them, so that plaintext need not be allowed"),
        }
    }
    for nested in &found.nested_stores {
        let advice = "nothing to do if you meant it: every command on it takes its own directory";
        to.note("files", format!("{nested} is another store, at which nothing was looked"), advice);
    }
    for dir in &found.lost_found {
        let advice = "nothing to do if the file system was never repaired: what a repair found is in there, for root to look through before keys are retired";
        to.note("files", format!("{dir} of the file system was not looked into"), advice);
    }
    if found.temporary.files > 0 {
        let what = units::counted(found.temporary.files, "temporary file");
        let advice =
            "nothing to do while the engine runs; otherwise delete them: their key is gone";
        to.note("files", what, advice);
    }
    if found.empty.files > 0 {
        let what = units::counted(found.empty.files, "empty file");
        to.note("files", what, "nothing to do: a crash leaves them, nothing was in them");
    }
    for problem in found.problems.iter().take(10) {
        let advice = match problem.kind {
            "unknown-key" => {
                "its data key is in another keyring: see `atrest recover DIR --cmek URI`"
            }
            "key-destroyed" => "delete it: its data key was destroyed on purpose",
            "identity-mismatch" => "it belongs to another store: move it away",
            "truncated-header" => "a crash left it: delete it, nothing was readable in it",
            "corrupt-header" => "restore it from a backup",
            _ => "restore it from a backup, and find out what happened to it",
        };
        to.problem("files", problem.message.clone(), advice);
    }
    let hidden = found.problem.files.saturating_sub(10);
    if hidden > 0 {
        let advice = "`atrest verify DIR --cmek URI --json` names them all";
        to.problem("files", format!("and {hidden} more"), advice);
    }
}
