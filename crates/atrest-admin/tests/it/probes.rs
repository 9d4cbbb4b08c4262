//! Liveness and readiness: what each says of a store that does not serve.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use atrest::Keyring;
use atrest::kms::KmsErrorKind;
use atrest_admin::{Store, router};
use axum::Router;

use crate::support::{Bench, Scripted, act, get, keys, left_out, state};

/// The body of `/readyz`, and that the process lives whatever it is.
async fn ready(router: &Router) -> (u16, String) {
    let alive = get(router, "/livez").await;
    assert_eq!((alive.status.as_u16(), alive.text.as_str()), (200, "ok\n"));
    let ready = get(router, "/readyz").await;
    (ready.status.as_u16(), ready.text.trim_end().to_owned())
}

fn is(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

/// A served directory, and its keyring.
fn served(path: &Path, kms: &Arc<Scripted>) -> (Router, Keyring) {
    let store = Store::in_directory("eu", path, None, vec![kms.clone()], Bench::options()).unwrap();
    let keyring = store.keyring().expect("an open store");
    (router(state(keys(&[kms]), vec![store])), keyring)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_not_to_serve_has_its_word() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    drop(bench.keyring("data", &cmek));
    let (router, keyring) = served(&bench.path("data"), &cmek);
    let access = || drop(keyring.access().check_now());
    assert_eq!(ready(&router).await, is(200, "ok"));
    for (kind, word) in [
        (KmsErrorKind::Unreachable, "grace"),
        (KmsErrorKind::Unauthenticated, "grace"),
        (KmsErrorKind::AccessDenied, "suspect"),
    ] {
        cmek.fail(Some(kind));
        access();
        assert_eq!(ready(&router).await, is(200, word), "{kind}");
        cmek.fail(None);
        access();
    }
    act(&router, "REVOKE").await.shows("REVOKED");
    assert_eq!(ready(&router).await, is(503, "revoked"));
    act(&router, "RESTORE").await.shows("ENABLED");
    assert_eq!(ready(&router).await, is(200, "ok"));
    std::fs::rename(bench.path("data"), bench.path("elsewhere")).unwrap();
    assert_eq!(ready(&router).await, is(503, "directory gone"));
    std::fs::write(bench.path("data"), "a file").unwrap();
    assert_eq!(ready(&router).await, is(503, "directory gone"));
    std::fs::remove_file(bench.path("data")).unwrap();
    std::fs::rename(bench.path("elsewhere"), bench.path("data")).unwrap();
    assert_eq!(ready(&router).await, is(200, "ok"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_did_not_open_is_told_by_its_key_service() {
    for (kind, word) in [
        (KmsErrorKind::Unreachable, "suspended"),
        (KmsErrorKind::Unauthenticated, "suspended"),
        (KmsErrorKind::AccessDenied, "revoked"),
        (KmsErrorKind::KeyDisabled, "disabled"),
        (KmsErrorKind::NotFound, "destroyed"),
    ] {
        let bench = Bench::new();
        let cmek = bench.key("cmek");
        drop(bench.keyring("data", &cmek));
        cmek.fail(Some(kind));
        let (dir, options) = (bench.path("data"), Bench::options());
        let open = Store::in_directory("eu", dir, None, vec![cmek.clone()], options);
        let router = router(state(keys(&[&cmek]), vec![open.unwrap()]));
        assert_eq!(ready(&router).await, is(503, word), "{kind}");
    }
}

/// Looks that hang as on a disk that does: many may come, and there is one at a time.
#[tokio::test(flavor = "multi_thread")]
async fn looks_that_hang_take_one_thread_and_keep_no_revocation_out() {
    for path in ["/readyz", "/metrics"] {
        let bench = Bench::new();
        let cmek = bench.key("cmek");
        drop(bench.keyring("data", &cmek));
        let (router, keyring) = served(&bench.path("data"), &cmek);
        let held = cmek.hold();
        let look = async |router: Router| get(&router, path).await.status.as_u16();
        let looks: Vec<_> = (0..50).map(|_| tokio::spawn(look(router.clone()))).collect();
        while cmek.asking() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(cmek.asking(), 1, "{path}");
        let revoking = tokio::spawn({
            let router = router.clone();
            async move { act(&router, "REVOKE").await }
        });
        let gone = async {
            while keyring.keys().active_id().is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gone).await.expect("no key in memory");
        drop(held);
        for look in looks {
            assert!(matches!(look.await.unwrap(), 200 | 503), "{path}");
        }
        revoking.await.unwrap().shows("REVOKED");
        // The next look is a new one.
        assert_eq!(ready(&router).await, is(503, "revoked"));
    }
}

/// A small file system, taken away when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        std::fs::create_dir(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(at)
            .status()
            .is_ok_and(|status| status.success());
        mounted.then_some(Self(at))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_told() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    let at = bench.path("disk");
    let Some(_disk) = Disk::mount(&at) else {
        return left_out("this user may not mount a file system");
    };
    drop(bench.keyring("disk/data", &cmek));
    let (router, _) = served(&at.join("data"), &cmek);
    assert_eq!(ready(&router).await, is(200, "ok"));
    let full = std::fs::write(at.join("filler"), vec![7; 2 << 20]);
    assert!(full.is_err(), "the disk holds more than expected");
    assert_eq!(ready(&router).await, is(503, "disk full"));
    // Worse than a full disk.
    act(&router, "REVOKE").await;
    assert_eq!(ready(&router).await, is(503, "revoked"));
    std::fs::remove_file(at.join("filler")).unwrap();
    act(&router, "RESTORE").await.shows("ENABLED");
    assert_eq!(ready(&router).await, is(200, "ok"));
}
