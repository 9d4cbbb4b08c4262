//! A server of S3, `moto`, with a bucket for each test.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use object_store::aws::AmazonS3Builder;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

/// Time for the server to come up: Python on a loaded machine compiles its modules first.
const START_TIME_MAX: Duration = Duration::from_secs(90);

pub const ACCESS_KEY: &str = "AKIAATRESTTESTS00001";
pub const SECRET_KEY: &str = "Zq3vUo8kX1mPcR5tYw7bLd9fHs2jNg4eTi6aKxVu";

/// A running server on 127.0.0.1, killed when dropped.
pub struct Server {
    child: Child,
    port: u16,
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

    /// The environment of a command that uses this server.
    pub fn variables(&self) -> Vec<(String, String)> {
        variables(self.port)
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str) -> Bucket {
        let answer = self.request("PUT", &format!("/{name}")).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
        let store = AmazonS3Builder::new()
            .with_bucket_name(name)
            .with_endpoint(format!("http://127.0.0.1:{}", self.port))
            .with_allow_http(true)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY);
        drop(rustls::crypto::ring::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Bucket { store: Arc::new(store.build().unwrap()), runtime: runtime.unwrap() }
    }
}

pub fn variables(port: u16) -> Vec<(String, String)> {
    let endpoint = format!("http://127.0.0.1:{port}");
    [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_ALLOW_HTTP", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A bucket, as its administrator sees it.
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    runtime: tokio::runtime::Runtime,
}

impl Bucket {
    /// All keys below a prefix, sorted.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        use futures_util::TryStreamExt;
        let prefix = Key::from(prefix);
        let listed = self.store.list(Some(&prefix)).map_ok(|it| it.location.to_string());
        let mut keys: Vec<String> = self.runtime.block_on(listed.try_collect()).unwrap();
        keys.sort();
        keys
    }

    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    pub fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    pub fn get(&self, key: &str) -> Vec<u8> {
        let key = Key::from(key);
        self.runtime
            .block_on(async { self.store.get(&key).await.unwrap().bytes().await })
            .unwrap()
            .into()
    }

    pub fn put(&self, key: &str, bytes: &[u8]) {
        let key = Key::from(key);
        self.runtime.block_on(self.store.put(&key, bytes.to_vec().into())).unwrap();
    }

    pub fn delete(&self, key: &str) {
        self.runtime.block_on(self.store.delete(&Key::from(key))).unwrap();
    }
}
