//! What befalls the engines, one episode after the other, and what became of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use atrest_soak::{Any, Rng};
use serde_json::json;

use super::bao::Bao;
use super::disk::Disk;
use super::process::{Look, Process};
use super::subject::Subject;

/// Longest time in which an engine reads and writes nothing at all, whatever happened. Reading
/// all records after a start is work, and takes minutes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Episode {
    Kill,
    /// Both at once, so that two take over at one time.
    KillAll,
    Hang,
    Revoke,
    Full,
    /// Killed while the disk is full or the service away.
    KillWhileFull,
    KillWhileRevoked,
    RotateCustomersKey,
}

impl Episode {
    fn draw(rng: &mut Rng, full: bool) -> Self {
        match rng.below(20) {
            0..=6 => Self::Kill,
            7 => Self::KillAll,
            8..=10 => Self::Hang,
            11..=13 => Self::Revoke,
            14..=15 if full => Self::Full,
            16 if full => Self::KillWhileFull,
            17 => Self::KillWhileRevoked,
            18 => Self::RotateCustomersKey,
            _ => Self::Hang,
        }
    }
}

/// A soak that is under way.
pub(super) struct Soaking {
    begun: Instant,
    bao: Bao,
    disk: Disk,
    subjects: Vec<Subject>,
    episodes: BTreeMap<String, u64>,
    problems: Vec<String>,
    /// Longest time until all engines were back at work.
    slowest: Duration,
}

impl Soaking {
    /// Gives every engine its first process.
    ///
    /// # Errors
    /// When one cannot be started.
    pub(super) fn start(bao: Bao, disk: Disk, mut subjects: Vec<Subject>) -> Any<Self> {
        let begun = Instant::now();
        subjects.iter_mut().try_for_each(|subject| subject.start(&bao))?;
        let (episodes, problems, slowest) = Default::default();
        Ok(Self { begun, bao, disk, subjects, episodes, problems, slowest })
    }

    /// Goes on for `time`, counted from the start.
    pub(super) fn run(&mut self, time: Duration, rng: &mut Rng) {
        let end = self.begun + time;
        self.recover();
        while Instant::now() < end {
            // One part in three without a kill, so that a process also becomes old.
            let quiet = self.begun.elapsed().as_secs() % 900 >= 600;
            let mut episode = Episode::draw(rng, self.disk.can_be_filled());
            while quiet
                && matches!(
                    episode,
                    Episode::Kill
                        | Episode::KillAll
                        | Episode::KillWhileFull
                        | Episode::KillWhileRevoked
                )
            {
                episode = Episode::draw(rng, self.disk.can_be_filled());
            }
            self.watch(Duration::from_millis(2000 + rng.below(6000)));
            if let Err(error) = self.live_through(episode, rng) {
                self.problems.push(format!("{episode:?}: {error}"));
                self.calm();
            }
            self.recover();
            self.tell(episode);
        }
    }

    /// Lets every engine end by itself.
    ///
    /// # Errors
    /// When one cannot be waited for.
    pub(super) fn finish(&mut self) -> Any<()> {
        for subject in &mut self.subjects {
            if let Some(process) = subject.process.take() {
                let (heard, good) = process.finish()?;
                subject.take(heard);
                if !good {
                    self.problems.push(format!("{} did not end well", subject.kind.as_str()));
                }
            }
        }
        Ok(())
    }

    fn live_through(&mut self, episode: Episode, rng: &mut Rng) -> Any<()> {
        *self.episodes.entry(format!("{episode:?}")).or_default() += 1;
        let some = rng.below(self.subjects.len() as u64) as usize;
        match episode {
            Episode::Kill => self.subjects[some].kill(&self.bao),
            Episode::KillAll => self.subjects.iter_mut().try_for_each(|one| one.kill(&self.bao)),
            Episode::Hang => {
                self.bao.hang(true)?;
                self.watch(Duration::from_millis(2000 + rng.below(20_000)));
                self.bao.hang(false)
            }
            Episode::Revoke => {
                self.bao.allow(false)?;
                self.watch(Duration::from_millis(1000 + rng.below(12_000)));
                self.bao.allow(true)
            }
            Episode::Full => {
                self.disk.fill()?;
                self.watch(Duration::from_millis(1000 + rng.below(8000)));
                self.disk.empty()
            }
            Episode::KillWhileFull => {
                self.disk.fill()?;
                self.watch(Duration::from_secs(2));
                self.subjects[some].kill(&self.bao)?;
                self.watch(Duration::from_secs(3));
                self.disk.empty()
            }
            Episode::KillWhileRevoked => {
                self.bao.allow(false)?;
                self.watch(Duration::from_secs(2));
                self.subjects[some].kill(&self.bao)?;
                self.watch(Duration::from_secs(4));
                self.bao.allow(true)
            }
            Episode::RotateCustomersKey => self.bao.rotate(),
        }
    }

    /// Ends what an episode that failed left.
    fn calm(&self) {
        drop(self.bao.hang(false));
        drop(self.bao.allow(true));
        drop(self.disk.empty());
    }

    /// Waits, and looks at the processes meanwhile.
    fn watch(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            std::thread::sleep(Duration::from_millis(500).min(time));
            for subject in &mut self.subjects {
                let look = subject.process.as_ref().and_then(Process::look);
                subject.looks.extend(look.map(|look| (self.begun.elapsed(), look)));
                if let Some(how) = subject.process.as_mut().and_then(Process::ended) {
                    self.problems.push(format!("{} ended: {how}", subject.kind.as_str()));
                    if let Some(Ok(heard)) = subject.process.take().map(Process::kill) {
                        subject.take(heard);
                    }
                    if let Err(error) = subject.start(&self.bao) {
                        self.problems.push(error.to_string());
                    }
                }
            }
        }
    }

    /// Waits until every engine reads and writes again.
    fn recover(&mut self) {
        let before: Vec<_> = self.subjects.iter().map(Subject::progress).collect();
        let begun = Instant::now();
        let mut moved: Vec<_> = self.subjects.iter().map(|one| (begun, one.worked())).collect();
        loop {
            for (subject, moved) in self.subjects.iter().zip(&mut moved) {
                if subject.worked() != moved.1 {
                    *moved = (Instant::now(), subject.worked());
                }
            }
            let back = self.subjects.iter().zip(&before).all(|(subject, before)| {
                let (Some(now), before) = (subject.progress(), before.unwrap_or_default()) else {
                    return false;
                };
                now.0 > before.0 + 5 && now.1 > before.1 + 5 || now.0 < before.0
            });
            self.slowest = self.slowest.max(begun.elapsed());
            if back {
                return;
            }
            if moved.iter().any(|(at, _)| at.elapsed() > PATIENCE) {
                let states: Vec<_> = self.subjects.iter().map(Subject::progress).collect();
                self.problems.push(format!("no progress for {PATIENCE:?}: {before:?} {states:?}"));
                return;
            }
            self.watch(Duration::from_millis(500));
        }
    }
}

impl Soaking {
    fn tell(&self, episode: Episode) {
        let minutes = self.begun.elapsed().as_secs_f64() / 60.0;
        eprint!("{minutes:6.1} min, {episode:?}:");
        for subject in &self.subjects {
            let done = subject.all();
            eprint!(
                " {} {} written {} read {} refused {} wrong;",
                subject.kind.as_str(),
                done.written,
                done.read,
                done.refused,
                done.wrong
            );
        }
        eprintln!(" {} problems", self.problems.len());
    }

    /// Prints what was reached. Whether nothing was wrong.
    ///
    /// # Errors
    /// When it cannot be printed.
    pub(super) fn report(&self, as_json: bool) -> Any<bool> {
        let minutes = self.begun.elapsed().as_secs_f64() / 60.0;
        let wrong: u64 = self.subjects.iter().map(|subject| subject.done.wrong).sum();
        let good = wrong == 0 && self.problems.is_empty();
        if as_json {
            let engines: Vec<_> = self.subjects.iter().map(Subject::figures).collect();
            let said = json!({
                "minutes": minutes, "episodes": self.episodes, "problems": self.problems,
                "back_at_work_within_s": self.slowest.as_secs(),
                "records_lost": wrong, "engines": engines,
            });
            println!("{}", serde_json::to_string_pretty(&said)?);
            return Ok(good);
        }
        let (episodes, slowest) = (&self.episodes, self.slowest.as_secs());
        println!("{minutes:.1} minutes, {episodes:?}, back at work within {slowest} s");
        for subject in &self.subjects {
            let done = &subject.done;
            let [memory, descriptors]: [fn(&Look) -> u64; 2] =
                [|look| look.resident_kib, |look| look.descriptors];
            println!(
                "{}: {} writes, {} reads, {} refused; {} rotations of data keys, {} of the store \
                 key, {} keys destroyed; {} backups, {} records restored; killed {} times; records \
                 lost {}; KiB in memory {:?} and descriptors {:?} in the first and last quarter",
                subject.kind.as_str(),
                done.written,
                done.read,
                done.refused,
                done.rotations,
                done.store_key_rotations,
                done.destroyed,
                done.backups,
                done.restored,
                subject.kills,
                done.wrong,
                subject.drift(memory),
                subject.drift(descriptors)
            );
            println!("  KiB in memory by minutes of age: {:?}", subject.resident_by_age());
            subject.wrong.iter().for_each(|what| println!("  {what}"));
        }
        self.problems.iter().for_each(|problem| println!("problem: {problem}"));
        Ok(good)
    }
}
