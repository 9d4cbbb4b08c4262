//! Several regions: as slots of one store, and as stores of their own; stores that a
//! server opens itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::{DirectoryStorage, KeyringStorage as _};
use atrest::kms::{Kms as _, KmsErrorKind};
use atrest::{ErrorKind, FileKind, Keyring};
use atrest_admin::{AdminState, Store, Token, router};
use axum::Router;

use crate::support::{Bench, PATH, Scripted, TOKEN, act, call, get, keys, one, spec, state};

#[tokio::test(flavor = "multi_thread")]
async fn a_region_is_added_to_a_store_in_use() {
    let bench = Bench::new();
    let (eu, us) = (bench.key("eu"), bench.key("us"));
    let (router, keyring) = one(&bench, &eu, &[&us]);
    let body = call(&router, "PUT", spec(&[("us", &us)])).await.shows("ENABLED");
    let regions = body["region_infos"].as_array().unwrap();
    let names: Vec<_> = regions.iter().map(|info| info["region"].as_str().unwrap()).collect();
    assert_eq!(names, ["eu", "us"]);
    assert_eq!(keyring.slots().list()[1].name, "us");
    // One key cannot be two regions'.
    call(&router, "PUT", spec(&[("us", &eu)])).await.refuses(400, 3);
    let body = get(&router, PATH).await.json();
    assert_eq!(body["region_infos"][0]["status"], "ENABLED");
    assert_eq!(body["region_infos"][1]["status"], "ROTATE_FAILED");
    act(&router, "REVOKE").await.shows("REVOKED");
    act(&router, "RESTORE").await.shows("ENABLED");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_store_of_a_cluster_is_a_region() {
    let bench = Bench::new();
    let (local, eu, us) = (bench.key("local"), bench.key("eu"), bench.key("us"));
    let (eu_ring, us_ring) = (bench.keyring("a", &local), bench.keyring("b", &local));
    let stores =
        vec![Store::of_keyring("eu", eu_ring.clone()), Store::of_keyring("us", us_ring.clone())];
    let router = router(state(keys(&[&eu, &us]), stores).with_local_key(local));
    // Each store has to be named, and nothing else can be.
    call(&router, "POST", spec(&[("eu", &eu)])).await.refuses(400, 3);
    let message = call(&router, "POST", spec(&[("eu", &eu), ("asia", &us)])).await.refuses(400, 3);
    assert!(message.contains("asia") && message.contains("eu, us"), "{message}");
    get(&router, PATH).await.shows("DISABLED");

    call(&router, "POST", spec(&[("eu", &eu), ("us", &us)])).await.shows("ENABLED");
    assert_eq!(eu_ring.slots().list()[0].key_uri, eu.key_uri().as_str());
    assert_eq!(us_ring.slots().list()[0].key_uri, us.key_uri().as_str());

    // One region's key service denies: the cluster shows the worst of its regions.
    us_ring.access().revoke().unwrap();
    let body = get(&router, PATH).await.json();
    assert_eq!(body["status"], "REVOKED");
    assert_eq!(body["region_infos"][0]["status"], "ENABLED");
    assert_eq!(body["region_infos"][1]["status"], "REVOKED");
    // A revocation reaches every store, and so does a restoration.
    act(&router, "REVOKE").await.shows("REVOKED");
    assert!(eu_ring.keys().active_id().is_err());
    act(&router, "RESTORE").await.shows("ENABLED");
    act(&router, "DISABLE").await.shows("DISABLED");
}

fn served(bench: &Bench, kms: &Arc<Scripted>) -> Router {
    let dir = bench.path("data");
    let store = Store::in_directory("eu", dir, None, vec![kms.clone()], Bench::options()).unwrap();
    router(state(keys(&[kms]), vec![store]))
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_mirrored_store_are_changed_with_its_mirror_alone() {
    let bench = Bench::new();
    let (old, new, local) = (bench.key("old"), bench.key("new"), bench.key("local"));
    let (dir, mirror) = (bench.path("data"), bench.path("mirror"));
    for path in [&dir, &mirror] {
        std::fs::create_dir(path).unwrap();
    }
    let storage = DirectoryStorage::new(&dir).with_mirror(&mirror);
    drop(Keyring::create(storage, old.clone(), Bench::options()).unwrap());
    let served = |mirror: Option<PathBuf>| {
        let store = Store::in_directory("eu", &dir, mirror, vec![old.clone()], Bench::options());
        let state = state(keys(&[&old, &new]), vec![store.unwrap()]);
        router(state.with_local_key(local.clone()))
    };
    let image = |dir: &Path| std::fs::read(dir.join("KEYRING")).unwrap();
    let before = image(&dir);

    let without = served(None);
    for kms in [&new, &old] {
        let message = call(&without, "PUT", spec(&[("eu", kms)])).await.refuses(400, 3);
        assert!(message.contains("mirror"), "{message}");
    }
    let message = act(&without, "DISABLE").await.refuses(400, 3);
    assert!(message.contains("mirror"), "{message}");
    drop(without);
    assert!(image(&dir) == before && image(&mirror) == before);

    let with = served(Some(mirror.clone()));
    // Another key, and the same one wrapped anew.
    for kms in [&new, &new] {
        call(&with, "PUT", spec(&[("eu", kms)])).await.shows("ENABLED");
        assert_eq!(image(&mirror), image(&dir));
    }
    act(&with, "DISABLE").await.shows("DISABLED");
    assert_eq!(image(&mirror), image(&dir));
    assert_ne!(image(&dir), before);
}

#[test]
fn a_mirror_has_to_be_a_directory_before_there_is_a_keyring() {
    let bench = Bench::new();
    let (dir, cmek) = (bench.path("data"), bench.key("cmek"));
    std::fs::create_dir(&dir).unwrap();
    for (mirror, kind) in [
        ("nowhere", ErrorKind::Io(std::io::ErrorKind::NotFound)),
        ("cmek", ErrorKind::InvalidArgument),
    ] {
        let mirror = Some(bench.path(mirror));
        let opened = Store::in_directory("eu", &dir, mirror, vec![cmek.clone()], Bench::options());
        assert_eq!(opened.unwrap_err().kind(), kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_enabled_and_stays_revoked_over_a_restart() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    std::fs::create_dir(bench.path("data")).unwrap();
    let router = served(&bench, &cmek);
    get(&router, PATH).await.shows("DISABLED");
    assert_eq!(get(&router, "/readyz").await.status.as_u16(), 200);
    cmek.fail(Some(KmsErrorKind::Unreachable));
    call(&router, "POST", spec(&[("eu", &cmek)])).await.refuses(503, 14);
    get(&router, PATH).await.shows("ENABLE_FAILED");
    cmek.fail(None);
    call(&router, "POST", spec(&[("eu", &cmek)])).await.shows("ENABLED");
    act(&router, "REVOKE").await.shows("REVOKED");
    drop(router);

    let router = served(&bench, &cmek);
    let body = get(&router, PATH).await.shows("REVOKED");
    let message = body["region_infos"][0]["key_infos"][0]["user_message"].as_str().unwrap();
    assert!(message.contains("withdrawn on request"), "{message}");
    assert_eq!(get(&router, "/readyz").await.status.as_u16(), 503);
    cmek.fail(Some(KmsErrorKind::KeyDisabled));
    act(&router, "RESTORE").await.refuses(400, 9);
    cmek.fail(None);
    act(&router, "RESTORE").await.shows("ENABLED");
    drop(router);
    let storage = DirectoryStorage::new(bench.path("data"));
    drop(Keyring::open(storage, cmek, Bench::options()).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_key_service_refuses_can_still_be_revoked() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    drop(bench.keyring("data", &cmek));
    cmek.fail(Some(KmsErrorKind::Unreachable));
    let router = served(&bench, &cmek);
    get(&router, PATH).await.shows("REVOKED");
    let metrics = get(&router, "/metrics").await.text;
    let line = "atrest_access_state{cluster=\"orders\",region=\"eu\",state=\"suspended\"} 1\n";
    assert!(metrics.contains(line), "{metrics}");
    act(&router, "REVOKE").await.shows("REVOKED");
    cmek.fail(None);
    drop(router);
    let storage = DirectoryStorage::new(bench.path("data"));
    let refused = Keyring::open(storage, cmek, Bench::options()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CmekRevoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_lost_its_keyring_is_not_begun_anew() {
    let bench = Bench::new();
    let cmek = bench.key("cmek");
    let dir = bench.path("data");
    std::fs::create_dir(&dir).unwrap();
    let store = atrest::Store::create(&*dir, cmek.clone(), Bench::options()).unwrap();
    let mut file = store.files().create_new(dir.join("table"), FileKind::Table).unwrap();
    file.append(b"a block").unwrap();
    file.finish().unwrap();
    store.keys().rotate().unwrap();
    drop(store);
    std::fs::remove_file(dir.join("KEYRING")).unwrap();

    // An older image is left.
    assert!(dir.join("KEYRING.1").exists());
    let opened = Store::in_directory("eu", &dir, None, vec![cmek.clone()], Bench::options());
    let refused = opened.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::KeyringMissing);
    assert!(refused.to_string().contains("older images exist: 1"), "{refused}");

    // Only its file is.
    std::fs::remove_file(dir.join("KEYRING.1")).unwrap();
    let router = served(&bench, &cmek);
    let message = call(&router, "POST", spec(&[("eu", &cmek)])).await.refuses(400, 9);
    assert!(message.contains("a file is encrypted under that of store"), "{message}");
    get(&router, PATH).await.shows("ENABLE_FAILED");
    assert!(!dir.join("KEYRING").exists());
}

#[test]
fn ids_and_regions_are_checked() {
    let bench = Bench::new();
    let keyring = bench.keyring("data", &bench.key("cmek"));
    let store = |region: &str| Store::of_keyring(region, keyring.clone());
    let state = || AdminState::new(Token::new(TOKEN).unwrap(), keys(&[]));
    for (id, stores) in [
        ("", vec![store("eu")]),
        ("a/b", vec![store("eu")]),
        ("a", vec![]),
        ("a", vec![store("")]),
        ("a", vec![store("e u")]),
        ("a", vec![store("eu"), store("eu")]),
    ] {
        let refused = state().with_cluster(id, stores).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    }
    let twice = state().with_cluster("a", vec![store("eu")]).unwrap();
    drop(twice.with_cluster("a", vec![store("eu")]).unwrap_err());
    for path in ["nowhere", "cmek"] {
        let opened = Store::in_directory("eu", bench.path(path), None, vec![], Bench::options());
        drop(opened.unwrap_err());
    }
}

/// A cluster of stores in directories, which the server opens itself.
fn in_directories(
    bench: &Bench,
    stores: &[(&str, &Arc<Scripted>)],
    recovery_interval: Duration,
) -> AdminState {
    let known: Vec<_> = stores.iter().map(|(_, kms)| *kms).collect();
    let opened = stores.iter().map(|(name, kms)| {
        let mut options = Bench::options();
        options.access.recovery_interval = recovery_interval;
        Store::in_directory(*name, bench.path(name), None, vec![(*kms).clone()], options).unwrap()
    });
    state(keys(&known), opened.collect())
}

/// In a runtime with one thread for all that blocks.
fn with_one_blocking_thread(test: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(2).max_blocking_threads(1).enable_all();
    runtime.build().unwrap().block_on(test);
}

#[test]
fn a_revocation_does_not_wait_for_a_restoration_that_hangs() {
    with_one_blocking_thread(revoke_beside_a_restoration_that_hangs());
}

async fn revoke_beside_a_restoration_that_hangs() {
    let bench = Bench::new();
    let (eu, us) = (bench.key("k1"), bench.key("k2"));
    drop((bench.keyring("eu", &eu), bench.keyring("us", &us)));
    eu.fail(Some(KmsErrorKind::AccessDenied));
    let stores = [("eu", &eu), ("us", &us)];
    let router = router(in_directories(&bench, &stores, Duration::from_secs(3600)));
    let status = |body: &serde_json::Value, at: usize| body["region_infos"][at]["status"].clone();
    let body = get(&router, PATH).await.json();
    assert_eq!((status(&body, 0), status(&body, 1)), ("REVOKED".into(), "ENABLED".into()));

    // The first store's key service stops answering in the middle of its opening.
    eu.fail(None);
    let held = eu.hold();
    let restoring = tokio::spawn({
        let router = router.clone();
        async move { act(&router, "RESTORE").await }
    });
    eu.wait_for_call();
    // And so does what else is in the engine: nothing of it may be in the way.
    let (hanging, never) = std::sync::mpsc::channel::<()>();
    let hangs = tokio::task::spawn_blocking(move || never.recv());
    let revoked = tokio::time::timeout(Duration::from_secs(60), act(&router, "REVOKE"));
    revoked.await.expect("an answer while the key service hangs");
    let body = get(&router, PATH).await.json();
    assert_eq!(status(&body, 1), "REVOKED", "{body}");

    // The hanging one ends without keys.
    drop((held, hanging));
    drop(hangs.await);
    drop(restoring.await.unwrap());
    let body = get(&router, PATH).await.json();
    assert_eq!(
        (status(&body, 0), status(&body, 1)),
        ("REVOKED".into(), "REVOKED".into()),
        "{body}"
    );
    let storage = DirectoryStorage::new(bench.path("eu"));
    drop(router);
    let refused = Keyring::open_read_only(storage, eu.clone(), Bench::options()).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::CmekRevoked);
}

/// Waits until the cluster's answer contains `text`.
async fn until(router: &Router, text: &str) {
    for _ in 0..500 {
        if get(router, PATH).await.text.contains(text) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("no {text} in {}", get(router, PATH).await.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_comes_back_with_its_key_service_but_not_after_a_revocation() {
    let bench = Bench::new();
    let cmek = bench.key("k");
    drop(bench.keyring("eu", &cmek));
    cmek.fail(Some(KmsErrorKind::Unreachable));
    let router = router(in_directories(&bench, &[("eu", &cmek)], Duration::from_millis(20)));
    get(&router, PATH).await.shows("REVOKED");
    cmek.fail(None);
    until(&router, "\"status\":\"ENABLED\"").await;
    get(&router, PATH).await.shows("ENABLED");
    act(&router, "REVOKE").await.shows("REVOKED");
    tokio::time::sleep(Duration::from_millis(200)).await;
    get(&router, PATH).await.shows("REVOKED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_comes_back_though_something_else_failed_meanwhile() {
    for hidden in [true, false] {
        let bench = Bench::new();
        let (cmek, local) = (bench.key("k"), bench.key("local"));
        drop(bench.keyring("eu", &cmek));
        cmek.fail(Some(KmsErrorKind::Unreachable));
        let state = in_directories(&bench, &[("eu", &cmek)], Duration::from_millis(20));
        let router = router(state.with_local_key(local));
        let (dir, away) = (bench.path("eu"), bench.path("away"));
        let busy = DirectoryStorage::new(&dir);
        let (text, code) = if hidden {
            std::fs::rename(&dir, &away).unwrap();
            ("the keyring cannot be locked", (500, 13))
        } else {
            // A try to open it has the lock now and then.
            while busy.lock().is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            ("another process has the store open for writing", (409, 10))
        };
        until(&router, text).await;
        act(&router, "RESTORE").await.refuses(code.0, code.1);
        get(&router, PATH).await.shows("REVOKED");
        let metrics = get(&router, "/metrics").await.text;
        let line = "atrest_access_state{cluster=\"orders\",region=\"eu\",state=\"suspended\"} 1\n";
        assert!(metrics.contains(line), "{metrics}");
        drop(busy);
        if hidden {
            std::fs::rename(&away, &dir).unwrap();
        }
        cmek.fail(None);
        until(&router, "\"status\":\"ENABLED\"").await;
        get(&router, PATH).await.shows("ENABLED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_that_could_not_be_marked_keeps_the_store_closed() {
    let bench = Bench::new();
    let cmek = bench.key("k");
    drop(bench.keyring("eu", &cmek));
    cmek.fail(Some(KmsErrorKind::Unreachable));
    let router = router(in_directories(&bench, &[("eu", &cmek)], Duration::from_millis(20)));
    let (dir, away) = (bench.path("eu"), bench.path("away"));
    std::fs::rename(&dir, &away).unwrap();
    act(&router, "REVOKE").await.refuses(500, 13);
    get(&router, PATH).await.shows("REVOKE_FAILED");
    std::fs::rename(&away, &dir).unwrap();
    cmek.fail(None);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(get(&router, "/readyz").await.text, "revoked\n");
    act(&router, "RESTORE").await.shows("ENABLED");
}
