//! `atrest serve`, as a process.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::Bench;

const TOKEN: &str = "a-token-of-the-tests";

fn with_token(mode: u32) -> Bench {
    let mut bench = Bench::new();
    bench.write("token", TOKEN.as_bytes());
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(bench.path("token"), permissions).unwrap();
    bench.keep_secret(TOKEN.as_bytes());
    bench
}

/// A server, killed when dropped.
struct Serving {
    child: Child,
    address: String,
}

impl Serving {
    fn start(bench: &Bench) -> Self {
        Self::start_with(bench, &[])
    }

    fn start_with(bench: &Bench, more: &[&str]) -> Self {
        let args = ["serve", "data", "--listen", "127.0.0.1:0", "--token-file", "token", "--json"];
        let args = [&args, more].concat();
        let mut child = bench.command(&args).stdout(Stdio::piped()).spawn().unwrap();
        let mut report = String::new();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while !report.ends_with("}\n") || serde_json::from_str::<Value>(&report).is_err() {
            report += &lines.next().expect("a report").unwrap();
            report.push('\n');
        }
        let report: Value = serde_json::from_str(&report).unwrap();
        let listening = report["listening"].as_str().unwrap();
        let address = listening.strip_prefix("http://").unwrap().to_owned();
        Self { child, address }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n\
             {body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn another_store_and_an_older_keyring_are_not_served() {
    let bench = with_token(0o600);
    let old = bench.read("data/KEYRING");
    bench.good(&["rotate", "data-key", "data"]);
    let status = bench.json(&["status", "data"]);
    let (id, anchor) = (status["store_id"].as_str().unwrap(), status["anchor"].as_str().unwrap());
    let serve = |pins: &[&str]| {
        let args = ["serve", "data", "--listen", "127.0.0.1:0", "--token-file", "token"];
        [&args, pins].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let bad = |code, kind, pins: &[&str]| {
        let args = serve(pins);
        bench.bad(code, kind, &args.iter().map(String::as_str).collect::<Vec<_>>());
    };
    let another = "00112233445566778899aabbccddeeff";
    bad(5, "identity-mismatch", &["--store-id", another]);
    bad(5, "identity-mismatch", &["--anchor", &anchor.replace(id, another)]);
    bad(2, "invalid-argument", &["--anchor", id]);
    bad(2, "invalid-argument", &["--anchor", &format!("eu={anchor}")]);
    // A good one is served.
    drop(Serving::start_with(&bench, &["--anchor", anchor, "--store-id", id]));
    // The keyring of before, with all that would show it taken away.
    for name in bench.names("data") {
        std::fs::remove_file(bench.path("data").join(name)).unwrap();
    }
    bench.write("data/KEYRING", &old);
    bad(5, "keyring-rolled-back", &["--anchor", anchor]);
}

#[test]
fn a_served_store_is_revoked_restored_and_closed_on_sigterm() {
    let bench = with_token(0o600);
    let mut serving = Serving::start(&bench);
    let path = "/api/v1/clusters/default/cmek";
    let answer = serving.ask("GET", path, "");
    assert!(answer.contains("\"status\":\"ENABLED\""), "{answer}");
    let answer = serving.ask("PATCH", path, "{\"action\":\"REVOKE\"}");
    assert!(answer.contains("\"status\":\"REVOKED\""), "{answer}");
    let ready = serving.ask("GET", "/readyz", "");
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.ends_with("revoked\n"), "{ready}");
    // Another process would not serve it either.
    assert!(serving.ask("GET", "/livez", "").starts_with("HTTP/1.1 200 "));
    assert_ne!(bench.run(&["status", "data", "--cmek", &bench.uri("cmek.key")]).code, 0);
    let answer = serving.ask("PATCH", path, "{\"action\":\"RESTORE\"}");
    assert!(answer.contains("\"status\":\"ENABLED\""), "{answer}");
    let metrics = serving.ask("GET", "/metrics", "");
    assert!(metrics.contains("atrest_kms_call_seconds_count{scheme=\"file\""), "{metrics}");

    let pid = serving.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(serving.child.wait().unwrap().code(), Some(0));
    drop(bench.good(&["rotate", "data-key", "data"]));
}

#[test]
fn a_store_without_its_keyring_is_not_served_as_a_new_one() {
    let bench = with_token(0o600);
    bench.good(&["rotate", "data-key", "data"]);
    std::fs::remove_file(bench.path("data/KEYRING")).unwrap();
    let serve = ["serve", "data", "--listen", "127.0.0.1:0", "--token-file", "token"];
    bench.bad(7, "keyring-missing", &serve);
    let run = bench.run(&serve);
    assert!(run.stderr.contains("atrest recover data"), "{}", run.stderr);
}

#[test]
fn a_mirrored_store_is_served_with_its_mirror() {
    let mut bench = with_token(0o600);
    bench.keygen("new.key");
    std::fs::create_dir(bench.path("mirror")).unwrap();
    bench.good(&["rotate", "data-key", "data", "--mirror", "mirror"]);
    let serve = ["serve", "data", "--listen", "127.0.0.1:0", "--token-file", "token"];
    for (code, kind, mirrors, says) in [
        (2, "invalid-argument", &["eu=mirror"][..], "found eu"),
        (2, "invalid-argument", &["default=mirror", "mirror"], "found two for default"),
        (2, "invalid-argument", &["s3://bucket/mirror?a=b"], "found a URI"),
        (2, "invalid-argument", &["default=file:///mirror"], "found a URI"),
        (7, "io-not-found", &["nowhere"], "the mirror"),
    ] {
        let options: Vec<_> = mirrors.iter().flat_map(|mirror| ["--mirror", mirror]).collect();
        let refused = bench.bad(code, kind, &[&serve[..], &options].concat());
        assert!(refused.stderr.contains(says), "{mirrors:?}: {}", refused.stderr);
    }
    let several = ["eu=data", "us=data", "--mirror", "mirror"];
    let refused =
        bench.bad(2, "invalid-argument", &[&["serve"][..], &several, &serve[2..]].concat());
    assert!(refused.stderr.contains("expected REGION=DIR"), "{}", refused.stderr);

    let (own, new) = (bench.uri("cmek.key"), bench.uri("new.key"));
    let spec = serde_json::json!({
        "region_specs": [{ "region": "default", "key_spec": { "type": "FILE", "uri": new } }],
    });
    let put = |more: &[&str]| {
        let serving =
            Serving::start_with(&bench, &[&["--cmek", &own, "--cmek", &new][..], more].concat());
        serving.ask("PUT", "/api/v1/clusters/default/cmek", &spec.to_string())
    };
    let answer = put(&[]);
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("mirror"), "{answer}");
    let answer = put(&["--mirror", "mirror"]);
    assert!(answer.contains("\"status\":\"ENABLED\""), "{answer}");
    assert_eq!(bench.read("mirror/KEYRING"), bench.read("data/KEYRING"));
    bench.good(&["status", "data", "--cmek", &new]);
}

#[test]
fn what_would_show_the_token_is_refused() {
    let bench = with_token(0o644);
    let run = bench.run(&["serve", "data", "--listen", "127.0.0.1:0", "--token-file", "token"]);
    assert_ne!(run.code, 0);
    assert!(run.stderr.contains("mode 0600"), "{}", run.stderr);

    let bench = with_token(0o600);
    let run = bench.run(&["serve", "data", "--listen", "0.0.0.0:0", "--token-file", "token"]);
    assert_ne!(run.code, 0);
    assert!(run.stderr.contains("--tls-cert"), "{}", run.stderr);
    let run = bench.run(&["serve", "data", "--listen", "127.0.0.1:0"]);
    assert!(run.stderr.contains("--token-file"), "{}", run.stderr);
}

/// A key in a place that is not there at times, as a mount of another machine: what the system
/// says then is no answer about the key.
struct AwayKey<'a>(&'a Bench);

impl<'a> AwayKey<'a> {
    fn new(bench: &'a Bench) -> Self {
        std::fs::create_dir(bench.path("mount")).unwrap();
        std::fs::copy(bench.path("cmek.key"), bench.path("mount/cmek.key")).unwrap();
        let permissions = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(bench.path("mount/cmek.key"), permissions).unwrap();
        bench.good(&["rotate", "cmek", "data", "--new-cmek", &bench.uri("mount/cmek.key")]);
        Self(bench)
    }

    fn uri(&self) -> String {
        self.0.uri("mount/cmek.key")
    }

    fn go(&self) {
        std::fs::rename(self.0.path("mount"), self.0.path("away")).unwrap();
        std::os::unix::fs::symlink("mount", self.0.path("mount")).unwrap();
    }

    fn come(&self) {
        std::fs::remove_file(self.0.path("mount")).unwrap();
        std::fs::rename(self.0.path("away"), self.0.path("mount")).unwrap();
    }
}

#[test]
fn a_start_while_the_key_service_is_away_waits_when_told_to() {
    let bench = with_token(0o600);
    let key = AwayKey::new(&bench);
    let uri = key.uri();
    key.go();
    let rotate = ["rotate", "data-key", "data", "--cmek", &uri];
    bench.bad(4, "kms-unreachable", &rotate);
    let waiting = [&rotate[..], &["--wait-for-cmek", "1s"]].concat();
    bench.bad(4, "kms-unreachable", &waiting);

    let waiting = [&rotate[..], &["--wait-for-cmek", "10m"]].concat();
    let mut child = bench.command(&waiting).stdout(Stdio::piped()).spawn().unwrap();
    // Long enough for a command that does not wait to end.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert!(child.try_wait().unwrap().is_none(), "it did not wait");
    key.come();
    assert!(child.wait().unwrap().success());

    key.go();
    let more = ["--cmek", &uri, "--wait-for-cmek", "10m"];
    let serving = std::thread::scope(|scope| {
        let starting = scope.spawn(|| Serving::start_with(&bench, &more));
        std::thread::sleep(std::time::Duration::from_secs(1));
        assert!(!starting.is_finished(), "it served without a key");
        key.come();
        starting.join().unwrap()
    });
    assert!(serving.ask("GET", "/readyz", "").starts_with("HTTP/1.1 200 "));
}
