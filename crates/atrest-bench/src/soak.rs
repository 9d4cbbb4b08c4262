//! `atrest-bench soak`: engines under load for as long as one likes, while their keys rotate, their
//! processes are killed, their key service hangs or refuses, and their disk is full.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use atrest_soak::{Any, Done, Engine, Life, Rng};
use bao::Bao;
use disk::Disk;
use process::{Heard, Look, Process};

mod bao;
mod disk;
mod files;
mod process;
mod slate;

/// Longest time in which an engine reads and writes nothing at all, whatever happened. Reading
/// all records after a start is work, and takes minutes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);
/// Looks at a process younger than this do not count: it is still warming up.
const WARM: Duration = Duration::from_secs(20);
const DISK_MIB: u64 = 2048;

/// How long and with what.
#[derive(Args, Debug)]
pub struct Soak {
    /// How long.
    #[arg(long, value_name = "N", default_value_t = 120.0)]
    minutes: f64,
    /// Which engines. Default: all, RocksDB if its program is given.
    #[arg(long, value_name = "ENGINE")]
    engine: Vec<Kind>,
    /// The program that is RocksDB's engine, which is not built with this one:
    /// `cargo build -p atrest-rocksdb-soak` in crates/atrest-rocksdb-env.
    #[arg(long, value_name = "PROGRAM")]
    rocksdb: Option<PathBuf>,
    /// Where to work. The directory is made and removed again.
    #[arg(long, value_name = "DIR", default_value = "/tmp/atrest-soak")]
    dir: PathBuf,
    /// The program of the key service, as `crates/atrest-kms/tests/servers/install` leaves it.
    #[arg(long, value_name = "FILE", default_value = "target/servers/bao")]
    bao: PathBuf,
    /// What follows from it: which episode comes when. Threads and time are the system's.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// One JSON document at the end instead of words.
    #[arg(long)]
    json: bool,
}

/// Engines that can be soaked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// `EncryptedFs`: files that are replaced by renames.
    Files,
    /// SlateDB on encrypted objects.
    Slatedb,
    /// RocksDB on encrypted files, in the program that `--rocksdb` names.
    Rocksdb,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Slatedb => "slatedb",
            Self::Rocksdb => "rocksdb",
        }
    }
}

/// What the soak's own children run.
#[derive(Args, Debug)]
pub struct SoakEngine {
    kind: Kind,
    dir: PathBuf,
    scratch: PathBuf,
    uri: String,
    seed: u64,
}

impl SoakEngine {
    /// Lives until its input ends.
    ///
    /// # Errors
    /// When the engine cannot be set up.
    pub fn run(&self) -> Any<()> {
        let (dir, scratch, uri) = (self.dir.clone(), self.scratch.clone(), self.uri.clone());
        let life = Life { dir, scratch, uri, seed: self.seed };
        match self.kind {
            Kind::Files => atrest_soak::live(&life, 200, |dir, kms| {
                Ok(Box::new(files::Files::open(dir, kms)?) as Box<dyn Engine>)
            }),
            Kind::Slatedb => atrest_soak::live(&life, 4000, |dir, kms| {
                Ok(Box::new(slate::Slate::open(dir, kms)?) as Box<dyn Engine>)
            }),
            Kind::Rocksdb => Err("RocksDB is a program of its own: --rocksdb".into()),
        }
    }
}

/// An engine and all of its lives.
struct Subject {
    kind: Kind,
    /// Another program than this one.
    program: Option<PathBuf>,
    dir: PathBuf,
    scratch: PathBuf,
    process: Option<Process>,
    lives: u64,
    kills: u64,
    done: Done,
    wrong: Vec<String>,
    refused: BTreeMap<String, u64>,
    /// When, of the whole soak, and what.
    looks: Vec<(Duration, Look)>,
}

impl Subject {
    fn start(&mut self, bao: &Bao) -> Any<()> {
        self.lives += 1;
        let command = match &self.program {
            Some(program) => Command::new(program),
            None => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("soak-engine").arg(self.kind.as_str());
                command
            }
        };
        let (dir, scratch, uri) = (self.dir.clone(), self.scratch.clone(), bao.uri.clone());
        let life = Life { dir, scratch, uri, seed: self.lives };
        self.process = Some(Process::start(command, &life, &bao.token)?);
        Ok(())
    }

    fn take(&mut self, heard: Heard) {
        self.done.add(&heard.done);
        self.wrong.extend(heard.wrong);
        for (what, count) in heard.refused {
            *self.refused.entry(what).or_default() += count;
        }
    }

    fn kill(&mut self, bao: &Bao) -> Any<()> {
        if let Some(process) = self.process.take() {
            self.kills += 1;
            let heard = process.kill()?;
            self.take(heard);
        }
        self.start(bao)
    }

    /// Reads and writes of the present life.
    fn progress(&self) -> Option<(u64, u64)> {
        let process = self.process.as_ref()?;
        let heard = process.heard();
        heard.ready.then_some((heard.done.written, heard.done.read))
    }

    /// Changes whenever it reads or writes a record.
    fn worked(&self) -> (u64, u64) {
        let done = self.all();
        (done.written, done.read)
    }

    /// In all lives so far, the present one too.
    fn all(&self) -> Done {
        let mut all = self.done;
        if let Some(process) = &self.process {
            all.add(&process.heard().done);
        }
        all
    }

    /// Medians of the first and the last quarter of the looks, of one of their figures.
    fn drift(&self, of: fn(&Look) -> u64) -> [u64; 2] {
        let warm = self.looks.iter().filter(|(_, look)| look.age >= WARM);
        let figures: Vec<u64> = warm.map(|(_, look)| of(look)).collect();
        let quarter = figures.len().div_ceil(4);
        let median = |part: &[u64]| {
            let mut part = part.to_vec();
            part.sort_unstable();
            part.get(part.len() / 2).copied().unwrap_or_default()
        };
        [median(&figures[..quarter]), median(&figures[figures.len() - quarter..])]
    }

    /// Medians of resident KiB by the age of the process: growth that goes on would show here.
    fn resident_by_age(&self) -> BTreeMap<u64, u64> {
        let mut of: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for (_, look) in &self.looks {
            of.entry(look.age.as_secs() / 60).or_default().push(look.resident_kib);
        }
        let median = |figures: &mut Vec<u64>| {
            figures.sort_unstable();
            figures[figures.len() / 2]
        };
        of.iter_mut().map(|(minute, figures)| (*minute, median(figures))).collect()
    }

    fn figures(&self) -> Value {
        let most = |of: fn(&Look) -> u64| self.looks.iter().map(|(_, look)| of(look)).max();
        let longest = self.looks.iter().map(|(_, look)| look.age.as_secs()).max();
        json!({
            "engine": self.kind.as_str(),
            "done": self.done,
            "kills": self.kills,
            "resident_kib_first_and_last_quarter": self.drift(|look| look.resident_kib),
            "resident_kib_by_minutes_of_age": self.resident_by_age(),
            "resident_kib_most": most(|look| look.resident_kib),
            "descriptors_first_and_last_quarter": self.drift(|look| look.descriptors),
            "descriptors_most": most(|look| look.descriptors),
            "longest_life_s": longest,
            "wrong": self.wrong,
            "refusals": self.refused,
        })
    }
}

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

struct Soaking {
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

impl Soak {
    /// Soaks. Whether nothing was wrong.
    ///
    /// # Errors
    /// When the key service or an engine cannot be set up.
    pub fn run(&self) -> Any<bool> {
        let kinds: Vec<_> = if self.engine.is_empty() {
            let all = Kind::value_variants().iter().copied();
            all.filter(|kind| *kind != Kind::Rocksdb || self.rocksdb.is_some()).collect()
        } else {
            self.engine.clone()
        };
        if kinds.contains(&Kind::Rocksdb) && self.rocksdb.is_none() {
            return Err("RocksDB is a program of its own: give --rocksdb".into());
        }
        let bao = self.bao.canonicalize().map_err(|error| {
            let path = self.bao.display();
            format!("{path}: {error}; run crates/atrest-kms/tests/servers/install or give --bao")
        })?;
        std::fs::create_dir(&self.dir)?;
        let dir = self.dir.canonicalize()?;
        let soaked = self.soak(&dir, &bao, &kinds);
        let removed = std::fs::remove_dir_all(&dir);
        let good = soaked?;
        removed?;
        Ok(good)
    }

    fn soak(&self, dir: &Path, bao: &Path, kinds: &[Kind]) -> Any<bool> {
        let service = dir.join("service");
        std::fs::create_dir(&service)?;
        let disk = Disk::new(dir, DISK_MIB)?;
        if !disk.can_be_filled() {
            eprintln!("no file system of its own can be mounted: the disk is never full");
        }
        let subject = |kind: Kind| -> Any<Subject> {
            let [store, scratch] = [disk.dir.join(kind.as_str()), dir.join(kind.as_str())];
            std::fs::create_dir(&store)?;
            std::fs::create_dir(&scratch)?;
            let (lives, kills, done, process) = (0, 0, Done::default(), None);
            let program = self.rocksdb.clone().filter(|_| kind == Kind::Rocksdb);
            let (wrong, refused, looks) = Default::default();
            Ok(Subject {
                kind,
                program,
                dir: store,
                scratch,
                process,
                lives,
                kills,
                done,
                wrong,
                refused,
                looks,
            })
        };
        let subjects = kinds.iter().copied().map(subject).collect::<Any<_>>()?;
        let (episodes, problems) = Default::default();
        let bao = Bao::start(bao, &service)?;
        let mut soaking = Soaking {
            begun: Instant::now(),
            bao,
            disk,
            subjects,
            episodes,
            problems,
            slowest: Duration::ZERO,
        };
        for subject in &mut soaking.subjects {
            subject.start(&soaking.bao)?;
        }
        let mut rng = Rng::new(self.seed);
        let end = soaking.begun + Duration::from_secs_f64(self.minutes * 60.0);
        soaking.recover();
        while Instant::now() < end {
            // One part in three without a kill, so that a process also becomes old.
            let quiet = soaking.begun.elapsed().as_secs() % 900 >= 600;
            let mut episode = Episode::draw(&mut rng, soaking.disk.can_be_filled());
            while quiet
                && matches!(
                    episode,
                    Episode::Kill
                        | Episode::KillAll
                        | Episode::KillWhileFull
                        | Episode::KillWhileRevoked
                )
            {
                episode = Episode::draw(&mut rng, soaking.disk.can_be_filled());
            }
            soaking.watch(Duration::from_millis(2000 + rng.below(6000)));
            if let Err(error) = soaking.live_through(episode, &mut rng) {
                soaking.problems.push(format!("{episode:?}: {error}"));
                soaking.calm();
            }
            soaking.recover();
            soaking.tell(episode);
        }
        for subject in &mut soaking.subjects {
            if let Some(process) = subject.process.take() {
                let (heard, good) = process.finish()?;
                subject.take(heard);
                if !good {
                    soaking.problems.push(format!("{} did not end well", subject.kind.as_str()));
                }
            }
        }
        soaking.report(self.json)
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

    fn report(&self, as_json: bool) -> Any<bool> {
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
