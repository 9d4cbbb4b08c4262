//! Backups of a store on disk into an object store, and back.

use std::ops::ControlFlow;
use std::sync::Arc;

use atrest::backup::{BackupTarget, Chain, RestoreSpec, Snapshot};
use atrest::kms::{self, Kms, generate_key_file};
use atrest::progress::WorkProgress;
use atrest::{ErrorKind, FileKind, Options, Store};
use atrest_testkit::backup_target_conformance;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::meddle::{Fate, Meddle};
use crate::served::ObjectStoreTarget;
use crate::spy::Spy;

fn go_on(_: WorkProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn the_target_keeps_the_contract() {
    backup_target_conformance(&|| {
        let store = Arc::new(InMemory::new());
        Box::new(ObjectStoreTarget::new(store, &Path::from("chains/one")).unwrap())
    });
}

struct Bench {
    dir: tempfile::TempDir,
    kms: Arc<dyn Kms>,
    files: Store,
    store: Arc<dyn ObjectStore>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("cmek.key");
        generate_key_file(&key).unwrap();
        let kms = kms::from_uri(&format!("file://{}", key.display())).unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let files = dir.path().join("data");
        let files = Store::create(files, kms.clone(), Options::default()).unwrap();
        Self { dir, kms, files, store: Arc::new(InMemory::new()) }
    }

    fn write(&self, name: &str, len: usize) {
        let path = self.dir.path().join("data").join(name);
        let mut writer = self.files.files().create_new(path, FileKind::Table).unwrap();
        writer.append(&vec![len as u8; len]).unwrap();
        writer.finish().unwrap();
    }

    fn target(&self) -> ObjectStoreTarget {
        ObjectStoreTarget::new(self.store.clone(), &Path::from("backups/db")).unwrap()
    }

    fn chain(&self) -> Chain {
        Chain::open_or_create(self.target(), self.kms.clone()).unwrap()
    }

    fn delete(&self, name: &str) {
        let path = Path::from(format!("backups/db/{name}"));
        futures_executor::block_on(self.store.delete(&path)).unwrap();
    }
}

#[test]
fn a_chain_in_an_object_store_restores() {
    let bench = Bench::new();
    bench.write("small", 10);
    // In parts.
    bench.write("large", 20_000_000);
    let data = bench.dir.path().join("data");
    let snapshot = Snapshot::take(&bench.files, &data).unwrap();
    bench.chain().back_up(&bench.files, &snapshot, &go_on).unwrap();
    bench.write("later", 70_000);
    let snapshot = Snapshot::take(&bench.files, &data).unwrap();
    let second = bench.chain().back_up(&bench.files, &snapshot, &go_on).unwrap();
    assert_eq!((second.info.number, second.info.copied_files), (2, 1));
    let chain = Chain::open_read_only(bench.target(), vec![bench.kms.clone()]).unwrap();
    let check = chain.verify(&go_on).unwrap();
    assert_eq!((check.backups, check.files, check.problems.len()), (2, 3, 0));
    let to = bench.dir.path().join("restored");
    chain.restore(&RestoreSpec::new(&to, bench.kms.clone()), &go_on).unwrap();
    let restored = Store::open(&to, bench.kms.clone(), Options::default()).unwrap();
    let fs = restored.files();
    for (name, len) in [("small", 10), ("large", 20_000_000), ("later", 70_000)] {
        let reader = fs.open(to.join(name)).unwrap();
        let mut bytes = vec![0; len];
        assert_eq!(reader.len().unwrap(), len as u64);
        reader.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == vec![len as u8; len]);
    }
    bench.delete("backup.000001");
    assert_eq!(chain.list().unwrap_err().kind(), ErrorKind::BrokenBackup);
}

#[test]
fn a_cancelled_upload_is_continued_and_two_writers_do_not_mix() {
    let bench = Bench::new();
    for number in 0..10 {
        bench.write(&format!("{number}"), 1000 + number);
    }
    let snapshot = Snapshot::take(&bench.files, bench.dir.path().join("data")).unwrap();
    let cancel = |progress: WorkProgress| match progress.files_done {
        0..4 => ControlFlow::Continue(()),
        _ => ControlFlow::Break(()),
    };
    let error = bench.chain().back_up(&bench.files, &snapshot, &cancel).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io(std::io::ErrorKind::Interrupted));
    assert_eq!(bench.chain().list().unwrap(), []);
    let (one, other) = (bench.chain(), bench.chain());
    // The other one writes its whole backup while the first is at its first file.
    let begun = std::sync::atomic::AtomicBool::new(false);
    let error = one.back_up(&bench.files, &snapshot, &|_| {
        if !begun.swap(true, std::sync::atomic::Ordering::Relaxed) {
            let report = other.back_up(&bench.files, &snapshot, &go_on).unwrap();
            assert!(report.resumed_files >= 3, "{report:?}");
        }
        ControlFlow::Continue(())
    });
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Io(std::io::ErrorKind::AlreadyExists));
    let check = bench.chain().verify(&go_on).unwrap();
    assert_eq!((check.backups, check.files, check.problems.len()), (1, 10, 0));
}

#[test]
fn a_lost_answer_does_not_lose_a_finished_backup() {
    for fate in [Fate::Unheard, Fate::Repeated] {
        let mut bench = Bench::new();
        let meddle = Meddle::new(Arc::new(InMemory::new()));
        bench.store = Arc::new(meddle.clone());
        bench.write("small", 10);
        let data = bench.dir.path().join("data");
        let store = &bench.files;
        let snapshot = Snapshot::take(store, &data).unwrap();
        let chain = bench.chain();
        // Not carried out is not done.
        meddle.puts_of_end("backup.000001", [Fate::Lost]);
        assert!(chain.back_up(store, &snapshot, &go_on).is_err());
        meddle.puts_of_end("backup.000001", [fate]);
        let report = chain.back_up(store, &snapshot, &go_on).unwrap();
        assert_eq!((report.info.number, report.resumed_files), (1, 1), "{fate:?}");
        assert_eq!(chain.verify(&go_on).unwrap().problems, [], "{fate:?}");
    }
}

#[test]
fn a_lost_answer_to_the_last_request_of_an_upload_in_parts_is_looked_after() {
    let meddle = Meddle::new(Arc::new(InMemory::new()));
    let target = ObjectStoreTarget::new(Arc::new(meddle.clone()), &Path::from("b")).unwrap();
    let put = |name: &str, byte: u8| {
        let mut file = target.put(name)?;
        file.append(&vec![byte; 9 << 20])?;
        file.finish()
    };
    meddle.puts_of_end("one", [Fate::Unheard]);
    put("one", 1).unwrap();
    meddle.puts_of_end("two", [Fate::Lost]);
    assert!(put("two", 2).is_err());
    // Somebody else's, which came while the last request was under way.
    let theirs = Path::from("b/three");
    let inner = meddle.inner.clone();
    meddle.puts_of_end("three", [Fate::Lost]);
    meddle.before(1, move || {
        let theirs = inner.put(&theirs, vec![9_u8; 9 << 20].into());
        futures_executor::block_on(theirs).unwrap();
    });
    assert!(put("three", 3).is_err());
    assert!(meddle.happened());
}

#[test]
fn the_parts_of_an_upload_have_one_length() {
    let spy = Spy::new(Arc::new(InMemory::new()));
    let target = ObjectStoreTarget::new(Arc::new(spy.clone()), &Path::from("b")).unwrap();
    let part = 8 << 20;
    for (expected, parts) in [(0, vec![part, part, 7]), (1, vec![part, part, 7])] {
        let mut file = target.put(&format!("{expected}")).unwrap();
        file.will_append(expected);
        for piece in vec![1; 2 * part + 7].chunks(1_000_003) {
            file.append(piece).unwrap();
        }
        file.finish().unwrap();
        assert_eq!(spy.part_lens(), parts);
    }
    // 100 GiB in parts of 8 MiB would be too many.
    let mut file = target.put("large").unwrap();
    file.will_append(100 << 30);
    file.append(&vec![1; 2 * part]).unwrap();
    let lens = spy.part_lens();
    assert!(lens.len() == 1 && lens[0] > part && lens[0] as u64 * 10_000 > 100 << 30, "{lens:?}");
}
