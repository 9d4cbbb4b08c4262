//! Running the command in a directory of its own. Every output is searched for key
//! material.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use atrest::kms::{Deadline, KeyUri, Kms, KmsError, SlotKey, WrapContext, WrappedKey};
use serde_json::Value;

/// Says what this test leaves out, past the harness, which hides what a passing one prints.
/// `atrest_testkit` has the same, but links the core as it is simulated.
pub fn left_out(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    drop(writeln!(std::io::stderr(), "\nNOT TESTED by {test}: {why}"));
}

/// A directory with a key file `cmek.key` and a store `data`.
pub struct Bench {
    dir: tempfile::TempDir,
    secrets: Vec<Vec<u8>>,
    /// Who runs the command, if not the user who runs the tests.
    user: Option<u32>,
    /// A limit of the command's, as `prlimit` takes it.
    limit: Option<String>,
}

/// What a run of the command said.
pub struct Run {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Bench {
    /// Without a store.
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { dir, secrets: Vec::new(), user: None, limit: None }
    }

    pub fn new() -> Self {
        let mut bench = Self::empty();
        bench.keygen("cmek.key");
        bench.good(&["init", "data"]);
        bench
    }

    pub fn keygen(&mut self, name: &str) {
        self.good(&["keygen", name]);
        let key = fs::read(self.path(name)).unwrap();
        assert_eq!(key.len(), 64);
        self.secrets.push(key);
    }

    /// Words or bytes that must not stand in any output.
    pub fn keep_secret(&mut self, secret: &[u8]) {
        self.secrets.push(secret.to_vec());
    }

    /// From now on this user runs the command, which only root can say.
    pub fn become_user(&mut self, user: u32) {
        let program = self.path("atrest");
        // Where it was built need not be open to others.
        fs::copy(env!("CARGO_BIN_EXE_atrest"), program).unwrap();
        fs::set_permissions(self.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        self.user = Some(user);
    }

    /// Gives everything in this directory to a user who runs the command from now on; false,
    /// said loudly, where only root can.
    pub fn give_to(&mut self, user: u32) -> bool {
        if std::os::unix::fs::chown(self.dir.path(), Some(user), Some(user)).is_err() {
            left_out("not the superuser, who alone becomes another user");
            return false;
        }
        self.become_user(user);
        let mut chown = Command::new("chown");
        chown.arg("-R").arg(format!("{user}:{user}")).arg(self.dir.path());
        assert!(chown.status().unwrap().success());
        true
    }

    /// From now on the command has this limit, hard and soft, such as `nofile=24`, in the place
    /// of any other.
    pub fn limit(&mut self, limit: &str) {
        self.limit = Some(format!("--{limit}"));
    }

    /// From now on the command may have so many files open.
    pub fn limit_open_files(&mut self, count: u32) {
        self.limit(&format!("nofile={count}"));
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn uri(&self, name: &str) -> String {
        format!("file://{}", self.path(name).display())
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    /// The names in a directory, sorted.
    pub fn names(&self, dir: &str) -> Vec<String> {
        names(&self.path(dir))
    }

    /// The command in this directory, with the key in `ATREST_CMEK` and a clean
    /// environment otherwise.
    pub fn command(&self, args: &[&str]) -> Command {
        let program = match self.user {
            Some(_) => self.path("atrest"),
            None => env!("CARGO_BIN_EXE_atrest").into(),
        };
        let mut command = Command::new("prlimit");
        match &self.limit {
            Some(limit) => drop(command.arg(limit).arg(program)),
            None => command = Command::new(program),
        }
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            // Where a process that is measured writes what it ran.
            .envs(std::env::var_os("LLVM_PROFILE_FILE").map(|file| ("LLVM_PROFILE_FILE", file)))
            .env("ATREST_CMEK", self.uri("cmek.key"))
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        self.finish(self.command(args), b"")
    }

    pub fn run_with(&self, args: &[&str], variables: &[(&str, &str)], stdin: &[u8]) -> Run {
        let mut command = self.command(args);
        command.envs(variables.iter().copied());
        self.finish(command, stdin)
    }

    fn finish(&self, mut command: Command, stdin: &[u8]) -> Run {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut pipe = child.stdin.take().unwrap();
        let stdin = stdin.to_vec();
        // A command that fails early does not read its input.
        let feeder = std::thread::spawn(move || drop(pipe.write_all(&stdin)));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap();
        self.assert_no_secret(&output.stdout);
        self.assert_no_secret(&output.stderr);
        Run {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// A run that has to succeed; returns standard output.
    pub fn good(&self, args: &[&str]) -> Vec<u8> {
        let run = self.run(args);
        assert_eq!(run.code, 0, "{args:?}: {}", run.stderr);
        run.stdout
    }

    /// The JSON of a run that has to succeed.
    pub fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--json"]].concat();
        serde_json::from_slice(&self.good(&args)).unwrap()
    }

    /// Retires the oldest data key, which no file may be under any more: what the second of the
    /// two runs said.
    pub fn retire(&self) -> Value {
        let retired = self.json(&["keys", "retire", "data", "--grace", "1s"]);
        assert_eq!(retired["keys"][0]["outcome"], "retiring");
        // The time of grace, by the clock that the command uses.
        let until_ns = retired["keys"][0]["until_ns"].as_u64().unwrap();
        let now_ns = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            u64::try_from(now.unwrap().as_nanos()).unwrap()
        };
        while now_ns() <= until_ns {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let retired = self.json(&["keys", "retire", "data"]);
        assert_eq!(retired["keys"][0]["outcome"], "destroyed");
        retired
    }

    /// A run that has to fail with this exit code and error kind, on standard error
    /// alone, for people and for machines.
    pub fn bad(&self, code: i32, kind: &str, args: &[&str]) -> Run {
        let machine = self.run(&[args, &["--json"]].concat());
        assert_eq!(machine.code, code, "{args:?}: {}", machine.stderr);
        assert_eq!(machine.stdout, b"", "{args:?}");
        let error = &serde_json::from_str::<Value>(&machine.stderr).unwrap()["error"];
        assert_eq!(error["kind"], kind, "{args:?}: {}", machine.stderr);
        assert_eq!(error["exit_code"], code);
        assert!(!error["advice"].as_str().unwrap().is_empty());
        assert!(error["causes"].is_array());
        let run = self.run(args);
        assert_eq!(run.code, code, "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains("error: "), "{}", run.stderr);
        assert_eq!(run.stderr.matches("advice: ").count(), 1, "{}", run.stderr);
        run
    }

    pub fn assert_no_secret(&self, output: &[u8]) {
        let text = String::from_utf8_lossy(output).to_lowercase();
        for secret in &self.secrets {
            for piece in secret.windows(secret.len().min(8)) {
                assert!(!contains(output, piece), "key material in the output");
                assert!(!text.contains(&hex(piece)), "key material in hex in the output");
            }
            for shift in 0..3.min(secret.len()) {
                let coded = base64(&secret[shift..]);
                for piece in coded.windows(coded.len().min(12)) {
                    assert!(!contains(output, piece), "key material in base64 in the output");
                }
            }
        }
    }
}

/// A customer's key of some name, which wraps by nothing.
#[derive(Debug)]
pub struct Named(KeyUri);

impl Named {
    pub fn new(uri: &str) -> Arc<Self> {
        Arc::new(Self(uri.parse().unwrap()))
    }
}

impl Kms for Named {
    fn key_uri(&self) -> &KeyUri {
        &self.0
    }

    fn wrap(
        &self,
        key: &SlotKey,
        _context: &WrapContext,
        _deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        Ok(WrappedKey { key_version: String::new(), blob: key.expose().to_vec() })
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        _context: &WrapContext,
        _deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        Ok(SlotKey::from_slice(&wrapped.blob).unwrap())
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Names and contents of a directory, to show that nothing changed.
pub fn image(dir: &Path) -> Vec<(String, Vec<u8>)> {
    names(dir).into_iter().map(|name| (name.clone(), fs::read(dir.join(&name)).unwrap())).collect()
}

pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Without the last, padded group.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let word = u32::from_be_bytes([0, three[0], three[1], three[2]]);
        [18, 12, 6, 0].map(|shift| DIGITS[(word >> shift) as usize & 63])
    };
    bytes.chunks_exact(3).flat_map(group).collect()
}

#[test]
fn the_search_for_secrets_finds_them() {
    let mut bench = Bench::empty();
    let secret: Vec<u8> = (100..164).collect();
    bench.keep_secret(&secret);
    let caught = |output: &[u8]| {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| bench.assert_no_secret(output)))
            .is_err()
    };
    assert!(!caught(b"nothing here"));
    assert!(caught(&secret[20..40]));
    assert!(caught(hex(&secret[31..45]).to_uppercase().as_bytes()));
    for shift in 0..3 {
        assert!(caught(&base64(&secret[10 + shift..40])));
    }
}
