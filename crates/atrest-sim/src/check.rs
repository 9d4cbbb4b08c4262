//! What has to be true of any disk that a crash may leave.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use atrest::backup::{Chain, DirectoryTarget, RestoreSpec};
use atrest::keyring::{DirectoryStorage, KeyringInfo};
use atrest::store::{CommitHook, Reencrypt, StalePolicy};
use atrest::{ErrorKind, FileKind, FileSpec, Store, Suite};
use atrest_testkit::MemFs;
use std::ops::ControlFlow;

use crate::Problem;
use crate::model::Model;
use crate::site::{BACKUP, DIR, MIRROR, Site, in_dir, not_found, told};

/// What of a keyring is to be the old or the new, and nothing between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    generation: u64,
    slots: Vec<(String, String)>,
    keys: Vec<String>,
    keyspaces: Vec<String>,
    holds: Vec<String>,
    days: u64,
}

impl Summary {
    /// That of an open store.
    pub(crate) fn of(store: &Store) -> Self {
        let status = store.keyring().status();
        Self {
            generation: status.info.generation,
            slots: status.info.slots.into_iter().map(|slot| (slot.name, slot.key_uri)).collect(),
            keys: status
                .data_keys
                .iter()
                .map(|key| format!("{} {:?}", key.id, key.state))
                .collect(),
            keyspaces: store.keyspaces().list().into_iter().map(|space| space.name).collect(),
            holds: store.holds().list().into_iter().map(|hold| hold.name).collect(),
            days: status.settings.rotation_period.as_secs() / 86_400,
        }
    }
}

/// Opens the store that a crash left, and compares all of it.
pub(crate) fn image(
    fs: &MemFs,
    site: &Site,
    model: &Model,
    summaries: &[Summary],
    deep: bool,
) -> Result<(), Problem> {
    let mirrored = generation_at(fs, MIRROR);
    let stored = generation_at(fs, DIR);
    if let (Some(mirrored), Some(stored)) = (mirrored, stored)
        && site.setup.mirror
        && (mirrored > stored || mirrored + 1 < stored)
    {
        return Err(format!("the mirror is at generation {mirrored}, the store at {stored}"));
    }
    let store = match site.open(fs) {
        Ok(store) if model.revoked.contains(&false) => store,
        Ok(_) => return Err("a revoked store opens".into()),
        Err(error) if error.kind() == ErrorKind::CmekRevoked && model.revoked.contains(&true) => {
            site.open_and_restore(fs).map_err(|error| format!("restoring: {}", told(&error)))?
        }
        Err(error) if error.kind() == ErrorKind::KeyringMissing && !model.is_created => {
            let place = site.place(fs);
            let again = Store::open_or_create(place, site.kms[0].clone(), site.options());
            return again.map(drop).map_err(|error| format!("created again: {}", told(&error)));
        }
        Err(error) => return Err(format!("the store does not open: {}", told(&error))),
    };
    if !summaries.is_empty() {
        let found = Summary::of(&store);
        if !summaries.contains(&found) {
            return Err(format!(
                "neither the old keyring nor the new: {found:?}, of {summaries:?}"
            ));
        }
    }
    content(&store, model)?;
    if deep {
        serves(&store, model).map_err(|problem| format!("when it goes on: {problem}"))?;
        drop(store);
        let again = site.open(fs).map_err(|error| format!("opened again: {}", told(&error)))?;
        content(&again, model).map_err(|problem| format!("opened again: {problem}"))?;
        drop(again);
        backups(fs, site, model)?;
    }
    Ok(())
}

fn generation_at(fs: &MemFs, dir: &str) -> Option<u64> {
    let storage = DirectoryStorage::with_vfs(dir, Arc::new(fs.clone()));
    KeyringInfo::read(&storage).ok().map(|info| info.generation)
}

/// All files and records are what they have to be.
pub(crate) fn content(store: &Store, model: &Model) -> Result<(), Problem> {
    files(store, model)?;
    let records = crate::lsm::read_all(store).map_err(|e| format!("the engine: {}", told(&e)))?;
    for (key, choice) in &model.records {
        let found = records.get(key).cloned();
        if !choice.contains(&found) {
            return Err(format!("record {key} is {found:?}, not one of {choice:?}"));
        }
    }
    match records.keys().find(|key| !model.records.contains_key(key)) {
        Some(key) => Err(format!("nobody put record {key}")),
        None => Ok(()),
    }
}

fn files(store: &Store, model: &Model) -> Result<(), Problem> {
    let nothing = vec![None];
    let names: BTreeSet<_> = model.files.keys().chain(&model.lost).collect();
    for name in names.into_iter().filter(|name| !model.loose.contains(*name)) {
        let choice = model.files.get(name).unwrap_or(&nothing);
        if is_lost(store, model, name) {
            continue;
        }
        let found = read_any(store, name)?;
        let allowed = match &found {
            None => choice.contains(&None),
            Some(found) => choice.iter().flatten().any(|content| content.allows(found)),
        };
        if !allowed {
            let lens: Vec<_> = choice
                .iter()
                .map(|way| way.as_ref().map(|way| (way.suite, way.bytes.len(), way.tail.len())))
                .collect();
            let found = found.map(|found| found.len());
            return Err(format!("{name} has {found:?} bytes of {lens:?}, or others"));
        }
    }
    Ok(())
}

/// Whether a file may be lost, and is.
pub(crate) fn is_lost(store: &Store, model: &Model, name: &str) -> bool {
    let is_destroyed = |error: atrest::Error| error.kind() == ErrorKind::KeyDestroyed;
    model.lost.contains(name) && store.files().open(in_dir(name)).is_err_and(is_destroyed)
}

/// The whole content of a file; `None` if there is none.
pub(crate) fn read_any(store: &Store, name: &str) -> Result<Option<Vec<u8>>, Problem> {
    let fail = |error: atrest::Error| format!("{name} cannot be read: {}", told(&error));
    let reader = match store.files().open(in_dir(name)) {
        Ok(reader) => reader,
        Err(error) if error.kind() == not_found() => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    let mut bytes = vec![0; usize::try_from(reader.len().map_err(fail)?).unwrap_or(0)];
    reader.read_exact_at(&mut bytes, 0).map_err(fail)?;
    Ok(Some(bytes))
}

/// There is no engine of its own in the way.
pub(crate) struct Alone;

impl CommitHook for Alone {
    fn commit(
        &self,
        _: &std::path::Path,
        _: &std::path::Path,
        replace: &mut dyn FnMut() -> atrest::Result<()>,
    ) -> atrest::Result<()> {
        replace()
    }
}

/// How all files come under the newest key.
pub(crate) fn reencryption() -> Reencrypt<'static> {
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    how.threads = 1;
    how.commit = Some(&Alone);
    how
}

/// The store takes files and changes of keys.
fn serves(store: &Store, model: &Model) -> Result<(), Problem> {
    let work = || -> atrest::Result<()> {
        store.keys().rotate()?;
        let spec = FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks);
        let mut writer = store.files().reuse_for_write(in_dir("another"), spec)?;
        writer.append(b"another")?;
        writer.finish()?;
        for name in &model.loose {
            match store.files().remove(in_dir(name)) {
                Err(error) if error.kind() != not_found() => return Err(error),
                _ => {}
            }
        }
        store.files().sync_dir(DIR)?;
        store.renewal().reencrypt(&reencryption())?;
        store.renewal().retire(None, Duration::ZERO, &|_| {})?;
        store.renewal().retire(None, Duration::ZERO, &|_| {}).map(drop)
    };
    work().map_err(|error| told(&error))?;
    content(store, model)
}

/// Every acknowledged backup is there, and the last one restores.
pub(crate) fn backups(fs: &MemFs, site: &Site, model: &Model) -> Result<(), Problem> {
    let Some((number, last)) = model.backups.last_key_value() else { return Ok(()) };
    let fail = |error: atrest::Error| format!("the backup: {}", told(&error));
    let vfs: Arc<MemFs> = Arc::new(fs.clone());
    let target = DirectoryTarget::with_vfs(BACKUP, vfs.clone());
    let chain = Chain::open_read_only(target, site.all_kms()).map_err(fail)?;
    let count = chain.list().map_err(fail)?.len();
    if (count as u64) < *number {
        return Err(format!("there are {count} backups of {number}"));
    }
    let mut spec = RestoreSpec::new("/restored", site.kms[0].clone());
    spec.number = Some(*number);
    spec.options = site.options();
    spec.vfs = vfs.clone();
    match chain.restore(&spec, &|_| ControlFlow::Continue(())) {
        // It was done already.
        Err(error) if error.kind() == ErrorKind::KeyringExists => {}
        other => drop(other.map_err(fail)?),
    }
    let storage = DirectoryStorage::with_vfs("/restored", vfs.clone());
    let place = atrest::store::StorePlace::new(storage, vfs);
    let restored = Store::open(place, site.all_kms(), site.options()).map_err(fail)?;
    for (name, choice) in last {
        let path = std::path::Path::new("/restored").join(name);
        let found = match restored.files().open(&path) {
            Ok(reader) => {
                let mut bytes = vec![0; usize::try_from(reader.len().map_err(fail)?).unwrap_or(0)];
                reader.read_exact_at(&mut bytes, 0).map_err(fail)?;
                Some(bytes)
            }
            Err(error) if error.kind() == not_found() => None,
            Err(error) => return Err(fail(error)),
        };
        let allowed = match &found {
            None => choice.contains(&None),
            Some(found) => choice.iter().flatten().any(|content| content.allows(found)),
        };
        if !allowed {
            return Err(format!("{name} of the backup is not what it was"));
        }
    }
    Ok(())
}
