//! The demonstration itself, step by step.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atrest::error::KmsErrorKind;
use atrest::kms::{KeyFile, generate_key_file};
use atrest::{ErrorKind, Keyring, Options};

use super::clock::DemoClock;
use super::engine::{Engine, Mode, Session, Versions};
use super::place::Place;
use super::story::Story;
use super::usage::{Usage, short};
use super::{rate, search};
use crate::failure::{Failure, Result};
use crate::paint::DIM;
use crate::{progress, signal, store, units};

/// Months that pass, each with a new data key.
const MONTHS: u64 = 3;
const DAYS_IN_MONTH: u64 = 30;
/// Time between looks at the engine's files.
const POLL: Duration = Duration::from_millis(50);
/// Rounds of overwriting before the demonstration gives up on the engine's compaction.
const ROUNDS_MAX: u64 = 40;
/// One record in so many is overwritten in a round.
const ROUND_PART: u64 = 12;
/// The engine is at rest when its files stayed the same for so long: several times what
/// passes between its looks at what there is to compact and to remove.
const AT_REST: Duration = Duration::from_millis(1200);
/// Longest wait for that.
const AT_REST_WAIT: Duration = Duration::from_secs(10);
/// The old data keys' bytes have to fall to one in so many.
const SHRINK: u64 = 4;
/// Records that the engine without encryption gets.
const CONTROL_RECORDS: u64 = 1_000;

/// What the steps share.
struct Scene<'a> {
    place: &'a Place,
    engine: &'static dyn Engine,
    clock: Arc<DemoClock>,
    records: u64,
    versions: Versions,
}

pub(super) fn play(
    story: &mut Story<'_>,
    place: &Place,
    engine: &'static dyn Engine,
    records: u64,
) -> Result<()> {
    // Two days more than what passes, so that all ends near today.
    let clock = Arc::new(DemoClock::days_ago(MONTHS * DAYS_IN_MONTH + 2));
    let mut scene = Scene { place, engine, clock, records, versions: Vec::new() };
    let keyring = scene.create(story)?;
    scene.live(story, &keyring)?;
    let before = scene.show_usage(story, &keyring)?;
    scene.churn(story, &keyring, &before)?;
    drop(keyring);
    scene.reopen(story)?;
    scene.search(story)?;
    scene.withdraw(story)?;
    scene.give_back(story)
}

impl Scene<'_> {
    fn options(&self) -> Options {
        let mut options = Options::default();
        options.clock = self.clock.clone();
        // The demonstration calls `maintain` itself, at the moments it shows.
        options.background = false;
        options
    }

    fn open_keyring(&self) -> Result<Keyring> {
        let kms = Arc::new(KeyFile::new(self.place.key_file())?);
        store::open(&self.place.store(), kms, self.options())
    }

    fn open_engine(&self, keyring: &Keyring, mode: Mode) -> Result<Box<dyn Session>> {
        self.engine.open(&self.place.store(), Some(keyring), mode)
    }

    fn create(&self, story: &mut Story<'_>) -> Result<Keyring> {
        story.step("create", "A key and a store")?;
        generate_key_file(self.place.key_file())?;
        let kms = Arc::new(KeyFile::new(self.place.key_file())?);
        let committing = signal::Committing::begin();
        let keyring = store::create(&self.place.store(), kms, self.options())?;
        drop(committing);
        story.check(true, "customer's key made, outside of the store")?;
        let period = units::duration(keyring.settings().rotation_period);
        let id = keyring.keys().active_id()?;
        story
            .check(true, format!("store created; data key {} rotates after {period}", short(id)))?;
        Ok(keyring)
    }

    /// Months of writing, with the engine's compaction off, so that the picture afterwards
    /// is the same on every machine.
    fn live(&mut self, story: &mut Story<'_>, keyring: &Keyring) -> Result<()> {
        let mut db = self.open_engine(keyring, Mode::Loading)?;
        self.load(story, &mut *db)?;
        self.pass_months(story, &mut *db, keyring)?;
        self.settle();
        db.close()
    }

    fn write(
        &mut self,
        db: &mut dyn Session,
        mut numbers: impl Iterator<Item = u64>,
        count: u64,
        json: bool,
    ) -> Result<u64> {
        let bar = progress::records("   writing", count, json);
        let bytes = db.write(&mut self.versions, &mut numbers, &|n| bar.inc(n))?;
        db.flush()?;
        bar.finish_and_clear();
        Ok(bytes)
    }

    fn load(&mut self, story: &mut Story<'_>, db: &mut dyn Session) -> Result<()> {
        let records = self.records;
        let title = format!("Load {} users and orders, and flush", units::count(records));
        story.step("load", &title)?;
        let bytes = self.write(db, scattered(records, records), records, story.is_json())?;
        let seconds = story.step_seconds();
        let (size, rate) = (units::bytes(bytes), rate(bytes, seconds));
        let what = format!("{} records, {size} in {seconds:.1} s, {rate}", units::count(records));
        story.number("records", records);
        story.number("plaintext_bytes", bytes);
        story.check(self.versions.len() as u64 == records, what)
    }

    fn pass_months(
        &mut self,
        story: &mut Story<'_>,
        db: &mut dyn Session,
        keyring: &Keyring,
    ) -> Result<()> {
        story.step("rotate", "Months pass, and the data key rotates by its age")?;
        for month in 1..=MONTHS {
            let old = keyring.keys().active_id()?;
            self.clock.pass_days(DAYS_IN_MONTH - 1);
            keyring.maintain()?;
            let stayed = keyring.keys().active_id()? == old;
            self.clock.pass_days(1);
            keyring.maintain()?;
            let new = keyring.keys().active_id()?;
            let what = format!(
                "month {month}: {} at 29 days, then {} -> {}",
                if stayed { "kept" } else { "not kept" },
                short(old),
                short(new)
            );
            story.check(stayed && new != old, what)?;
            // A tenth of the records changes, a twentieth is new.
            let known = self.versions.len() as u64;
            let changed: Vec<_> = scattered(known, self.records / 10).collect();
            let new = known..known + self.records / 20;
            let count = changed.len() as u64 + self.records / 20;
            self.write(db, changed.into_iter().chain(new), count, story.is_json())?;
        }
        let keys = keyring.status().data_keys.len() as u64;
        story.number("data_keys", keys);
        story.number("records", self.versions.len());
        story.check(keys == MONTHS + 1, format!("{keys} data keys, all from age alone"))
    }

    /// Waits until the engine removed the logs of what stands in tables.
    fn settle(&self) {
        let dir = self.place.store();
        let deadline = Instant::now() + AT_REST_WAIT;
        let (mut seen, mut since) = (self.engine.logs(&dir), Instant::now());
        while since.elapsed() < AT_REST && Instant::now() < deadline {
            std::thread::sleep(POLL);
            let now = self.engine.logs(&dir);
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
        }
    }

    fn show_usage(&self, story: &mut Story<'_>, keyring: &Keyring) -> Result<Usage> {
        story.step("usage", "Bytes under each data key, before the engine compacted anything")?;
        let usage = Usage::take(&self.place.store(), keyring)?;
        story.show(&usage.table())?;
        story.number("data_keys", usage.json());
        let (in_use, share) = (usage.keys_in_use() as u64, usage.old_share() * 100.0);
        let what = format!("{in_use} data keys in use; old ones hold {share:.0} % of the bytes");
        story.check(in_use == MONTHS + 1 && usage.old_bytes() > 0, what)?;
        Ok(usage)
    }

    fn churn(&mut self, story: &mut Story<'_>, keyring: &Keyring, before: &Usage) -> Result<()> {
        story.step("churn", "Records change, and the engine's own compaction moves the rest")?;
        let dir = self.place.store();
        let engine = self.engine;
        let (old_tables, target) = (engine.tables(&dir), before.old_bytes() / SHRINK);
        let gone = || old_tables.difference(&engine.tables(&dir)).count();
        let mut db = self.open_engine(keyring, Mode::Compacting)?;
        let mut usage = Usage::take(&dir, keyring)?;
        let (mut round, mut changed) = (0, 0);
        while (usage.old_bytes() > target || gone() == 0) && round < ROUNDS_MAX {
            round += 1;
            let known = self.versions.len() as u64;
            let numbers: Vec<_> = scattered(known, known / ROUND_PART).collect();
            let count = numbers.len() as u64;
            changed += count;
            self.write(&mut *db, numbers.into_iter(), count, story.is_json())?;
            let (last, deadline) = (usage.old_bytes(), Instant::now() + AT_REST);
            while usage.old_bytes() >= last && Instant::now() < deadline {
                std::thread::sleep(POLL);
                usage = Usage::take(&dir, keyring)?;
            }
            let (changed, share) = (units::count(changed), usage.old_share() * 100.0);
            let line = format!("   {changed} records changed: old data keys hold {share:.0} %");
            story.show(&DIM.paint(&line))?;
        }
        db.close()?;
        usage = Usage::take(&dir, keyring)?;
        story.show(&usage.table())?;
        let gone = gone();
        story.number("rounds", round);
        story.number("old_bytes_before", before.old_bytes());
        story.number("old_bytes_after", usage.old_bytes());
        story.number("tables_before", old_tables.len());
        story.number("tables_removed", gone);
        story.number("data_keys", usage.json());
        let (was, is) = (units::bytes(before.old_bytes()), units::bytes(usage.old_bytes()));
        story.check(usage.old_bytes() <= target, format!("old data keys: {was} -> {is}"))?;
        let what = format!("the engine replaced {gone} of its {} tables", old_tables.len());
        story.check(gone > 0, what)
    }

    /// Opens everything anew and compares every record.
    fn verify(&self, story: &mut Story<'_>) -> Result<()> {
        let records = self.versions.len() as u64;
        let bar = progress::records("   reading", records, story.is_json());
        let db = self.open_engine(&self.open_keyring()?, Mode::Quiet)?;
        let verified = db.verify(&self.versions, &|n| bar.inc(n))?;
        db.close()?;
        bar.finish_and_clear();
        let what = match verified.bad {
            0 => format!("{} records read back as written", units::count(verified.good)),
            bad => format!("{} records are not as written", units::count(bad)),
        };
        story.number("records_good", verified.good);
        story.number("records_bad", verified.bad);
        story.check(verified.good == records && verified.bad == 0, what)
    }

    fn reopen(&self, story: &mut Story<'_>) -> Result<()> {
        story.step("verify", "Close, reopen, verify every record")?;
        self.verify(story)
    }

    fn search(&self, story: &mut Story<'_>) -> Result<()> {
        story.step("search", "Search every byte on disk for known plaintext")?;
        let found = search::search(&self.place.store())?;
        story.number("files", found.files);
        story.number("bytes", found.bytes);
        story.number("hits", found.hits);
        let (files, size) = (units::counted(found.files, "file"), units::bytes(found.bytes));
        let hits = if found.hits == 0 { "nothing found".into() } else { units::count(found.hits) };
        story.check(found.hits == 0 && found.files > 0, format!("{files}, {size}: {hits}"))?;
        // The same engine without encryption shows that the search can find.
        let mut plain = self.engine.open(&self.place.control(), None, Mode::Quiet)?;
        plain.write(&mut Vec::new(), &mut (0..CONTROL_RECORDS), &|_| ())?;
        plain.flush()?;
        plain.close()?;
        let control = search::search(&self.place.control())?;
        story.number("control_hits", control.hits);
        let what = format!(
            "the same search where the same engine runs unencrypted: found {} times",
            units::count(control.hits)
        );
        story.check(control.hits >= CONTROL_RECORDS, what)
    }

    fn move_key(&self, away: bool) -> Result<()> {
        let (mut from, mut to) = (self.place.key_file(), self.place.key_file_away());
        if !away {
            std::mem::swap(&mut from, &mut to);
        }
        std::fs::rename(&from, &to)
            .map_err(|e| Failure::io("the key file cannot be moved", &from, e))
    }

    fn withdraw(&self, story: &mut Story<'_>) -> Result<()> {
        story.step("withdraw", "The customer withdraws the key: the key file moves away")?;
        self.move_key(true)?;
        let opened = self.open_keyring();
        let refused = match &opened {
            Err(failure) => {
                let told = failure.report().map_or(String::new(), |report| report.text());
                story.show(&format!("     {}", told.replace('\n', "\n     ")))?;
                failure.kind() == Some(ErrorKind::Kms(KmsErrorKind::NotFound))
            }
            Ok(_) => false,
        };
        story.check(refused, "opening is refused, and says why")
    }

    fn give_back(&self, story: &mut Story<'_>) -> Result<()> {
        story.step("give back", "The customer gives the key back")?;
        self.move_key(false)?;
        self.verify(story)
    }
}

/// `count` of the numbers below `end`, each once, spread over all of them in no order.
fn scattered(end: u64, count: u64) -> impl Iterator<Item = u64> {
    // A prime that no data set here is a multiple of, so that every number comes once.
    const STRIDE: u64 = 1_000_000_007;
    (0..count.min(end)).map(move |index| index * STRIDE % end)
}
