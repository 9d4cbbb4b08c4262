//! A process that may start no more threads, as in a container at its limit.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use atrest_admin::{Store, router};
use rustix::process::{Resource, Rlimit, geteuid, getrlimit, setrlimit};

use crate::support::{Bench, act, keys, left_out, state};

const CHILD: &str = "ATREST_THREADS_CHILD";
/// A user that has no process of its own, whose threads would count.
const NOBODY_ELSE: u32 = 54_321;

#[test]
fn a_revocation_reaches_every_store_without_a_new_thread() {
    let dir = tempfile::tempdir().unwrap();
    // Root has no limit, and another user cannot run what lies in root's directories.
    let program = dir.path().join("it");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut child = Command::new(&program);
    child.args(["threads::child", "--exact", "--nocapture", "--test-threads", "1"]);
    child.env(CHILD, "1").env("TMPDIR", dir.path());
    if geteuid().is_root() {
        if chown(dir.path(), Some(NOBODY_ELSE), Some(NOBODY_ELSE)).is_err() {
            return left_out("root of a user namespace that has no other user");
        }
        child.uid(NOBODY_ELSE).gid(NOBODY_ELSE);
    }
    let output = child.current_dir(dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "{text}");
}

/// Runs as a test of its own, which does nothing by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    let regions = ["a", "b", "c", "d"];
    let rings = regions.map(|region| bench.keyring(region, &cmek));
    let stores = rings.iter().zip(regions);
    let stores = stores.map(|(ring, region)| Store::of_keyring(region, ring.clone())).collect();
    let router = router(state(keys(&[&cmek]), stores));
    let without = getrlimit(Resource::Nproc);
    for more in 0..4 {
        let threads = Path::new("/proc/self/task").read_dir().unwrap().count();
        let current = Some(threads as u64 + more);
        setrlimit(Resource::Nproc, Rlimit { current, maximum: without.maximum }).unwrap();
        let answer = act(&router, "REVOKE").await;
        let gone = rings.each_ref().map(|ring| ring.keys().active_id().is_err());
        // The limit also counts the threads of other processes of the user.
        setrlimit(Resource::Nproc, without).unwrap();
        assert_eq!(gone, [true; 4], "{more} threads more: {}", answer.text);
        answer.shows("REVOKED");
        act(&router, "RESTORE").await.shows("ENABLED");
    }
}
