//! The files an engine should rewrite first.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::renewal::Renewal;
use crate::classify::Contents;
use crate::error::Result;
use crate::header::{FileKind, Header};
use crate::ids::DataKeyId;
use crate::keyring::{
    DataKeyStatus, IntegrityPolicy, KeyState, Keyring, KeyspaceId, PlaintextPolicy,
};
use crate::names::is_temporary;
use crate::scan::{Found, OnScan, Visitor};
use crate::suite::Integrity;
use crate::vfs::FileStat;

/// Which files are stale. A file under its keyspace's active data key never is because of
/// its key: rewriting it would bring it nowhere.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StalePolicy {
    /// Files under data keys created longer ago than this. Default: none.
    pub key_age_max: Option<Duration>,
    /// Files under these data keys. Default: none.
    pub keys: Vec<DataKeyId>,
    /// Files under data keys that may be known outside. Default: true.
    pub exposed: bool,
    /// Files without encryption. Default: true.
    pub plaintext: bool,
    /// Files of a suite without authentication, even where the store does not
    /// [require it](crate::Settings::integrity). Default: false.
    pub require_authenticated: bool,
}

impl Default for StalePolicy {
    fn default() -> Self {
        let (key_age_max, require_authenticated) = (None, false);
        Self {
            key_age_max,
            keys: Vec::new(),
            exposed: true,
            plaintext: true,
            require_authenticated,
        }
    }
}

impl StalePolicy {
    /// The default, and files under data keys of at least this age.
    pub fn older_than(age: Duration) -> Self {
        Self { key_age_max: Some(age), ..Self::default() }
    }

    /// Judges files by their headers, for an engine that knows its own files: an object
    /// store's, for one. Keys are as the keyring has them now.
    pub fn judge(&self, keyring: &Keyring) -> StaleJudge {
        StaleJudge(Judge::new(keyring, self))
    }
}

/// A [`StalePolicy`] and a keyring's data keys at one moment.
pub struct StaleJudge(Judge);

impl StaleJudge {
    /// Why a file with this header is stale, and when its data key was created, in
    /// nanoseconds since the Unix epoch; `None` if it is not, or cannot be rewritten since
    /// it is another store's or its key is unknown or destroyed. The header is not
    /// authenticated here: rewriting the file does that.
    pub fn header(&self, header: &Header) -> Option<(StaleReason, u64)> {
        if header.store_id != self.0.store_id {
            return None;
        }
        let reason = self.0.header(header)?;
        Some((reason, self.0.keys.get(&header.data_key_id)?.created_ns))
    }

    /// Whether plaintext is stale.
    pub fn plaintext(&self) -> bool {
        self.0.policy.plaintext
    }
}

impl fmt::Debug for StaleJudge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaleJudge").field("policy", &self.0.policy).finish_non_exhaustive()
    }
}

/// Why a file is stale: the first that applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum StaleReason {
    /// It is not encrypted.
    Plaintext,
    /// Its data key may be known outside.
    ExposedKey,
    /// Its suite does not authenticate, and an authenticated one is required.
    WeakSuite,
    /// Its data key is old, or was named.
    OldKey,
}

/// One file to rewrite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct StaleFile {
    /// Where it is.
    pub path: Box<Path>,
    /// Bytes on disk.
    pub bytes: u64,
    /// Why.
    pub reason: StaleReason,
    /// Its data key; `None` for plaintext.
    pub data_key_id: Option<DataKeyId>,
    /// Creation of its data key, nanoseconds since the Unix epoch; 0 for plaintext.
    pub key_created_ns: u64,
    /// Its own creation, if it is encrypted.
    pub created_ns: u64,
}

/// Stale files, those under the oldest key first; plaintext before all.
#[derive(Debug)]
pub struct StaleFiles(std::vec::IntoIter<StaleFile>);

impl Iterator for StaleFiles {
    type Item = StaleFile;

    fn next(&mut self) -> Option<StaleFile> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for StaleFiles {}

impl StaleFiles {
    /// The files that are left, as a slice.
    pub fn as_slice(&self) -> &[StaleFile] {
        self.0.as_slice()
    }
}

impl Renewal<'_> {
    /// The files that a compaction should prefer, oldest first: an engine picks from the
    /// front those it can rewrite. Reads the header of every file.
    ///
    /// # Errors
    /// As [`scan_usage`](Self::scan_usage).
    pub fn stale_files(&self, policy: &StalePolicy, on_scan: OnScan<'_>) -> Result<StaleFiles> {
        let judge = Judge::new(self.0.keyring(), policy);
        let new = || Collect { judge: &judge, files: Vec::new() };
        let (found, _) = self.scan_all(on_scan, new)?;
        let mut files: Vec<_> = found.into_iter().flat_map(|part| part.files).collect();
        files.sort_unstable_by(oldest_first);
        Ok(StaleFiles(files.into_iter()))
    }
}

pub(super) fn oldest_first(a: &StaleFile, b: &StaleFile) -> Ordering {
    let key = |file: &StaleFile| (file.key_created_ns, file.created_ns);
    key(a).cmp(&key(b)).then_with(|| a.path.cmp(&b.path))
}

/// A policy with all it needs to know of the keyring.
pub(super) struct Judge {
    store_id: crate::ids::StoreId,
    policy: StalePolicy,
    integrity: IntegrityPolicy,
    plaintext_allowed: bool,
    now_ns: u64,
    keys: HashMap<DataKeyId, DataKeyStatus>,
    keyspaces: HashMap<String, KeyspaceId>,
}

impl Judge {
    pub(super) fn new(keyring: &Keyring, policy: &StalePolicy) -> Self {
        let keys = keyring.status().data_keys;
        let keyspaces = keyring.keyspaces().list();
        let integrity = if policy.require_authenticated {
            Integrity::Authenticated.into()
        } else {
            keyring.settings().integrity
        };
        Self {
            keyspaces: keyspaces.into_iter().map(|space| (space.name, space.id)).collect(),
            store_id: keyring.store_id(),
            integrity,
            plaintext_allowed: keyring.settings().plaintext == PlaintextPolicy::Allow,
            policy: policy.clone(),
            now_ns: keyring.now_ns(),
            keys: keys.into_iter().map(|key| (key.id, key)).collect(),
        }
    }

    pub(super) fn judge(&self, what: &Contents) -> Option<StaleReason> {
        match what {
            Contents::Unwritten if !self.plaintext_allowed => None,
            Contents::Plaintext | Contents::Unwritten => {
                self.policy.plaintext.then_some(StaleReason::Plaintext)
            }
            Contents::Encrypted(header) if header.store_id == self.store_id => self.header(header),
            // A key that cannot read a file cannot rewrite it.
            _ => None,
        }
    }

    fn header(&self, header: &Header) -> Option<StaleReason> {
        let key = self.keys.get(&header.data_key_id)?;
        let replaced = key.state != KeyState::Active;
        let age_ns = u128::from(self.now_ns.saturating_sub(key.created_ns));
        let old = self.policy.key_age_max.is_some_and(|max| age_ns >= max.as_nanos());
        let named = self.policy.keys.contains(&key.id);
        if key.state == KeyState::Destroyed {
            None
        } else if replaced && self.policy.exposed && key.exposed {
            Some(StaleReason::ExposedKey)
        } else if self.promised(header.kind) == Integrity::Authenticated
            && !header.suite.is_authenticated()
        {
            Some(StaleReason::WeakSuite)
        } else {
            (replaced && (old || named)).then_some(StaleReason::OldKey)
        }
    }

    /// The file, if it is stale.
    pub(super) fn stale(
        &self,
        path: impl FnOnce() -> Box<Path>,
        stat: &FileStat,
        what: &Contents,
    ) -> Option<StaleFile> {
        Some(self.describe(path(), self.judge(what)?, stat, what))
    }

    /// The file, if it is encrypted and can be read.
    pub(super) fn any(
        &self,
        path: impl FnOnce() -> Box<Path>,
        stat: &FileStat,
        what: &Contents,
    ) -> Option<StaleFile> {
        let Contents::Encrypted(header) = what else { return None };
        let readable = header.store_id == self.store_id
            && self.keys.get(&header.data_key_id)?.state != KeyState::Destroyed;
        readable.then(|| self.describe(path(), StaleReason::OldKey, stat, what))
    }

    fn describe(
        &self,
        path: Box<Path>,
        reason: StaleReason,
        stat: &FileStat,
        what: &Contents,
    ) -> StaleFile {
        let (data_key_id, key_created_ns, created_ns) = match what {
            Contents::Encrypted(header) => {
                let id = header.data_key_id;
                (Some(id), self.keys.get(&id).map_or(0, |key| key.created_ns), header.created_ns)
            }
            _ => (None, 0, 0),
        };
        StaleFile { path, bytes: stat.len, reason, data_key_id, key_created_ns, created_ns }
    }

    /// What the policy asks for, and never less than the store does.
    pub(super) fn promised(&self, kind: FileKind) -> Integrity {
        self.integrity.of(kind)
    }

    pub(super) fn keyspace_of(&self, id: DataKeyId) -> Option<KeyspaceId> {
        self.keyspaces.get(&self.keys.get(&id)?.keyspace).copied()
    }
}

struct Collect<'a> {
    judge: &'a Judge,
    files: Vec<StaleFile>,
}

impl Visitor for Collect<'_> {
    fn file(&mut self, found: &Found<'_>) {
        if is_temporary(found.name) {
            return;
        }
        let path = || found.path().into_boxed_path();
        self.files.extend(self.judge.stale(path, &found.stat, &found.what));
    }

    // Only the backup reads it, and the name that the engine gave it is met as well.
    fn staged(&mut self, _found: &Found<'_>) {}

    // Rewriting what it leads to would leave the link behind.
    fn link(&mut self, _path: &Path) {}
}
