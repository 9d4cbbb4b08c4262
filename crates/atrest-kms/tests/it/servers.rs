//! Starting, watching and stopping the processes of key services.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) mod admin;
pub(crate) mod aws;
pub(crate) mod azure;
pub(crate) mod certificates;
pub(crate) mod gcp;
pub(crate) mod http;
pub(crate) mod metadata;
pub(crate) mod openbao;
pub(crate) mod proxy;
pub(crate) mod pykmip;
pub(crate) mod softhsm;

/// Time for a server to come up: Python on a loaded machine compiles its modules first.
const START_TIME_MAX: Duration = Duration::from_secs(90);

/// A running server on 127.0.0.1, killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) port: u16,
    pub(crate) dir: TempDir,
}

impl Process {
    /// Starts `command` (made for a free port and a fresh directory) and waits until
    /// `ready`. The error says what the server last printed.
    pub(crate) fn start(
        name: &str,
        command: impl Fn(u16, &Path) -> Command,
        ready: impl Fn(u16, &Path) -> bool,
    ) -> Result<Self, String> {
        let mut reason = String::new();
        // Another process may take the port in between: try again with another.
        for _ in 0..3 {
            match Self::start_once(name, &command, &ready) {
                Ok(process) => return Ok(process),
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    fn start_once(
        name: &str,
        command: &impl Fn(u16, &Path) -> Command,
        ready: &impl Fn(u16, &Path) -> bool,
    ) -> Result<Self, String> {
        let dir = TempDir::new().map_err(|e| format!("{name}: {e}"))?;
        let port = free_port();
        let log_path = dir.path().join("log");
        let log = File::create(&log_path).map_err(|e| format!("{name}: {e}"))?;
        let child = command(port, dir.path())
            // PyKMIP has a child of its own, which would outlive it.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("{name} cannot be started: {e}"))?;
        let mut process = Self { child, port, dir };
        let start = Instant::now();
        while !ready(port, process.dir.path()) {
            let exited = process.child.try_wait().ok().flatten();
            if exited.is_some() || start.elapsed() > START_TIME_MAX {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(8).collect();
                let mut why = format!("{name} did not come up on port {port} ({exited:?}):");
                for line in tail.iter().rev() {
                    why += &format!("\n    {line}");
                }
                return Err(why);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(process)
    }

    /// What the server printed so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Stops the process without ending it: connections open and nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").arg(signal).arg(self.child.id().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill {signal}");
    }

    /// Kills the process and its children.
    pub(crate) fn kill(&mut self) {
        let group = format!("-{}", self.child.id());
        drop(Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status());
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address").port()
}

/// Whether something accepts connections.
pub(crate) fn accepts(port: u16) -> bool {
    let address = (Ipv4Addr::LOCALHOST, port).into();
    TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok()
}

/// Where `tests/servers/install` puts the servers.
pub(crate) fn install_dir() -> PathBuf {
    match std::env::var_os("ATREST_SERVERS") {
        Some(dir) => dir.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers"),
    }
}

/// A program of the tests' Python environment.
pub(crate) fn python_program(name: &str) -> Command {
    Command::new(install_dir().join("venv/bin").join(name))
}

/// A script of `tests/servers`, run by the tests' Python.
pub(crate) fn script(name: &str) -> Command {
    let mut command = python_program("python");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(name));
    command
}

/// The server, or `None` after saying loudly that this suite is skipped. With
/// `ATREST_REQUIRE_SERVERS=1` its absence is a failure.
pub(crate) fn require<T>(suite: &str, started: Result<T, String>) -> Option<T> {
    let why = match started {
        Ok(server) => return Some(server),
        Err(why) => why,
    };
    let required = std::env::var("ATREST_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
    assert!(!required, "{suite}: the server did not start: {why}");
    // Straight to standard error: the test harness hides what a passing test prints.
    drop(writeln!(
        std::io::stderr(),
        "\nSKIPPED {suite}: the server did not start (run tests/servers/install): {why}\n"
    ));
    None
}

/// One server shared by the tests that run at the same time, stopped with the last.
#[derive(Debug)]
pub(crate) struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    pub(crate) fn get(&self, start: impl FnOnce() -> Result<T, String>) -> Result<Arc<T>, String> {
        let mut slot = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(server) = slot.upgrade() {
            return Ok(server);
        }
        let server = Arc::new(start()?);
        *slot = Arc::downgrade(&server);
        Ok(server)
    }
}
