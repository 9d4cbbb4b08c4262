//! Carrying out steps.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use atrest::backup::{Chain, DirectoryTarget};
use atrest::keyring::ImagePlace;
use atrest::{Error, ErrorKind, FileKind, FileSpec, Result, Store, Suite};

use atrest_testkit::MemFs;

use crate::check;
use crate::lsm::Lsm;
use crate::model::{Content, MARKER};
use crate::site::{BACKUP, DIR, in_dir, not_found};
use crate::steps::Step;
use crate::world::World;

const SUITES: [Suite; 3] = [Suite::Aes256Ctr, Suite::Aes256GcmChunks, Suite::Aes256GcmLog];

impl World {
    /// Does it, and says beforehand in `intended` what is true afterwards.
    pub(crate) fn perform(&mut self, step: Step) -> Result<()> {
        if self.store.is_none() {
            self.come_in()?;
        }
        let Some(store) = self.store.clone() else { return Ok(()) };
        match step {
            Step::Restore => self.restore(&store),
            _ if self.model.revoked.contains(&true) => self.restore(&store),
            Step::Revoke => {
                self.intended.revoked = BTreeSet::from([true]);
                store.access().revoke()
            }
            Step::Write { .. } | Step::Replace { .. } | Step::Remove { .. } | Step::Link { .. } => {
                self.write_step(&store, step)
            }
            Step::LogStart { .. } | Step::LogAppend { .. } => self.log_step(&store, step),
            Step::Read { at } => self.read_beside(at),
            Step::Put { .. } | Step::Flush | Step::Compact => self.lsm_step(&store, step),
            Step::Advance { days } => {
                self.advance(days);
                store.keyring().maintain()
            }
            Step::Reopen => {
                self.forget_process();
                store.close()?;
                self.come_in()
            }
            Step::Reencrypt { .. } | Step::Retire | Step::Verify => self.renew(&store, step),
            Step::BackUp | Step::RestoreBackup | Step::Recover { .. } => self.rescue(store, step),
            Step::Second => self.second(),
            _ => self.keys_step(&store, step),
        }
    }

    fn come_in(&mut self) -> Result<()> {
        if self.model.is_created && self.model.revoked.contains(&true) {
            self.intended.revoked = BTreeSet::from([false]);
            self.store = Some(self.site.open_and_restore(&self.fs)?);
            return Ok(());
        }
        self.intended.is_created = true;
        let store = if self.model.is_created {
            self.site.open(&self.fs)?
        } else {
            let place = self.site.place(&self.fs);
            Store::open_or_create(place, self.site.kms[0].clone(), self.site.options())?
        };
        self.store = Some(store);
        Ok(())
    }

    fn restore(&mut self, store: &Store) -> Result<()> {
        self.intended.revoked = BTreeSet::from([false]);
        store.access().restore()
    }

    fn plaintext(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = MARKER.to_vec();
        bytes.resize_with(len.max(MARKER.len()), || self.rng.below(256) as u8);
        bytes
    }

    fn new_name(&mut self) -> String {
        self.names += 1;
        format!("f{}", self.names)
    }

    /// One of the files that are there for sure.
    fn some_file(&self, at: u8) -> Option<String> {
        let mut sure = self.model.sure();
        let log = self.log.as_ref().map(|(name, _)| name.clone());
        sure.retain(|name| Some(name) != log.as_ref());
        if sure.is_empty() { None } else { Some(sure.swap_remove(usize::from(at) % sure.len())) }
    }

    /// Writes a whole file in pieces, durable but for its name.
    fn write_file(
        &mut self,
        store: &Store,
        name: &str,
        spec: FileSpec,
        bytes: &[u8],
    ) -> Result<()> {
        let mut writer = store.files().create_new(in_dir(name), spec)?;
        let cut = self.rng.below(bytes.len() as u64 + 1) as usize;
        writer.append(&bytes[..cut])?;
        if self.rng.once_in(3) {
            writer.sync()?;
        }
        writer.append(&bytes[cut..])?;
        writer.finish().map(drop)
    }

    fn write_step(&mut self, store: &Store, step: Step) -> Result<()> {
        match step {
            Step::Write { suite, len, keyspace } => {
                let (name, suite) = (self.new_name(), SUITES[usize::from(suite)]);
                let bytes = self.plaintext(len.into());
                if keyspace && self.tenant(store).is_none() {
                    self.new_tenant(store)?;
                }
                let tenant = self.tenant(store).filter(|_| keyspace);
                let mut spec = FileSpec::new(FileKind::Table).suite(suite).chunk_len(4096);
                if let Some((_, id)) = tenant {
                    spec = spec.keyspace(id);
                }
                // Until the directory is synced it is nobody's.
                self.passing.insert(name.clone());
                self.write_file(store, &name, spec, &bytes)?;
                store.files().sync_dir(DIR)?;
                let (tail, is_finished) = (Vec::new(), true);
                let is_tenants = tenant.is_some();
                let content = Content { bytes, tail, suite, is_finished, is_tenants };
                self.intended.files.insert(name, vec![Some(content)]);
            }
            Step::Replace { at, suite, len } => {
                let Some(name) = self.some_file(at) else { return Ok(()) };
                let (new, suite) = (self.new_name(), SUITES[usize::from(suite)]);
                let bytes = self.plaintext(len.into());
                self.passing.insert(new.clone());
                let spec = FileSpec::new(FileKind::Table).suite(suite).chunk_len(4096);
                self.write_file(store, &new, spec, &bytes)?;
                let (tail, is_finished, is_tenants) = (Vec::new(), true, false);
                let content = Content { bytes, tail, suite, is_finished, is_tenants };
                self.intended.files.insert(name.clone(), vec![Some(content)]);
                store.files().rename(in_dir(&new), in_dir(&name))?;
                store.files().sync_dir(DIR)?;
            }
            Step::Remove { at } => {
                let Some(name) = self.some_file(at) else { return self.clean() };
                self.intended.files.remove(&name);
                store.files().remove(in_dir(&name))?;
                store.files().sync_dir(DIR)?;
            }
            Step::Link { at } if self.site.setup.links => {
                let Some(name) = self.some_file(at) else { return Ok(()) };
                let new = self.new_name();
                let content = self.model.files[&name].clone();
                self.intended.files.insert(new.clone(), content);
                store.files().hard_link(in_dir(&name), in_dir(&new))?;
                store.files().sync_dir(DIR)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn log_step(&mut self, store: &Store, step: Step) -> Result<()> {
        match step {
            Step::LogStart { suite } => {
                self.log = None;
                let suite = SUITES[if suite == 1 { 2 } else { usize::from(suite) }];
                let name = self.new_name();
                self.passing.insert(name.clone());
                let spec = FileSpec::new(FileKind::Log).suite(suite);
                let mut writer = store.files().create_new(in_dir(&name), spec)?;
                writer.sync()?;
                store.files().sync_dir(DIR)?;
                let (bytes, tail) = Default::default();
                let (is_finished, is_tenants) = (false, false);
                let content = Content { bytes, tail, suite, is_finished, is_tenants };
                self.intended.files.insert(name.clone(), vec![Some(content)]);
                self.log = Some((name, writer));
            }
            Step::LogAppend { len, sync } => {
                let bytes = self.plaintext(len.into());
                // A writer that failed takes no more.
                let Some((name, mut writer)) = self.log.take() else { return Ok(()) };
                for content in self.intended.files.get_mut(&name).into_iter().flatten().flatten() {
                    content.tail.extend_from_slice(&bytes);
                }
                if let Some(choice) = self.model.files.get_mut(&name) {
                    choice.clone_from(&self.intended.files[&name]);
                }
                writer.append(&bytes)?;
                if sync {
                    writer.sync()?;
                    for content in
                        self.intended.files.get_mut(&name).into_iter().flatten().flatten()
                    {
                        let tail = std::mem::take(&mut content.tail);
                        content.bytes.extend(tail);
                    }
                }
                self.log = Some((name, writer));
            }
            _ => {}
        }
        Ok(())
    }

    /// A process that only reads, opened before or now, sees what is there.
    fn read_beside(&mut self, at: u8) -> Result<()> {
        if self.beside.is_none() {
            let place = self.site.place(&self.fs);
            let opened = Store::open_read_only(place, self.site.all_kms(), self.site.options())?;
            self.beside = Some(opened);
        }
        let (Some(store), Some(name)) = (self.beside.clone(), self.some_file(at)) else {
            return Ok(());
        };
        let reader = match store.files().open(in_dir(&name)) {
            // It was opened before the keys were withdrawn and given back.
            Err(error) if error.kind() == ErrorKind::CmekRevoked => {
                self.beside = None;
                return Ok(());
            }
            other => other?,
        };
        let mut bytes = vec![0; usize::try_from(reader.len()?).unwrap_or(0)];
        reader.read_exact_at(&mut bytes, 0)?;
        let choice = &self.model.files[&name];
        if choice.iter().flatten().any(|content| content.allows(&bytes)) {
            return Ok(());
        }
        let garbled = choice.iter().flatten().any(|content| content.suite == Suite::Aes256Ctr);
        assert!(garbled, "{name} reads otherwise beside the writer");
        Ok(())
    }

    fn lsm_step(&mut self, store: &Store, step: Step) -> Result<()> {
        // An engine that met an error opens itself anew.
        let mut lsm = match self.lsm.take() {
            Some(lsm) => lsm,
            None => Lsm::open(store)?,
        };
        match step {
            Step::Put { key } => {
                let value =
                    format!("{}{}", String::from_utf8_lossy(MARKER), self.rng.below(1 << 40));
                self.intended.records.insert(key, vec![Some(value.clone())]);
                lsm.put(key, &value)?;
            }
            Step::Flush => lsm.flush(store)?,
            _ => lsm.compact(store)?,
        }
        self.lsm = Some(lsm);
        Ok(())
    }

    fn tenant(&self, store: &Store) -> Option<(String, atrest::KeyspaceId)> {
        let live = |name: &String| name.starts_with("tenant");
        let list = store.keyspaces().list();
        let name = list
            .into_iter()
            .filter(|space| space.active.is_some())
            .map(|space| space.name)
            .find(live)?;
        let id = store.keyspaces().find(&name)?;
        Some((name, id))
    }

    fn new_tenant(&self, store: &Store) -> Result<()> {
        let count = store.keyspaces().list().len();
        store.keyspaces().create(&format!("tenant{count}")).map(drop)
    }

    fn keys_step(&mut self, store: &Store, step: Step) -> Result<()> {
        let kms = |at: u8| self.site.kms[usize::from(at)].clone();
        let has = |at: u8| {
            let uri = format!("scripted:{at}");
            store.slots().list().iter().any(|slot| slot.key_uri == uri)
        };
        self.is_one_commit = true;
        match step {
            Step::RotateData => store.keys().rotate().map(drop),
            Step::RotateStore => store.keys().rotate_store_key().map(drop),
            Step::AddSlot { kms: at } if !has(at) => {
                // One that was replaced keeps its name.
                let kms = kms(at);
                self.names += 1;
                store.slots().add(&format!("slot{}", self.names), kms)
            }
            Step::RemoveSlot if store.slots().list().len() > 1 => {
                let name = store.slots().list()[0].name.clone();
                store.slots().remove(&name)
            }
            Step::ReplaceSlot { kms: at } if !has(at) => {
                let name = store.slots().list()[0].name.clone();
                store.slots().replace(&name, kms(at))
            }
            Step::Rewrap => {
                self.site.kms.iter().for_each(|kms| kms.rotate());
                store.slots().rewrap(None).map(drop)
            }
            Step::ReplaceAllSlots { kms: at, enable: true } => store.slots().enable_cmek(kms(at)),
            Step::ReplaceAllSlots { kms: at, .. } => store.slots().disable_cmek(kms(at)),
            Step::Configure { days } => {
                let mut settings = store.keyring().settings();
                settings.rotation_period = Duration::from_secs(86_400 * u64::from(days));
                store.keys().configure(&settings)
            }
            Step::Tenant => self.new_tenant(store),
            Step::ShredTenant => {
                // Lets what it can read no longer go.
                let Some((name, _)) = self.tenant(store) else { return self.remove_lost(store) };
                self.is_one_commit = false;
                self.clean()?;
                self.intended.lose_tenants();
                store.keyspaces().danger_shred(&name)?;
                if self.rng.once_in(2) { self.remove_lost(store) } else { Ok(()) }
            }
            Step::Hold => match store.holds().list().first() {
                Some(hold) => store.holds().release(&hold.name),
                None => {
                    let id = store.keys().active_id()?;
                    store.holds().register("hold", &[id])
                }
            },
            _ => Ok(()),
        }
    }

    /// Removes the files that may be lost, whatever they are: others nobody misses. Their names
    /// are kept, for a crash may bring one back.
    fn remove_lost(&mut self, store: &Store) -> Result<()> {
        self.is_one_commit = false;
        for name in &self.model.lost | &self.intended.lost {
            self.intended.files.remove(&name);
            match store.files().remove(in_dir(&name)) {
                Err(error) if error.kind() != not_found() => return Err(error),
                _ => {}
            }
        }
        store.files().sync_dir(DIR)
    }

    fn renew(&mut self, store: &Store, step: Step) -> Result<()> {
        self.clean()?;
        match step {
            Step::Reencrypt { suite } => {
                let mut how = check::reencryption();
                // A change of suite merges the frames of logs, and is no exchange alone.
                how.suite = [None, Some(Suite::Aes256GcmChunks)][usize::from(suite == 1)];
                let is_log = |choice: &crate::model::Choice<Content>| {
                    choice.iter().flatten().any(|content| !content.is_finished)
                };
                let has_engine = self.fs.files().keys().any(|name| name.starts_with("lsm-"));
                if self.model.files.values().any(is_log) || has_engine {
                    how.suite = None;
                }
                if how.suite.is_some() {
                    for content in self.intended.files.values_mut().flatten().flatten() {
                        content.suite = Suite::Aes256GcmChunks;
                    }
                }
                let report = store.renewal().reencrypt(&how)?;
                let mut failed = report.failed.into_iter();
                let bad = failed.find(|(path, error)| !self.is_lost(path, error.kind()));
                bad.map_or(Ok(()), |(_, error)| Err(error))
            }
            Step::Retire => {
                let grace = Duration::from_secs(3600 * self.rng.below(2));
                store.renewal().retire(None, grace, &|_| {})?;
                self.site.clock.advance(Duration::from_secs(3600));
                store.renewal().retire(None, grace, &|_| {}).map(drop)
            }
            _ => {
                let report =
                    atrest::verify::verify(store.files(), DIR, &|_| ControlFlow::Continue(()))?;
                let log = self.log.as_ref().map(|(name, _)| in_dir(name));
                let bad = report.problems.into_iter().find(|problem| {
                    Some(&problem.path) != log.as_ref()
                        && !self.is_lost(&problem.path, problem.kind)
                });
                match bad {
                    Some(problem)
                        if problem.kind == ErrorKind::TruncatedHeader
                            || problem.kind == ErrorKind::EmptyFile =>
                    {
                        Ok(())
                    }
                    Some(problem) => {
                        Err(Error::new(problem.kind, format!("{}", problem.path.display())))
                    }
                    None => Ok(()),
                }
            }
        }
    }

    /// Whether this is what has to be said of a file that is lost.
    fn is_lost(&self, path: &Path, kind: ErrorKind) -> bool {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        kind == ErrorKind::KeyDestroyed && self.model.lost.contains(name)
    }

    fn rescue(&mut self, store: Store, step: Step) -> Result<()> {
        match step {
            // A snapshot is links.
            Step::BackUp if self.site.setup.links => {
                self.clean()?;
                let target = DirectoryTarget::with_vfs(BACKUP, Arc::new(self.fs.clone()));
                let chain = Chain::open_or_create(target, self.site.kms[0].clone())?;
                let report = store.backups().add(&chain, DIR, &|_| ControlFlow::Continue(()))?;
                let mut files = self.model.files.clone();
                files.retain(|name, _| !self.model.lost.contains(name));
                // What a disk that gives other bytes let be copied is less, and it was said.
                for torn in &report.torn {
                    files.retain(|name, _| torn.path.file_name() != Some(name.as_ref()));
                }
                self.intended.backups.insert(report.info.number, files);
                Ok(())
            }
            Step::RestoreBackup => {
                let broken = |what| Error::new(ErrorKind::BrokenBackup, what);
                let fork = self.fs.fork();
                fork.keep_points();
                check::backups(&fork, &self.site, &self.model).map_err(broken)?;
                // A restore that was cut off goes on.
                for image in fork.crash_images(2, &mut |end| self.rng.below(end)) {
                    if self.rng.once_in(8) {
                        self.figures.images += 1;
                        check::backups(&image.fs, &self.site, &self.model).map_err(|what| {
                            broken(format!("a restore that was cut off: {what}"))
                        })?;
                    }
                }
                Ok(())
            }
            Step::Recover { lose } => {
                self.forget_process();
                store.close()?;
                // On another disk, whose keyring is lost or damaged.
                let fork = self.fs.fork();
                let path = in_dir("KEYRING");
                let Some(mut bytes) = fork.read(&path) else { return Ok(()) };
                if lose {
                    fork.delete(&path);
                } else {
                    let at = self.rng.below(bytes.len() as u64) as usize;
                    bytes[at] ^= 1;
                    fork.put(&path, &bytes);
                }
                if !self.site.setup.mirror {
                    return self.come_in();
                }
                fork.keep_points();
                self.recover(&fork)?;
                // One that was cut off is done again, if the store does not open.
                for image in fork.crash_images(4, &mut |end| self.rng.below(end)) {
                    self.figures.images += 1;
                    match self.site.open(&image.fs) {
                        Ok(store) => self.is_whole(&store)?,
                        Err(_) => self.recover(&image.fs)?,
                    }
                }
                self.come_in()
            }
            _ => Ok(()),
        }
    }

    /// Puts the mirror's keyring in the place of the store's.
    fn recover(&self, fs: &MemFs) -> Result<()> {
        let (kms, options) = (self.site.all_kms(), self.site.options());
        let (keyring, _) = self.site.storage(fs).recover(ImagePlace::Mirror, kms, options)?;
        self.is_whole(&Store::over_vfs(keyring, Arc::new(fs.clone()))?)
    }

    fn is_whole(&self, store: &Store) -> Result<()> {
        check::content(store, &self.model).map_err(|what| {
            Error::new(ErrorKind::BrokenBackup, format!("after a recovery: {what}"))
        })
    }

    /// Another process that wants to write is refused.
    fn second(&mut self) -> Result<()> {
        match self.site.open(&self.fs) {
            Err(error) if error.kind() == ErrorKind::KeyringBusy => Ok(()),
            Err(error) => Err(error),
            Ok(_) => panic!("two processes write one store"),
        }
    }
}
