//! An engine that works while its files are looked at: at every moment of it once.

use std::sync::Mutex;

use atrest::Writer;

use super::*;
use crate::renewal::exchange::Between;

/// What the engine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// A table takes the place of another, by an append to the manifest.
    Compact,
    /// The same with a new manifest in the place of the old one, as when it has grown long.
    Replace,
    /// A table comes, with a new manifest; nothing goes.
    Add,
    /// A log grows, and then the manifest says how long it is.
    Grow,
    /// A table of which nothing was written yet is finished, and named by an append to the
    /// manifest.
    Fill,
}

/// An engine with one table, log and manifest, in directories of these names.
struct Engine {
    work: Work,
    tables: &'static str,
    manifests: &'static str,
    manifest: Writer,
    log: Writer,
    /// Of the next table.
    table: Option<Writer>,
    number: u64,
}

impl Engine {
    fn new(bench: &Bench, work: Work, [tables, manifests]: [&'static str; 2]) -> Self {
        for dir in [tables, manifests] {
            std::fs::create_dir(bench.store.data().join(dir)).unwrap();
        }
        bench.write(&format!("{tables}/0"), FileKind::Table, &[b"table 0"]);
        let manifest = Self::begin(bench, &format!("{manifests}/0"), FileKind::Manifest, 0);
        let log = Self::begin(bench, &format!("{tables}/log"), FileKind::Log, 0);
        let table = (work == Work::Fill).then(|| {
            let path = bench.store.data().join(tables).join("1");
            bench.fs.create_new(path, FileKind::Table).unwrap()
        });
        Self { work, tables, manifests, manifest, log, table, number: 0 }
    }

    /// A file that grows, and begins with a number.
    fn begin(bench: &Bench, name: &str, kind: FileKind, number: u64) -> Writer {
        let spec = FileSpec::new(kind).suite(Suite::Aes256GcmLog);
        let mut writer = bench.fs.create_new(bench.store.data().join(name), spec).unwrap();
        Self::append(&mut writer, number);
        writer
    }

    fn append(to: &mut Writer, number: u64) {
        to.append(&number.to_le_bytes()).unwrap();
        to.sync().unwrap();
    }

    fn work(&mut self, bench: &Bench) {
        let old = self.number;
        self.number += 1;
        let remove = |dir: &str| {
            std::fs::remove_file(bench.store.data().join(format!("{dir}/{old}"))).unwrap();
        };
        if self.work == Work::Grow {
            Self::append(&mut self.log, self.number);
            return Self::append(&mut self.manifest, self.number);
        }
        if let Some(mut table) = self.table.take() {
            table.append(b"table 1").unwrap();
            table.finish().unwrap();
            return Self::append(&mut self.manifest, self.number);
        }
        let table = format!("{}/{}", self.tables, self.number);
        bench.write(&table, FileKind::Table, &[format!("table {}", self.number).as_bytes()]);
        if self.work == Work::Compact {
            Self::append(&mut self.manifest, self.number);
        } else {
            let name = format!("{}/{}", self.manifests, self.number);
            self.manifest = Self::begin(bench, &name, FileKind::Manifest, self.number);
        }
        if self.work == Work::Replace {
            remove(self.manifests);
        }
        if self.work != Work::Add {
            remove(self.tables);
        }
    }

    /// Whether all is there that the newest manifest names.
    fn opens(&self, files: &BTreeMap<PathBuf, Content>) -> bool {
        let last = |content: &Content| u64::from_le_bytes(*content.bytes.last_chunk().unwrap());
        let manifests = files.iter().filter(|(path, _)| path.starts_with(self.manifests));
        let named = manifests.map(|(_, content)| last(content)).max().unwrap();
        if self.work == Work::Grow {
            return last(&files[&Path::new(self.tables).join("log")]) >= named;
        }
        let table = files.get(&Path::new(self.tables).join(named.to_string()));
        table.is_some_and(|table| table.bytes == format!("table {named}").as_bytes())
    }
}

#[test]
fn a_snapshot_is_of_one_moment_whenever_the_engine_works() {
    for work in [Work::Compact, Work::Replace, Work::Add, Work::Grow, Work::Fill] {
        for dirs in [["a", "b"], ["b", "a"]] {
            let mut at = 0;
            while works(work, dirs, at) {
                at += 1;
            }
            // A listing alone is of three directories.
            assert!(at > 20, "{at} moments");
        }
    }
}

/// The engine works in front of this call of the file system's that a snapshot makes; false if it
/// makes fewer.
fn works(work: Work, dirs: [&'static str; 2], at: u64) -> bool {
    let bench = Arc::new(Bench::new());
    let engine = Arc::new(Mutex::new(Engine::new(&bench, work, dirs)));
    let calls = AtomicU64::new(0);
    let (works, place) = (engine.clone(), bench.clone());
    let vfs = Between::new(move |_| {
        if calls.fetch_add(1, Ordering::Relaxed) == at {
            works.lock().unwrap().work(&place);
        }
        Ok(())
    });
    let fs = bench.fs.through(Arc::new(vfs));
    let snapshot = Snapshot::take(&store_of(&fs), bench.store.data()).unwrap();
    bench.chain().back_up(&store_of(&bench.fs), &snapshot, &go_on).unwrap();
    bench.restore(1, "restored").unwrap();
    let engine = engine.lock().unwrap();
    let restored = bench.contents("restored", bench.store.kms());
    assert!(engine.opens(&restored), "{work:?} in {dirs:?} at {at}: {:?}", restored.keys());
    engine.number > 0
}
