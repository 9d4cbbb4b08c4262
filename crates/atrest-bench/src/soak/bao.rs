//! A real key service: OpenBao in development mode, steered by its own command.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use atrest_soak::Any;
use rustix::process::{Pid, Signal, kill_process};

const ROOT: &str = "root-token-of-the-soak";
const TRIES: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Bao {
    program: PathBuf,
    process: Child,
    address: String,
    ca: PathBuf,
    /// May use the customer's key while the policy says so.
    pub(super) token: String,
    pub(super) uri: String,
}

impl Bao {
    pub(super) fn start(program: &Path, dir: &Path) -> Any<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let log = std::fs::File::create(dir.join("log"))?;
        let mut command = Command::new(program);
        command.args(["server", "-dev", "-dev-tls", "-dev-no-store-token"]);
        command.arg(format!("-dev-tls-cert-dir={}", dir.display()));
        command.arg(format!("-dev-root-token-id={ROOT}"));
        command.arg(format!("-dev-listen-address=127.0.0.1:{port}"));
        command.env("HOME", dir).current_dir(dir).stdin(Stdio::null());
        let process = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        let (address, ca) = (format!("https://127.0.0.1:{port}"), dir.join("vault-ca.pem"));
        let uri = format!("hcvault://127.0.0.1:{port}/transit/keys/customer?ca={}", ca.display());
        let mut bao =
            Self { program: program.into(), process, address, ca, token: String::new(), uri };
        let begun = Instant::now();
        while let Err(error) = bao.call_once(&["status"], "") {
            if begun.elapsed() > PATIENCE {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bao.call(&["secrets", "enable", "transit"], "")?;
        bao.call(&["write", "-f", "transit/keys/customer"], "")?;
        bao.allow(true)?;
        let token = ["-orphan", "-no-default-policy", "-policy=engine", "-field=token"];
        bao.token = bao.call(&[&["token", "create"], &token[..]].concat(), "")?;
        Ok(bao)
    }

    /// Several times, since a busy machine lets its connections time out.
    fn call(&self, arguments: &[&str], input: &str) -> Any<String> {
        let mut called = self.call_once(arguments, input);
        for _ in 0..TRIES {
            if called.is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
            called = self.call_once(arguments, input);
        }
        called
    }

    fn call_once(&self, arguments: &[&str], input: &str) -> Any<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("BAO_ADDR", &self.address).env("BAO_TOKEN", ROOT);
        command.env("BAO_CACERT", &self.ca).env("HOME", "/nonexistent");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().ok_or("no input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("bao {}: {said}", arguments.join(" ")).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Gives the customer's key, or takes it away.
    pub(super) fn allow(&self, yes: bool) -> Any<()> {
        let rule = |path| format!("path \"{path}\" {{ capabilities = [\"update\"] }}\n");
        let policy = if yes {
            rule("transit/encrypt/customer") + &rule("transit/decrypt/customer")
        } else {
            rule("nothing")
        };
        self.call(&["policy", "write", "engine", "-"], &policy).map(drop)
    }

    /// A new version of the customer's key.
    pub(super) fn rotate(&self) -> Any<()> {
        self.call(&["write", "-f", "transit/keys/customer/rotate"], "").map(drop)
    }

    /// Whether it answers nobody: connections hang.
    pub(super) fn hang(&self, yes: bool) -> Any<()> {
        let signal = if yes { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(&self.process), signal)?)
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
