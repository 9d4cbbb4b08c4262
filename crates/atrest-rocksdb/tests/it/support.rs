//! One encrypted place, and an engine that does what it is told.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use atrest::classify::Contents;
use atrest::kms::{KeyFile, generate_key_file};
use atrest::{DataKeyId, Options, Store};
use tempfile::TempDir;

/// How RocksDB gets to its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// RocksDB's encrypted file system over our provider: counter mode.
    Provider,
    /// Our own file system: the authenticated suites.
    FileSystem,
}

/// Runs tests in both forms.
macro_rules! in_both_forms {
    ($($test:ident)*) => {
        mod provider {
            $(#[test]
            fn $test() {
                super::$test($crate::support::Form::Provider);
            })*
        }
        mod file_system {
            $(#[test]
            fn $test() {
                super::$test($crate::support::Form::FileSystem);
            })*
        }
    };
}
pub(crate) use in_both_forms;

/// Words that are in every value.
pub(crate) const PLAINTEXT: &[u8] = b" of record ";

/// The compiled programs; `None`, and said so, where RocksDB is not to be had.
pub(crate) fn built() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<TempDir>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        if !Path::new("/usr/include/rocksdb/env_encryption.h").exists() {
            // Past the test harness, which hides what a passing test prints.
            let absent = "\nNOT TESTED: RocksDB (librocksdb-dev, rocksdb-tools) is not installed";
            drop(writeln!(std::io::stderr(), "{absent}"));
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let libraries = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let mut capi = Command::new(here.join("../atrest-capi/install"));
        run(capi.arg("--prefix").arg(dir.path()).arg("--built").arg(libraries));
        run(Command::new(here.join("install")).arg("--prefix").arg(dir.path()));
        let strict = ["-g", "-Wall", "-Wextra", "-Werror"];
        let mut engine = Command::new("g++");
        engine.arg("-std=c++17").args(strict).arg(here.join("tests/engine.cc"));
        run(engine.arg("-o").arg(dir.path().join("engine")).arg("-lrocksdb"));
        let mut spy = Command::new("gcc");
        spy.args(["-shared", "-fPIC"]).args(strict).arg(here.join("tests/spy.c"));
        run(spy.arg("-o").arg(dir.path().join("spy.so")).arg("-ldl"));
        Some(dir)
    });
    built.as_ref().map(TempDir::path)
}

/// What it printed, on both outputs. It has to succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> String {
    let (success, text) = try_run(command);
    assert!(success, "{command:?}\n{text}");
    text
}

pub(crate) fn try_run(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

/// A store with a database in it.
pub(crate) struct Place {
    pub(crate) built: &'static Path,
    dir: TempDir,
    pub(crate) form: Form,
    pub(crate) policy: &'static str,
    pub(crate) options: String,
}

impl Place {
    pub(crate) fn new(form: Form) -> Option<Self> {
        let (built, dir) = (built()?, tempfile::tempdir().unwrap());
        std::fs::create_dir(dir.path().join("data")).unwrap();
        generate_key_file(dir.path().join("cmek.key")).unwrap();
        let options = "create_if_missing=true".into();
        Some(Self { built, dir, form, policy: "", options })
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The database.
    pub(crate) fn db(&self) -> PathBuf {
        self.path("data/db")
    }

    pub(crate) fn uri(&self) -> String {
        let (data, key) = (self.path("data"), self.path("cmek.key"));
        let options = format!(
            "id=atrest;directory={};cmek=file://{};policy={{{}}}",
            data.display(),
            key.display(),
            self.policy
        );
        match self.form {
            Form::Provider => format!("provider={{{options}}};id=EncryptedFileSystem"),
            Form::FileSystem => options,
        }
    }

    /// A program that takes the provider.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env("LD_PRELOAD", self.built.join("lib/libatrest_rocksdb.so"));
        command
    }

    /// One of RocksDB's tools, with `--fs_uri` and `--db`.
    pub(crate) fn tool(&self, name: &str) -> Command {
        let mut command = self.command(name);
        command.arg(format!("--fs_uri={}", self.uri()));
        command.arg(format!("--db={}", self.db().display()));
        command
    }

    pub(crate) fn engine(&self) -> Engine {
        self.try_engine().unwrap()
    }

    pub(crate) fn try_engine(&self) -> Result<Engine, String> {
        self.engine_with(&mut self.command(self.built.join("engine")))
    }

    pub(crate) fn engine_with(&self, command: &mut Command) -> Result<Engine, String> {
        command.arg(self.uri()).arg(self.db()).arg(&self.options);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (tell, hear) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        let mut engine = Engine { child, tell, hear: hear.unwrap() };
        engine.answer().map(|()| engine)
    }

    /// Starts a new data key, of a store that no engine has open.
    pub(crate) fn rotate(&self) -> DataKeyId {
        self.store().keys().rotate().unwrap()
    }

    /// The store, which no engine has open.
    pub(crate) fn store(&self) -> Store {
        let kms = KeyFile::new(self.path("cmek.key")).unwrap();
        Store::open(self.path("data"), std::sync::Arc::new(kms), Options::default()).unwrap()
    }

    /// Every file of the database with what its header says; RocksDB's lock, which is empty,
    /// apart, and its log where a provider does not see it.
    pub(crate) fn files(&self) -> Vec<(String, Contents)> {
        let entries = std::fs::read_dir(self.db()).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        let named = files.map(|entry| {
            let bytes = std::fs::read(entry.path()).unwrap();
            (entry.file_name().into_string().unwrap(), Contents::of(&bytes))
        });
        let is_ours = |name: &str| {
            name != "LOCK" && (self.form == Form::FileSystem || !name.starts_with("LOG"))
        };
        named.filter(|(name, _)| is_ours(name)).collect()
    }

    /// The data keys of the tables.
    pub(crate) fn table_keys(&self) -> Vec<DataKeyId> {
        let files = self.files();
        let tables = files.iter().filter(|(name, _)| name.ends_with(".sst"));
        tables.map(|(_, contents)| contents.header().unwrap().data_key_id).collect()
    }

    /// All files below, the plaintext log too.
    pub(crate) fn everything(&self) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut dirs, mut all) = (vec![self.path("data")], Vec::new());
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()) {
                match entry.file_type().unwrap() {
                    kind if kind.is_dir() => dirs.push(entry.path()),
                    _ => all.push((entry.path(), std::fs::read(entry.path()).unwrap())),
                }
            }
        }
        all
    }
}

#[track_caller]
pub(crate) fn assert_encrypted(place: &Place) {
    for (name, contents) in place.files() {
        let header = contents.header();
        let header = header.unwrap_or_else(|| panic!("{name}: {contents:?}"));
        let authenticated = place.form == Form::FileSystem;
        assert_eq!(header.suite.is_authenticated(), authenticated, "{name}");
    }
    for (path, bytes) in place.everything() {
        let name = path.file_name().unwrap().to_string_lossy();
        // Past the provider RocksDB tells its options, and no values.
        let told = place.form == Form::Provider && name.starts_with("LOG");
        for word in [PLAINTEXT, b"key-0000", b"rocksdb.", b"leveldb."] {
            if told && word != PLAINTEXT {
                continue;
            }
            let found = bytes.windows(word.len()).position(|window| window == word);
            assert_eq!(found, None, "{}: {:?}", path.display(), String::from_utf8_lossy(word));
        }
    }
}

/// An engine in a process of its own.
#[derive(Debug)]
pub(crate) struct Engine {
    child: Child,
    tell: Option<ChildStdin>,
    hear: BufReader<ChildStdout>,
}

impl Engine {
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.hear.read_line(&mut line).unwrap_or(0);
        (read > 0 && line.ends_with('\n')).then(|| line.trim_end().to_owned())
    }

    fn answer(&mut self) -> Result<(), String> {
        match self.line().ok_or("it ended")? {
            line if line == "ok" => Ok(()),
            line => Err(line),
        }
    }

    pub(crate) fn say(&mut self, command: &str) {
        writeln!(self.tell.as_mut().unwrap(), "{command}").unwrap();
    }

    pub(crate) fn ask(&mut self, command: &str) -> Result<(), String> {
        self.say(command);
        self.answer()
    }

    #[track_caller]
    pub(crate) fn run(&mut self, commands: &[&str]) {
        for command in commands {
            assert_eq!(self.ask(command), Ok(()), "{command}");
        }
    }

    /// Ends it in good order.
    pub(crate) fn quit(mut self) {
        drop(self.tell.take());
        assert!(self.child.wait().unwrap().success());
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // A test that failed leaves no process behind.
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}
