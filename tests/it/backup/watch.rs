//! Backups and the customer's key: one that goes away ends what is under way.

use std::time::{Duration, Instant};

use atrest::keyring::{AccessPolicy, AccessState};
use atrest::kms::{Kms, KmsErrorKind};
use atrest_testkit::ScriptedKms;

use super::*;

#[test]
fn a_lost_key_ends_what_reads_a_chain() {
    let bench = Bench::new();
    for number in 0..20 {
        bench.write(&format!("{number}.sst"), FileKind::Table, &[&pattern(600_000, number)]);
    }
    let kms = ScriptedKms::new("backups");
    let target = || DirectoryTarget::new(bench.path("backup"));
    let store = store_of(&bench.fs);
    let chain = Chain::open_or_create(target(), kms.clone()).unwrap();
    let snapshot = Snapshot::take(&store, bench.store.data()).unwrap();
    chain.back_up(&store, &snapshot, &go_on).unwrap();
    drop(chain);

    let mut access = AccessPolicy::default();
    access.check_interval = Duration::from_millis(20);
    access.confirmations = 1;
    access.confirm_over = Duration::ZERO;
    for restores in [false, true] {
        kms.fail(None);
        let keys: Vec<Arc<dyn Kms>> = vec![kms.clone()];
        let chain = Chain::open_read_only_watching(target(), keys, access.clone()).unwrap();
        let lose_key = |_: WorkProgress| {
            kms.fail(KmsErrorKind::AccessDenied);
            let begin = Instant::now();
            while chain.keyring().access().status().state != AccessState::Revoked {
                assert!(begin.elapsed() < Duration::from_secs(20), "nobody looked at the key");
                std::thread::sleep(Duration::from_millis(5));
            }
            ControlFlow::Continue(())
        };
        let result = if restores {
            let spec = RestoreSpec::new(bench.path("restored"), bench.store.kms());
            chain.restore(&spec, &lose_key).map(drop)
        } else {
            chain.verify(&lose_key).map(drop)
        };
        assert_eq!(kind(result), ErrorKind::CmekRevoked);
        assert!(!bench.path("restored/KEYRING").exists());
    }
}

#[test]
fn a_re_encryption_leaves_the_links_of_a_running_backup_alone() {
    let bench = Bench::new();
    fill(&bench);
    bench.write("sub/one.sst", FileKind::Table, &[&pattern(5000, 1)]);
    let store = store_of(&bench.fs);
    let before = bench.contents("data", bench.store.kms());
    let snapshot = Snapshot::take(&store, bench.store.data()).unwrap();
    let links = || {
        let dir = std::fs::read_dir(bench.store.data()).unwrap().map(|entry| entry.unwrap());
        let mut dirs = dir.filter(|it| it.file_name().to_str().unwrap().contains(".staging."));
        let staging = dirs.next().unwrap().path();
        let entries = std::fs::read_dir(staging).unwrap().map(|entry| entry.unwrap().path());
        entries.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let linked = links();
    bench.fs.keyring().keys().rotate().unwrap();
    let mut how = atrest::store::Reencrypt::default();
    how.policy.key_age_max = Some(Duration::ZERO);
    let report = store.renewal().reencrypt(&how).unwrap();
    assert!(report.files > 0);
    assert!(report.skipped.iter().all(|(path, _)| !path.to_str().unwrap().contains("KEYRING")));
    assert_eq!(links(), linked);
    bench.chain().back_up(&store, &snapshot, &go_on).unwrap();
    bench.restore(1, "restored").unwrap();
    bench.assert_restored("restored", &before);
}
