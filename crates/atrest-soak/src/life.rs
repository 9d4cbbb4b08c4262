//! The process that is killed: an engine, writers, readers, rotations, backups.

use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use atrest::kms::Kms;
use serde::{Deserialize, Serialize};

use crate::journal::content;
use crate::{Any, Engine, Journal, Rng};

const WRITERS: u32 = 2;
const READERS: u32 = 2;
/// After a refusal, so that a refusing engine does not spin.
const PAUSE: Duration = Duration::from_millis(20);
const ROTATION: Duration = Duration::from_secs(3);
/// Each third one is of the store key too, and comes with a rewrap.
const RENEWAL: Duration = Duration::from_secs(10);
const BACKUP: Duration = Duration::from_secs(20);

/// What a life did so far.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// Records.
    pub written: u64,
    /// Records, each held to the model.
    pub read: u64,
    /// Operations that an outage, a revocation or a full disk refused.
    pub refused: u64,
    /// Records that are not what the model says: lost, old, or of bytes that nobody wrote.
    pub wrong: u64,
    /// Of data keys.
    pub rotations: u64,
    /// Of the store key.
    pub store_key_rotations: u64,
    /// Data keys.
    pub destroyed: u64,
    /// Made and restored.
    pub backups: u64,
    /// Records that were restored and held to the model.
    pub restored: u64,
}

impl Done {
    /// Adds what another life did.
    pub fn add(&mut self, other: &Self) {
        let mut other = *other;
        self.fields().into_iter().zip(other.fields()).for_each(|(to, from)| *to += *from);
    }

    fn fields(&mut self) -> [&mut u64; 9] {
        [
            &mut self.written,
            &mut self.read,
            &mut self.refused,
            &mut self.wrong,
            &mut self.rotations,
            &mut self.store_key_rotations,
            &mut self.destroyed,
            &mut self.backups,
            &mut self.restored,
        ]
    }
}

/// A line of the child's output.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// Everything was read once.
    Ready,
    /// So far.
    Done(Done),
    /// Not what the model says.
    Wrong(String),
    /// The kind of a refusal, the first time.
    Refused(String),
}

/// An error that is no refusal.
#[derive(Debug)]
pub struct Wrong(pub String);

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Wrong {}

fn say(said: &Said) {
    let line = serde_json::to_string(said).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    // The parent may be gone.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}

struct Work<'a> {
    engine: &'a dyn Engine,
    journal: &'a Journal,
    ending: AtomicBool,
    counts: [AtomicU64; 9],
}

#[derive(Clone, Copy)]
enum Count {
    Written,
    Read,
    Refused,
    Wrong,
    Rotations,
    StoreKeyRotations,
    Destroyed,
    Backups,
    Restored,
}

impl Work<'_> {
    fn count(&self, what: Count, by: u64) {
        self.counts[what as usize].fetch_add(by, Ordering::Relaxed);
    }

    fn done(&self) -> Done {
        let mut done = Done::default();
        let counts = self.counts.iter().zip(done.fields());
        counts.for_each(|(count, to)| *to = count.load(Ordering::Relaxed));
        done
    }

    fn ends(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    fn failed(&self, error: &(dyn std::error::Error + Send + Sync + 'static)) {
        if error.is::<Wrong>() {
            self.wrong(error.to_string());
        } else {
            self.count(Count::Refused, 1);
            say(&Said::Refused(error.to_string()));
            std::thread::sleep(PAUSE);
        }
    }

    fn wrong(&self, what: String) {
        self.count(Count::Wrong, 1);
        say(&Said::Wrong(what));
    }

    /// One read, held to the model. Whether it was answered.
    fn read(&self, key: u32) -> bool {
        let least = self.journal.acknowledged(key);
        match self.engine.get(key) {
            Ok(found) => {
                let judged =
                    self.journal.judge(key, least, found.as_deref(), self.engine.len_max());
                self.count(Count::Read, 1);
                if let Err(what) = judged {
                    self.wrong(what);
                }
                true
            }
            Err(error) => {
                self.failed(&*error);
                false
            }
        }
    }

    fn write(&self, key: u32) -> Any<()> {
        let version = self.journal.attempt(key)?;
        self.engine.put(key, &content(key, version, self.engine.len_max()))?;
        self.journal.acknowledge(key, version)?;
        self.count(Count::Written, 1);
        Ok(())
    }

    /// Every so often, until the end.
    fn every(&self, interval: Duration, mut work: impl FnMut() -> Any<()>) {
        let mut last = Instant::now();
        while !self.ends() {
            std::thread::sleep(Duration::from_millis(100));
            if last.elapsed() >= interval {
                if let Err(error) = work() {
                    self.failed(&*error);
                }
                last = Instant::now();
            }
        }
    }

    fn writer(&self, number: u32, seed: u64) {
        let mut rng = Rng::new(seed ^ u64::from(number));
        while !self.ends() {
            let keys = u64::from(self.journal.keys() / WRITERS);
            // One writer for each record.
            let key = rng.below(keys) as u32 * WRITERS + number;
            if let Err(error) = self.write(key) {
                self.failed(&*error);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn reader(&self, number: u32, seed: u64) {
        let mut rng = Rng::new(seed ^ (u64::from(number) << 32));
        while !self.ends() {
            self.read(rng.below(u64::from(self.journal.keys())) as u32);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn rotate(&self) -> Any<()> {
        self.engine.store().keys().rotate()?;
        self.count(Count::Rotations, 1);
        Ok(())
    }

    fn renew(&self, turn: &mut u32) -> Any<()> {
        *turn += 1;
        if (*turn).is_multiple_of(3) {
            self.engine.store().slots().rewrap(None)?;
            self.engine.store().keys().rotate_store_key()?;
            self.count(Count::StoreKeyRotations, 1);
        }
        let destroyed = self.engine.renew()?;
        self.count(Count::Destroyed, destroyed);
        Ok(())
    }

    fn back_up(&self, scratch: &Path) -> Any<()> {
        let restored = self.engine.back_up(scratch, self.journal)?;
        self.count(Count::Restored, restored);
        self.count(Count::Backups, u64::from(restored > 0));
        Ok(())
    }
}

/// Where an engine lives, and with which key.
#[derive(Debug)]
pub struct Life {
    /// Where its store is.
    pub dir: PathBuf,
    /// Where the model and backups are, on another disk.
    pub scratch: PathBuf,
    /// The customer's key.
    pub uri: String,
    /// What follows from it: which record is written and read when.
    pub seed: u64,
}

/// Lives until its input ends, or until it is killed, with that many records in the engine that
/// `open` opens. Tells of it in lines on the output.
///
/// # Errors
/// When the model or the key service's client cannot be set up.
pub fn live(
    life: &Life,
    keys: u32,
    open: impl Fn(&Path, Arc<dyn Kms>) -> Any<Box<dyn Engine>>,
) -> Any<()> {
    let Life { dir, scratch, uri, seed } = life;
    let journal = Journal::open(&scratch.join("journal"), keys)?;
    let kms = atrest_kms::from_uri(uri)?;
    let engine = loop {
        // An outage, a revocation or a full disk may be in the way.
        match open(dir, kms.clone()) {
            Ok(engine) => break engine,
            Err(error) => {
                say(&Said::Refused(format!("opening: {error}")));
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    };
    let ending = AtomicBool::new(false);
    let counts = Default::default();
    let life = Work { engine: &*engine, journal: &journal, ending, counts };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Ends with the parent, too.
            std::io::stdin().lock().lines().for_each(drop);
            life.ending.store(true, Ordering::SeqCst);
        });
        scope.spawn(|| {
            while !life.ends() {
                say(&Said::Done(life.done()));
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        // All that the life before acknowledged.
        for key in 0..journal.keys() {
            while !life.read(key) && !life.ends() {}
        }
        say(&Said::Ready);
        for number in 0..WRITERS {
            let life = &life;
            scope.spawn(move || life.writer(number, *seed));
        }
        for number in 0..READERS {
            let life = &life;
            scope.spawn(move || life.reader(number, *seed));
        }
        scope.spawn(|| life.every(ROTATION, || life.rotate()));
        scope.spawn(|| {
            let mut turn = 0;
            life.every(RENEWAL, || life.renew(&mut turn));
        });
        scope.spawn(|| life.every(BACKUP, || life.back_up(scratch)));
    });
    for key in 0..journal.keys() {
        life.read(key);
    }
    engine.close();
    say(&Said::Done(life.done()));
    Ok(())
}
