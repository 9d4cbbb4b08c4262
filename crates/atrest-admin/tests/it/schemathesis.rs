//! The OpenAPI document against the server that it describes, by schemathesis: a real
//! process that makes requests from the document and compares the answers with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use atrest::keyring::AuditKind;
use atrest_admin::{OPENAPI, PlainHttp, Server, Store, router};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::support::{Bench, TOKEN, keys, left_out, spec, state};

/// Requests for each operation; the seed is fixed, so that every run makes the same.
const EXAMPLES_MAX: &str = "40";

/// The program, or why there is none.
fn program() -> Result<PathBuf, String> {
    let dir = std::env::var_os("ATREST_SCHEMATHESIS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/schemathesis"),
        PathBuf::from,
    );
    let program = dir.join("venv/bin/schemathesis");
    match program.exists() {
        true => Ok(program),
        false => Err(format!("{} is missing: run tests/install", program.display())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_keeps_to_its_openapi_document() {
    let program = match program() {
        Ok(program) => program,
        Err(why) if std::env::var_os("ATREST_REQUIRE_SERVERS").is_some() => panic!("{why}"),
        Err(why) => return left_out(&why),
    };
    let bench = Bench::new();
    let (local, cmek) = (bench.key("local"), bench.key("cmek"));
    let keyring = bench.keyring("data", &cmek);
    let stores = vec![Store::of_keyring("eu", keyring.clone())];
    let router = router(state(keys(&[&cmek]), stores).with_local_key(local));
    let address = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(address, None, PlainHttp::LoopbackOnly).await.unwrap();
    let url = format!("http://{}", server.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(server.run(router, async { drop(stopped.await) }));
    // The document's examples name a key that this server allows.
    let mut document: Value = serde_json::from_str(OPENAPI).unwrap();
    for method in ["post", "put"] {
        let example = "requestBody/content/application~1json/example";
        let path = format!("/paths/~1api~1v1~1clusters~1{{cluster_id}}~1cmek/{method}/{example}");
        *document.pointer_mut(&path).unwrap() = spec(&[("eu", &cmek)]);
    }
    std::fs::write(bench.path("openapi.json"), document.to_string()).unwrap();

    // While the store serves; later on it is revoked, and 503 its readiness.
    let health = check(&program, &bench, &url, &["--include-path", "/readyz"]);
    let rest = check(&program, &bench, &url, &["--exclude-path", "/readyz"]);
    let checked = tokio::task::spawn_blocking(move || [run(health), run(rest)]).await.unwrap();
    stop.send(()).unwrap();
    running.await.unwrap();
    for (success, report) in &checked {
        assert!(*success && report.contains("passed"), "{report}");
    }
    // It got as far as the store.
    let history = keyring.status().history;
    for kind in [AuditKind::SlotRewrapped, AuditKind::Revoked, AuditKind::Restored] {
        assert!(history.iter().any(|event| event.what == kind), "no {kind:?}: {}", checked[1].1);
    }
}

fn check(program: &Path, bench: &Bench, url: &str, paths: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["run", "openapi.json", "--url", url])
        .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
        .args(paths)
        .args(["--max-examples", EXAMPLES_MAX, "--seed", "1", "--workers", "1"])
        // What the schema accepts may still be refused: an action in another state.
        .args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"])
        .args(["--phases", "examples,coverage,fuzzing", "--no-color"])
        .args(["--generation-database", "none", "--request-timeout", "60"])
        .args(["--suppress-health-check", "all"])
        .current_dir(bench.path(""));
    command
}

fn run(mut command: Command) -> (bool, String) {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}
