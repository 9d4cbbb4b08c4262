//! Destroying data keys that nothing uses any more.
//!
//! decrypt-only --(no file)--> retiring --(grace is over, still no file)--> destroyed
//!
//! The proof is a scan of the store's directories inside the call, whatever the caller
//! says. While it runs no file can be created under the keys in question, and none of
//! them may be held by an open file, neither before the scan nor at the commit; renames
//! through the library, which a scan could miss, are looked at afterwards.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::audit::AuditKind;
use super::commit::Draft;
use super::keys::Keys;
use super::{DataKeyId, Inner, KeyState};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::StoreId;
use crate::moves::Moves;
use crate::scan::{Found, OnScan, Visitor, What, look, look_through, scan};
use crate::vfs::{EntryKind, OsVfs, Vfs};

/// Files under data keys that a scan of the store's directories does not find: objects in
/// an object store, or files the engine knows of.
pub trait LiveKeys {
    /// The data keys that the headers of these files name **now**. Called while no file
    /// can be created under a key that may be destroyed; it **MUST** look anew, and fail
    /// where it cannot look.
    ///
    /// # Errors
    /// Any; nothing is destroyed then.
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>>;
}

/// No files beside those in the store's directories.
impl LiveKeys for () {
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>> {
        Ok(Vec::new())
    }
}

/// What became of one data key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
#[non_exhaustive]
pub enum RetireOutcome {
    /// Files are under it.
    InUse,
    /// Nothing is under it, but something outside holds it.
    Held {
        /// The names of the holds.
        by: Vec<String>,
    },
    /// Nothing was found under it, but an open file holds it.
    Open,
    /// Nothing is under it: it is destroyed by a call after this time.
    Retiring {
        /// Nanoseconds since the Unix epoch.
        until_ns: u64,
    },
    /// It is destroyed now.
    Destroyed,
}

/// One data key that another has replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ReplacedKey {
    /// The key.
    pub id: DataKeyId,
    /// What became of it.
    #[serde(flatten)]
    pub outcome: RetireOutcome,
}

/// What one retirement did: all data keys neither active nor destroyed before, oldest
/// first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Retirement {
    /// The keys.
    pub keys: Vec<ReplacedKey>,
}

impl Retirement {
    /// The keys that were destroyed.
    pub fn destroyed(&self) -> impl Iterator<Item = DataKeyId> {
        let destroyed = |key: &&ReplacedKey| key.outcome == RetireOutcome::Destroyed;
        self.keys.iter().filter(destroyed).map(|key| key.id)
    }
}

/// Default time of grace before a data key is destroyed: seven days.
pub const RETIRE_GRACE: Duration = Duration::from_secs(7 * 86_400);

impl Keys<'_> {
    /// Destroys the data keys that are under no file, through two calls at least `grace`
    /// apart: the first finds no file and starts the time of grace, the second looks
    /// again. A key with a file, a [hold](super::Holds::register) or an open file under it is
    /// never destroyed.
    ///
    /// Destroying erases the wrapped key, replaces the store key and removes the older
    /// images of the keyring; the key's record stays. A copy of an older keyring kept
    /// elsewhere together with the customer's key could still bring it back.
    ///
    /// Files that the engine renames without the library **MUST NOT** move between the
    /// store's directories meanwhile; nor may another process write to the store, as two
    /// may with a keyring in an object store: there `grace` has to outlast every process
    /// that has not [reloaded](super::Keyring::reload).
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) without a known directory and
    /// `live`; [`KeyringBusy`](ErrorKind::KeyringBusy) beside another
    /// retirement; [`CorruptHeader`](ErrorKind::CorruptHeader) if nobody can tell the key
    /// of a file, and [`InvalidArgument`](ErrorKind::InvalidArgument) for a symbolic link
    /// that leads nowhere or to a directory that is not the store's; those of
    /// [`rotate`](Self::rotate). No key is
    /// destroyed then, unless only the removal of older images failed.
    pub fn retire(
        &self,
        live: Option<&dyn LiveKeys>,
        grace: Duration,
        on_scan: OnScan<'_>,
    ) -> Result<Retirement> {
        self.retire_in(&(Arc::new(OsVfs) as Arc<dyn Vfs>), live, grace, on_scan)
    }

    pub(crate) fn retire_in(
        &self,
        vfs: &Arc<dyn Vfs>,
        live: Option<&dyn LiveKeys>,
        grace: Duration,
        on_scan: OnScan<'_>,
    ) -> Result<Retirement> {
        let inner = &self.0.inner;
        let Some(_one) = inner.vault.handles.try_closing() else {
            let what = "another thread is retiring keys";
            return Err(Error::new(ErrorKind::KeyringBusy, what));
        };
        let roots = self.0.directories();
        if roots.is_empty() && live.is_none() {
            let what = "the keyring knows no directory of the store";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        inner.check_may_rotate()?;
        let candidates: Vec<DataKeyId> = {
            let snapshot = inner.vault.load();
            snapshot.unlocked()?;
            let replaced = snapshot.body.keys.iter().filter(|key| key.state.is_replaced());
            replaced.map(|key| DataKeyId::from_bytes(key.id)).collect()
        };
        if candidates.is_empty() {
            return Ok(Retirement::default());
        }
        let _reopened = Reopen(inner);
        let mut evidence = Evidence {
            open: inner.vault.handles.close(&candidates, false),
            in_use: keys_in(vfs, &roots, &inner.moves, inner.store_id, on_scan)?,
        };
        if let Some(live) = live {
            evidence.in_use.extend(live.keys_in_use()?);
        }
        self.destroy(&candidates, &mut evidence, grace)
    }

    fn destroy(
        &self,
        candidates: &[DataKeyId],
        evidence: &mut Evidence,
        grace: Duration,
    ) -> Result<Retirement> {
        let mut report = Retirement::default();
        let inner = &self.0.inner;
        let mut writer = inner.writer();
        inner.commit(&mut writer, |draft| {
            // From here to the commit no file under the keys that are about to go can be
            // opened either: one outside of the store's directories, say. Files under the
            // others have to open at any time.
            let doomed: Vec<_> =
                candidates.iter().copied().filter(|id| is_doomed(draft, *id, evidence)).collect();
            evidence.open.extend(inner.vault.handles.close(&doomed, true));
            report.keys.clear();
            let mut changed = false;
            for index in 0..draft.body.keys.len() {
                let id = DataKeyId::from_bytes(draft.body.keys[index].id);
                let state = draft.body.keys[index].state;
                if candidates.contains(&id) && state.is_replaced() {
                    let (outcome, edited) = judge(draft, index, evidence, grace);
                    changed |= edited;
                    report.keys.push(ReplacedKey { id, outcome });
                }
            }
            if report.destroyed().next().is_some() {
                // So that older images of the keyring fit no longer.
                draft.replace_store_key()?;
                draft.record(AuditKind::StoreKeyRotated, "");
            }
            Ok(changed)
        })?;
        if report.destroyed().next().is_some() {
            inner.forget_older()?;
        }
        Ok(report)
    }
}

/// What speaks against destroying keys.
struct Evidence {
    in_use: HashSet<DataKeyId>,
    open: HashSet<DataKeyId>,
}

struct Reopen<'a>(&'a Inner);

impl Drop for Reopen<'_> {
    fn drop(&mut self) {
        self.0.vault.handles.reopen();
    }
}

/// Whether only an open file could still save a key.
fn is_doomed(draft: &Draft, id: DataKeyId, evidence: &Evidence) -> bool {
    let raw_id = *id.as_bytes();
    !evidence.in_use.contains(&id)
        && !draft.body.holds.iter().any(|hold| hold.keys.contains(&raw_id))
        && draft.body.keys.iter().any(|key| {
            key.id == raw_id
                && key.state == KeyState::Retiring
                && draft.now_ns >= key.retire_after_ns
        })
}

/// Decides about one key. Returns whether its record changed.
fn judge(
    draft: &mut Draft,
    index: usize,
    evidence: &Evidence,
    grace: Duration,
) -> (RetireOutcome, bool) {
    let now_ns = draft.now_ns;
    let holds = draft.body.holds.iter();
    let raw_id = draft.body.keys[index].id;
    let by: Vec<_> =
        holds.filter(|hold| hold.keys.contains(&raw_id)).map(|hold| hold.name.clone()).collect();
    let record = &mut draft.body.keys[index];
    let id = DataKeyId::from_bytes(raw_id);
    let kept = if evidence.in_use.contains(&id) {
        Some(RetireOutcome::InUse)
    } else if !by.is_empty() {
        Some(RetireOutcome::Held { by })
    } else {
        None
    };
    if let Some(outcome) = kept {
        // Its time of grace starts anew.
        let changed = record.state == KeyState::Retiring;
        (record.state, record.retire_after_ns) = (KeyState::DecryptOnly, 0);
        return (outcome, changed);
    }
    if record.state == KeyState::Retiring {
        if now_ns < record.retire_after_ns {
            return (RetireOutcome::Retiring { until_ns: record.retire_after_ns }, false);
        }
        if evidence.open.contains(&id) {
            return (RetireOutcome::Open, false);
        }
        draft.destroy_data_key(index);
        return (RetireOutcome::Destroyed, true);
    }
    let grace_ns = u64::try_from(grace.as_nanos()).unwrap_or(u64::MAX);
    record.state = KeyState::Retiring;
    record.retire_after_ns = now_ns.saturating_add(grace_ns).max(1);
    (RetireOutcome::Retiring { until_ns: record.retire_after_ns }, true)
}

/// The data keys that the store's files name.
pub(crate) fn keys_in(
    vfs: &Arc<dyn Vfs>,
    roots: &[PathBuf],
    moves: &Moves,
    store_id: StoreId,
    on_scan: OnScan<'_>,
) -> Result<HashSet<DataKeyId>> {
    let recording = moves.record();
    let collect =
        || Collect { store_id, keys: HashSet::new(), unreadable: None, links: Vec::new() };
    let mut found = scan(vfs, roots, on_scan, collect)?;
    {
        let alone = moves.alone();
        let mut visitor = collect();
        let mut directories = Vec::new();
        let mut links = Vec::new();
        for path in recording.targets(&alone) {
            match look(&**vfs, &path)? {
                Some((_, what)) => visitor.add(&what, || path.clone()),
                None => directories.push(path),
            }
        }
        // What is no file may be a directory that moved with all in it.
        directories.retain(|path| match vfs.stat(path).map(|stat| stat.kind) {
            Ok(EntryKind::Directory) => true,
            Ok(EntryKind::Link) => {
                links.push(path.clone());
                false
            }
            _ => false,
        });
        directories.sort_unstable();
        directories.dedup_by(|below, above| below.starts_with(above));
        found.extend(scan(vfs, &directories, on_scan, collect)?);
        links.extend(found.iter_mut().flat_map(|part| std::mem::take(&mut part.links)));
        for link in links {
            if let Some((_, what)) = look_through(&**vfs, &link, roots)? {
                visitor.add(&what, || link.clone());
            }
        }
        found.push(visitor);
    }
    let mut keys = HashSet::new();
    for part in found {
        if let Some((path, kind)) = part.unreadable {
            let what = format!("the data key of this file cannot be told ({kind:?})");
            return Err(Error::new(ErrorKind::CorruptHeader, what).with_path(path));
        }
        keys.extend(part.keys);
    }
    Ok(keys)
}

struct Collect {
    store_id: StoreId,
    keys: HashSet<DataKeyId>,
    unreadable: Option<(PathBuf, ErrorKind)>,
    links: Vec<PathBuf>,
}

impl Collect {
    fn add(&mut self, what: &What, path: impl FnOnce() -> PathBuf) {
        match what {
            What::Encrypted(header) if header.store_id == self.store_id => {
                self.keys.insert(header.data_key_id);
            }
            What::Unreadable(kind) if self.unreadable.is_none() => {
                self.unreadable = Some((path(), *kind));
            }
            _ => {}
        }
    }
}

impl Visitor for Collect {
    fn file(&mut self, found: &Found<'_>) {
        self.add(&found.what, || found.path());
    }

    fn staged(&mut self, found: &Found<'_>) {
        self.file(found);
    }

    fn link(&mut self, path: &Path) {
        self.links.push(path.into());
    }

    /// Its files need the keys of its own keyring.
    fn nested(&mut self, _dir: &Path) {}
}
