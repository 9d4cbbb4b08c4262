//! One machine: its disk, the process that has the store open, and what has to be true.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use atrest::{Error, ErrorKind, Store, Writer};
use atrest_testkit::MemFs;

use crate::check::{self, Summary};
use crate::lsm::Lsm;
use crate::model::{MARKER, Model};
use crate::rng::Rng;
use crate::site::{BACKUP, DIR, MIRROR, Site, in_dir, not_found, told};
use crate::steps::{Item, Service, Setup};
use crate::{Figures, Problem};

/// Outcomes of one crash that are looked at, at most.
const OUTCOMES_MAX: usize = 8;

/// The machine.
pub(crate) struct World {
    pub(crate) site: Site,
    pub(crate) fs: MemFs,
    pub(crate) store: Option<Store>,
    /// Another process, which reads.
    pub(crate) beside: Option<Store>,
    pub(crate) lsm: Option<Lsm>,
    /// A log that is being written: its name and its writer.
    pub(crate) log: Option<(String, Writer)>,
    pub(crate) model: Model,
    /// What the step under way may lead to.
    pub(crate) intended: Model,
    /// Files that it has not acknowledged yet, or never will.
    pub(crate) passing: BTreeSet<String>,
    /// The step under way is one commit: nothing between the old keyring and the new one.
    pub(crate) is_one_commit: bool,
    pub(crate) rng: Rng,
    /// For names that were never used.
    pub(crate) names: u64,
    pub(crate) figures: Figures,
    /// Disks after crashes that are opened after one step, at most.
    looks: usize,
    /// Something failed since the store was opened.
    is_dirty: bool,
}

impl World {
    /// An empty disk.
    pub(crate) fn new(seed: u64, setup: Setup, looks: usize) -> Self {
        let fs = MemFs::new(DIR);
        fs.put_dir(Path::new(MIRROR));
        fs.put_dir(Path::new(BACKUP));
        if setup.exchange {
            fs.with_exchange();
        }
        if !setup.links {
            fs.without_links();
        }
        fs.keep_points();
        Self {
            site: Site::new(setup),
            fs,
            store: None,
            beside: None,
            lsm: None,
            log: None,
            model: Model::new(),
            intended: Model::new(),
            passing: BTreeSet::new(),
            is_one_commit: false,
            rng: Rng::new(seed, 2),
            names: 0,
            figures: Figures::default(),
            looks,
            is_dirty: false,
        }
    }

    /// One step with all that goes wrong in it, and a look at every crash.
    pub(crate) fn live(&mut self, seed: u64, item: &Item) -> Result<(), Problem> {
        self.rng = Rng::new(seed, 100 + item.number as u64);
        self.intended = self.model.clone();
        self.passing.clear();
        self.is_one_commit = false;
        let before = self.store.as_ref().map(Summary::of);
        let open_before = self.store.is_some();
        self.site.serve(item.service);
        if let Some(fault) = &item.fault {
            self.fs.arm(fault.clone());
        }
        if let Some(at) = item.kill {
            self.fs.stop_at(self.fs.next_op() + at);
        }
        let outcome = self.perform(item.step);
        let is_killed = item.kill.is_some() && self.fs.is_stopped();
        if is_killed {
            // What it would do when it ends it does not.
            self.forget_process();
        }
        self.fs.revive();
        let struck = self.fs.disarm() || is_killed;
        self.figures.kills += u64::from(is_killed);
        self.site.serve(Service::Good);
        self.figures.steps += 1;
        self.figures.faults += u64::from(struck);
        if let Err(error) = &outcome {
            self.figures.errors += 1;
            // A handle that failed may say so later.
            let spoilt = [ErrorKind::Poisoned, ErrorKind::CmekRevoked].contains(&error.kind());
            let excused = struck || item.service != Service::Good || (self.is_dirty && spoilt);
            if !excused {
                return Err(format!("{:?} failed on a good disk: {}", item.step, told(error)));
            }
        }
        let mut either = self.model.or(&self.intended);
        either.loose.append(&mut self.passing);
        let mut after = if outcome.is_ok() { self.intended.clone() } else { either.clone() };
        // Whatever failed, there is a store by now.
        after.is_created |= self.store.is_some();
        let strict = self.is_one_commit && open_before && !self.is_dirty && !struck;
        let summaries = match (before, self.store.as_ref().map(Summary::of)) {
            (Some(before), Some(after)) if strict && outcome.is_ok() => vec![before, after],
            _ => Vec::new(),
        };
        let image = self.look(&either, &after, &summaries)?;
        let is_over = image.as_ref().is_none_or(|(_, is_now)| *is_now);
        self.model = if item.crash && !is_over { either } else { after };
        self.is_dirty |= struck || outcome.is_err();
        // What ends in this way is for the next process.
        let is_over = [ErrorKind::Poisoned, ErrorKind::CmekRevoked];
        let is_over = outcome.as_ref().is_err_and(|error| is_over.contains(&error.kind()));
        if item.crash {
            if let Some((image, _)) = image {
                self.figures.crashes += 1;
                return self.go_on_from(image);
            }
        } else if is_killed || outcome.is_err() && (is_over || self.rng.once_in(2)) {
            self.restart()?;
        }
        Ok(())
    }

    /// Looks at all that crashes may have left, and returns one of it.
    fn look(
        &mut self,
        either: &Model,
        after: &Model,
        summaries: &[Summary],
    ) -> Result<Option<(MemFs, bool)>, Problem> {
        let rng = &mut self.rng;
        let images = self.fs.crash_images(OUTCOMES_MAX, &mut |end| rng.below(end));
        let chosen = images.get(self.rng.below(images.len() as u64) as usize);
        let kept = chosen.map(|image| (image.fs.fork(), image.is_now));
        let mut looked: Vec<_> = images.into_iter().enumerate().collect();
        while looked.len() > self.looks {
            looked.swap_remove(self.rng.below(looked.len() as u64) as usize);
        }
        for (at, image) in looked {
            let (fs, is_over) = (image.fs, image.is_now);
            self.figures.images += 1;
            let model = if is_over { after } else { either };
            let deep = self.rng.once_in(40);
            let summaries = if is_over { &summaries[summaries.len().min(1)..] } else { summaries };
            check::image(&fs, &self.site, model, summaries, deep).map_err(|problem| {
                format!(
                    "after a crash ({at}, {}): {problem}",
                    if is_over { "at the end" } else { "meanwhile" }
                )
            })?;
        }
        Ok(kept)
    }

    /// The process ends and begins again; nothing is lost.
    pub(crate) fn restart(&mut self) -> Result<(), Problem> {
        self.forget_process();
        let before = self.model.clone();
        self.reopen().map_err(|error| format!("the next process: {}", told(&error)))?;
        // What ended and began anew is no step of its own.
        let (after, rng) = (self.model.clone(), &mut self.rng);
        let images = self.fs.crash_images(2, &mut |end| rng.below(end));
        for image in images.into_iter().take(self.looks) {
            self.figures.images += 1;
            let model = if image.is_now { &after } else { &before };
            check::image(&image.fs, &self.site, model, &[], false)
                .map_err(|problem| format!("after a crash of the next process: {problem}"))?;
        }
        Ok(())
    }

    pub(crate) fn forget_process(&mut self) {
        self.log = None;
        self.lsm = None;
        self.store = None;
    }

    pub(crate) fn reopen(&mut self) -> Result<(), Error> {
        self.is_dirty = false;
        if self.store.is_some() {
            return Ok(());
        }
        match self.site.open(&self.fs) {
            Ok(store) => self.store = Some(store),
            Err(error)
                if error.kind() == ErrorKind::CmekRevoked && self.model.revoked.contains(&true) => {
            }
            Err(error) if error.kind() == ErrorKind::KeyringMissing && !self.model.is_created => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        // Whether the step that was to create it came to that is known now.
        self.model.is_created = true;
        Ok(())
    }

    /// The machine crashed and this is left.
    fn go_on_from(&mut self, image: MemFs) -> Result<(), Problem> {
        self.forget_process();
        self.beside = None;
        self.fs = image;
        self.fs.keep_points();
        let loose = self.model.loose.clone();
        self.adopt()?;
        // A crash of the next process, when it cleans up.
        let mut either = self.model.clone();
        either.loose.extend(loose);
        let after = self.model.clone();
        self.look(&either, &after, &[]).map(drop)
    }

    /// Learns which of what may be there is there.
    fn adopt(&mut self) -> Result<(), Problem> {
        let opened = self.reopen();
        opened.map_err(|error| format!("after the crash: {}", told(&error)))?;
        let Some(store) = self.store.clone() else {
            self.model.is_created = self.fs.read(&in_dir("KEYRING")).is_some();
            self.model.revoked = BTreeSet::from([self.model.is_created]);
            return Ok(());
        };
        self.model.is_created = true;
        self.model.revoked = BTreeSet::from([false]);
        let mut files = BTreeMap::new();
        let lost = self.model.lost.clone().into_iter();
        let lost = lost.filter(|name| check::is_lost(&store, &self.model, name)).collect();
        self.model.lost = lost;
        self.model.files.retain(|name, _| !self.model.lost.contains(name));
        // What was never acknowledged is nobody's.
        self.model.files.retain(|name, _| !self.model.loose.contains(name));
        for (name, choice) in &self.model.files {
            let found = check::read_any(&store, name)?;
            let fits = choice
                .iter()
                .flatten()
                .find(|content| found.as_ref().is_some_and(|found| content.allows(found)));
            if let (Some(mut content), Some(found)) = (fits.cloned(), found) {
                if !content.is_finished {
                    (content.bytes, content.tail) = (found, Vec::new());
                }
                files.insert(name.clone(), vec![Some(content)]);
            }
        }
        self.model.files = files;
        let records = crate::lsm::read_all(&store).map_err(|e| told(&e))?;
        self.model.records =
            records.into_iter().map(|(key, value)| (key, vec![Some(value)])).collect();
        self.clean().map_err(|e| told(&e))
    }

    /// Removes files that were never acknowledged, as an engine does.
    pub(crate) fn clean(&mut self) -> Result<(), Error> {
        let Some(store) = self.store.clone() else { return Ok(()) };
        for name in self.model.loose.clone() {
            match store.files().remove(in_dir(&name)) {
                Err(error) if error.kind() != not_found() => return Err(error),
                _ => {}
            }
        }
        store.files().sync_dir(DIR)?;
        // The engine removes its own when it opens.
        if self.lsm.is_none() && self.fs.files().keys().any(|name| name.starts_with("lsm-")) {
            self.lsm = Some(Lsm::open(&store)?);
        }
        self.model.loose.clear();
        self.intended.loose.clear();
        Ok(())
    }

    /// The end of a history.
    pub(crate) fn end(&mut self) -> Result<(), Problem> {
        if self.fs.contains(MARKER) {
            return Err("plaintext stands on the disk".into());
        }
        self.restart()?;
        let images = self.fs.crash_images(2, &mut |_| 0);
        for image in images.into_iter().take(self.looks) {
            self.figures.images += 1;
            check::image(&image.fs, &self.site, &self.model, &[], true)?;
        }
        if self.fs.contains(MARKER) {
            return Err("plaintext stands on the disk".into());
        }
        Ok(())
    }

    /// Days pass.
    pub(crate) fn advance(&self, days: u8) {
        self.site.clock.advance(Duration::from_secs(86_400) * u32::from(days));
    }
}
