//! `atrest-bench soak`: engines under load for as long as one likes, while their keys rotate, their
//! processes are killed, their key service hangs or refuses, and their disk is full.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};

use atrest_soak::{Any, Engine, Life, Rng};
use bao::Bao;
use disk::Disk;
use episodes::Soaking;
use subject::Subject;

mod bao;
mod disk;
mod episodes;
mod files;
mod process;
mod slate;
mod subject;

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
            let program = self.rocksdb.clone().filter(|_| kind == Kind::Rocksdb);
            Ok(Subject::new(kind, program, store, scratch))
        };
        let subjects = kinds.iter().copied().map(subject).collect::<Any<_>>()?;
        let bao = Bao::start(bao, &service)?;
        let mut soaking = Soaking::start(bao, disk, subjects)?;
        soaking.run(Duration::from_secs_f64(self.minutes * 60.0), &mut Rng::new(self.seed));
        soaking.finish()?;
        soaking.report(self.json)
    }
}
