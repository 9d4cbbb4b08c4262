//! A server of S3, `moto`. The tests of other crates include this file.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use object_store::aws::AmazonS3Builder;

/// Time for the server to come up: Python on a loaded machine compiles its modules first.
const START_TIME_MAX: Duration = Duration::from_secs(90);

pub const ACCESS_KEY: &str = "AKIAATRESTTESTS00001";
pub const SECRET_KEY: &str = "Zq3vUo8kX1mPcR5tYw7bLd9fHs2jNg4eTi6aKxVu";

/// A running server on 127.0.0.1, killed when dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    _dir: tempfile::TempDir,
}

/// One server shared by the tests that run at the same time.
static SERVER: Mutex<Weak<Server>> = Mutex::new(Weak::new());

/// The server, or `None` after saying loudly that the test is skipped. With
/// `ATREST_REQUIRE_SERVERS=1` its absence is a failure.
pub fn server(test: &str) -> Option<Arc<Server>> {
    let mut slot = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = slot.upgrade() {
        return Some(server);
    }
    let why = match Server::start() {
        Ok(server) => {
            let server = Arc::new(server);
            *slot = Arc::downgrade(&server);
            return Some(server);
        }
        Err(why) => why,
    };
    drop(slot);
    let required = std::env::var("ATREST_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
    assert!(!required, "{test}: no server of S3: {why}");
    // Straight to standard error: the test harness hides what a passing test prints.
    drop(writeln!(
        std::io::stderr(),
        "\nSKIPPED {test}: no server of S3 (run crates/atrest-kms/tests/servers/install): {why}\n"
    ));
    None
}

/// A port nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

impl Server {
    fn start() -> Result<Self, String> {
        let mut why = String::new();
        // Another process may take the port in between: try again with another.
        for _ in 0..3 {
            match Self::start_once() {
                Ok(server) => return Ok(server),
                Err(reason) => why = reason,
            }
        }
        Err(why)
    }

    fn start_once() -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let port = free_port();
        let servers = std::env::var_os("ATREST_SERVERS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/servers"),
            PathBuf::from,
        );
        let program = servers.join("venv/bin/moto_server");
        let log_path = dir.path().join("log");
        let log = File::create(&log_path).map_err(|e| e.to_string())?;
        let child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| e.to_string())?)
            .stderr(log)
            .spawn()
            .map_err(|e| format!("{} cannot be started: {e}", program.display()))?;
        let mut server = Self { child, port, _dir: dir };
        let start = Instant::now();
        while !server.request("GET", "/moto-api/").is_some_and(|it| it.contains(" 200 ")) {
            let exited = server.child.try_wait().ok().flatten();
            if exited.is_some() || start.elapsed() > START_TIME_MAX {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                return Err(format!("moto did not come up ({exited:?}): {log}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    /// The status line of an answer.
    fn request(&self, method: &str, path: &str) -> Option<String> {
        let address = (Ipv4Addr::LOCALHOST, self.port).into();
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n",
            self.port
        );
        stream.write_all(head.as_bytes()).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(String::from_utf8_lossy(&answer).lines().next()?.to_owned())
    }

    /// Makes a bucket; answers how it is reached.
    pub fn bucket(&self, name: &str) -> AmazonS3Builder {
        let answer = self.request("PUT", &format!("/{name}")).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
        self.reach(name)
    }

    /// How a bucket is reached.
    pub fn reach(&self, name: &str) -> AmazonS3Builder {
        AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_endpoint(format!("http://127.0.0.1:{}", self.port))
            .with_allow_http(true)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
