//! Destroying data keys that nothing uses any more.
//!
//! decrypt-only --(no file)--> retiring --(grace is over, still no file)--> destroyed
//!
//! The evidence is gathered inside the call, whatever the caller knew before. While it is,
//! no file can be created under the keys in question, and none of them may be held by an
//! open file, neither before nor at the commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::audit::AuditKind;
use super::claim::StoreFiles;
use super::commit::Draft;
use super::handles::Graces;
use super::keys::Keys;
use super::{DataKeyId, Inner, KeyRecord, KeyState};
use crate::error::{Error, ErrorKind, Result};
use crate::walk::PassedBy;

/// What is under data keys now: files in directories, objects in an object store.
pub trait LiveKeys {
    /// The data keys that the headers of these files name **now**. Called while no file
    /// can be created under a key that may be destroyed; it **MUST** look anew, and fail
    /// where it cannot look.
    ///
    /// # Errors
    /// Any; nothing is destroyed then.
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>>;
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
    /// Directories of the store in which nobody looked for their files.
    #[serde(flatten)]
    pub passed_by: PassedBy,
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
    /// Destroys the data keys that nothing in `live` is under, through two calls at least
    /// `grace` apart: the first finds nothing and starts the time of grace, the second asks
    /// again. A key with a [hold](super::Holds::register) or an open file is never
    /// destroyed. The files of a [`Store`](crate::Store) over the keyring are always looked
    /// at; [`Renewal::retire`](crate::store::Renewal::retire) needs nothing else.
    ///
    /// Destroying erases the wrapped key, replaces the store key and removes the older
    /// images of the keyring; the key's record stays. A copy of an older keyring kept
    /// elsewhere together with the customer's key could still bring it back. A file that another
    /// process still has open refuses there as after
    /// [`danger_shred`](super::Keyspaces::danger_shred).
    ///
    /// The grace is counted by the time of day, and never longer than `grace` from now: a clock
    /// that was ahead once, or a longer grace before, delays nothing for longer. A clock that is
    /// set forward shortens it, but not in the process that made the first call: there the time
    /// since boot counts as well.
    ///
    /// No other process may write to the store meanwhile, as two may with a keyring in an
    /// object store: there `grace` has to outlast every process that has not
    /// [reloaded](super::Keyring::reload).
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if files of the store are in
    /// directories and no [`Store`](crate::Store) is open over the keyring to look at them, and
    /// where a [mirror](super::DirectoryStorage::with_mirror) would keep the key;
    /// [`KeyringBusy`](ErrorKind::KeyringBusy) beside another retirement; what `live` returns;
    /// those of [`rotate`](Self::rotate). No key is
    /// destroyed then, unless only the removal of older images failed.
    pub fn retire(&self, live: &dyn LiveKeys, grace: Duration) -> Result<Retirement> {
        let files = self.0.claimant();
        let (own, registered) = self.0.roots();
        if files.is_none() && (own.is_some() || !registered.is_empty()) {
            let what = "files of the store are in directories, which have to be looked through";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        self.retire_all_but(&Both(live, files), grace)
    }

    /// The same, for evidence that covers the directories.
    pub(crate) fn retire_all_but(
        &self,
        live: &dyn LiveKeys,
        grace: Duration,
    ) -> Result<Retirement> {
        let inner = &self.0.inner;
        let Some(mut graces) = inner.vault.handles.try_closing() else {
            let what = "another thread is retiring keys";
            return Err(Error::new(ErrorKind::KeyringBusy, what));
        };
        inner.check_may_rotate()?;
        inner.forget_stale()?;
        let candidates: Vec<DataKeyId> = {
            let snapshot = inner.vault.load();
            snapshot.unlocked()?;
            let replaced = snapshot.body.keys.iter().filter(|key| key.state.is_replaced());
            replaced.map(id_of).collect()
        };
        if candidates.is_empty() {
            return Ok(Retirement::default());
        }
        let _reopened = Reopen(inner);
        let (begun_ns, since_boot) = (inner.clock.now_ns(), inner.clock.since_boot());
        // Closed first, so that no file comes after the look.
        let open = inner.vault.handles.close(&candidates, false);
        let in_use = live.keys_in_use()?.into_iter().collect();
        let candidates = candidates.into_iter().collect();
        let mut evidence = Evidence {
            begun_ns,
            since_boot,
            open,
            in_use,
            held: HashMap::new(),
            grace,
            graces: &mut graces,
        };
        self.destroy(&candidates, &mut evidence)
    }

    fn destroy(
        &self,
        candidates: &HashSet<DataKeyId>,
        evidence: &mut Evidence<'_>,
    ) -> Result<Retirement> {
        let mut report = Retirement::default();
        let inner = &self.0.inner;
        let mut writer = inner.writer();
        inner.commit(&mut writer, |draft| {
            // From here to the commit no file under the keys that are about to go can be
            // opened either: one outside of the store's directories, say. Files under the
            // others have to open at any time.
            evidence.held = held_by(draft);
            let records = draft.body.keys.iter().filter(|key| candidates.contains(&id_of(key)));
            let doomed: Vec<_> =
                records.filter(|key| is_doomed(key, evidence)).map(id_of).collect();
            evidence.open.extend(inner.vault.handles.close(&doomed, true));
            report.keys.clear();
            let mut changed = false;
            for index in 0..draft.body.keys.len() {
                let id = id_of(&draft.body.keys[index]);
                let state = draft.body.keys[index].state;
                if candidates.contains(&id) && state.is_replaced() {
                    let (outcome, edited) = judge(draft, index, evidence);
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

/// What the caller knows of, and the files of the store over the keyring.
struct Both<'a>(&'a dyn LiveKeys, Option<Arc<StoreFiles>>);

impl LiveKeys for Both<'_> {
    fn keys_in_use(&self) -> Result<Vec<DataKeyId>> {
        let mut keys = self.0.keys_in_use()?;
        if let Some(files) = &self.1 {
            keys.extend(files.keys_in_use()?);
        }
        Ok(keys)
    }
}

/// What speaks against destroying keys.
struct Evidence<'a> {
    /// When the look began, by the time of day and since boot. One that began within a grace may
    /// have passed by where another process's file landed since.
    begun_ns: u64,
    since_boot: Duration,
    in_use: HashSet<DataKeyId>,
    /// By the names of holds, as of the draft.
    held: HashMap<DataKeyId, Vec<String>>,
    open: HashSet<DataKeyId>,
    grace: Duration,
    graces: &'a mut Graces,
}

impl Evidence<'_> {
    /// When the grace of a retiring key ends. The time of day may jump: the time since boot counts
    /// too where it is known, and nothing is later than if the grace began with this look.
    fn until_ns(&self, key: &KeyRecord) -> u64 {
        let left = self.graces.get(&id_of(key)).copied().unwrap_or_default();
        let left = left.saturating_sub(self.since_boot);
        let begun_ns = self.begun_ns;
        key.retire_after_ns.max(after(begun_ns, left)).min(after(begun_ns, self.grace))
    }
}

fn after(now_ns: u64, time: Duration) -> u64 {
    now_ns.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

struct Reopen<'a>(&'a Inner);

impl Drop for Reopen<'_> {
    fn drop(&mut self) {
        self.0.vault.handles.reopen();
    }
}

/// Whether only an open file could still save a key.
fn is_doomed(key: &KeyRecord, evidence: &Evidence<'_>) -> bool {
    key.state == KeyState::Retiring
        && evidence.begun_ns >= evidence.until_ns(key)
        && !evidence.in_use.contains(&id_of(key))
        && !evidence.held.contains_key(&id_of(key))
}

fn id_of(key: &KeyRecord) -> DataKeyId {
    DataKeyId::from_bytes(key.id)
}

/// Who holds which keys.
fn held_by(draft: &Draft) -> HashMap<DataKeyId, Vec<String>> {
    let mut held: HashMap<_, Vec<_>> = HashMap::new();
    for hold in &draft.body.holds {
        for id in &hold.keys {
            held.entry(DataKeyId::from_bytes(*id)).or_default().push(hold.name.clone());
        }
    }
    held
}

/// Decides about one key. Returns whether its record changed.
fn judge(draft: &mut Draft, index: usize, evidence: &mut Evidence<'_>) -> (RetireOutcome, bool) {
    let record = &mut draft.body.keys[index];
    let id = id_of(record);
    let kept = if evidence.in_use.contains(&id) {
        Some(RetireOutcome::InUse)
    } else {
        evidence.held.get(&id).map(|by| RetireOutcome::Held { by: by.clone() })
    };
    if let Some(outcome) = kept {
        // Its time of grace starts anew.
        let changed = record.state == KeyState::Retiring;
        (record.state, record.retire_after_ns) = (KeyState::DecryptOnly, 0);
        return (outcome, changed);
    }
    let end = evidence.since_boot.saturating_add(evidence.grace);
    if record.state == KeyState::Retiring {
        let until_ns = evidence.until_ns(record);
        if evidence.begun_ns < until_ns {
            let sooner = until_ns < record.retire_after_ns;
            record.retire_after_ns = record.retire_after_ns.min(until_ns);
            evidence.graces.entry(id).and_modify(|known| *known = end.min(*known));
            return (RetireOutcome::Retiring { until_ns }, sooner);
        }
        if evidence.open.contains(&id) {
            return (RetireOutcome::Open, false);
        }
        draft.destroy_data_key(index);
        return (RetireOutcome::Destroyed, true);
    }
    evidence.graces.insert(id, end);
    record.state = KeyState::Retiring;
    record.retire_after_ns = after(draft.now_ns, evidence.grace).max(1);
    (RetireOutcome::Retiring { until_ns: record.retire_after_ns }, true)
}
