//! SurrealKV, plain and with its own encryption under root keys of a store: what the encryption
//! costs is SurrealKV's, what the root keys cost is here.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::Integrity;
use atrest_surrealkv::{EncryptedTree, RootKeys};
use surrealkv::{CompactRangeOptions, Options, Tree, TreeBuilder};
use tokio::runtime::Runtime;

use crate::Row;
use crate::adapters::{Operation, Subject, Work, compare, random, store};
use crate::measure::Effort;

const RECORDS: u64 = 50_000;
const VALUE_LEN: usize = 256;

const OPERATIONS: [Operation; 2] =
    [Operation { name: "fill", units: 5_000 }, Operation { name: "read", units: 500 }];

enum Database {
    Plain(Arc<Tree>),
    Encrypted(EncryptedTree),
}

struct Surreal<'a> {
    runtime: &'a Runtime,
    database: Database,
}

/// Without a block cache to speak of: a read reaches the files.
fn options(path: PathBuf) -> Options {
    Options::new().with_path(path).with_block_cache_capacity(1)
}

impl<'a> Surreal<'a> {
    fn new(runtime: &'a Runtime, dir: &Path, integrity: Option<Integrity>) -> Self {
        let _inside = runtime.enter();
        let database = match integrity {
            None => {
                let builder = TreeBuilder::with_options(options(dir.join("plain")));
                Database::Plain(Arc::new(builder.build().unwrap()))
            }
            Some(integrity) => {
                let roots = dir.join(integrity.name());
                let keys = Arc::new(RootKeys::open(&store(&roots, integrity), roots).unwrap());
                let path = dir.join(format!("{}-db", integrity.name()));
                Database::Encrypted(
                    EncryptedTree::open(keys, move || options(path.clone())).unwrap(),
                )
            }
        };
        let surreal = Self { runtime, database };
        let mut state = 1;
        (0..RECORDS).step_by(500).for_each(|first| surreal.fill(first..first + 500, &mut state));
        let tree = surreal.tree();
        tree.compact_range(None, None, &CompactRangeOptions::default()).unwrap();
        surreal
    }

    fn tree(&self) -> Arc<Tree> {
        match &self.database {
            Database::Plain(tree) => tree.clone(),
            Database::Encrypted(tree) => tree.tree().unwrap(),
        }
    }

    fn fill(&self, numbers: std::ops::Range<u64>, state: &mut u64) {
        let mut transaction = self.tree().begin().unwrap();
        for number in numbers {
            let mut value = Vec::with_capacity(VALUE_LEN);
            while value.len() < VALUE_LEN {
                value.extend(random(state).to_le_bytes());
            }
            transaction.set(key(number).as_str(), value.as_slice()).unwrap();
        }
        self.runtime.block_on(transaction.commit()).unwrap();
    }
}

fn key(number: u64) -> String {
    format!("user{number:012}")
}

impl Subject for Surreal<'_> {
    fn work(&self, operation: Operation) -> Work<'_> {
        let mut state = 7;
        match operation.name {
            "fill" => {
                let mut next = RECORDS;
                Box::new(move || {
                    for _ in 0..operation.units / 100 {
                        self.fill(next..next + 100, &mut state);
                        next += 100;
                    }
                })
            }
            "read" => Box::new(move || {
                let transaction = self.tree().begin().unwrap();
                for _ in 0..operation.units {
                    let number = random(&mut state) % RECORDS;
                    black_box(transaction.get(key(number).as_str()).unwrap().unwrap());
                }
            }),
            _ => unreachable!("no operation named {}", operation.name),
        }
    }
}

/// Every operation, encrypted against plain.
///
/// # Panics
/// When the temporary directory cannot be written.
pub fn rows(effort: Effort, progress: impl FnMut(&str)) -> Vec<Row> {
    let (runtime, dir) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    let make = |kind| -> Box<dyn Subject> { Box::new(Surreal::new(&runtime, dir.path(), kind)) };
    let kinds = [(Integrity::Authenticated, "-authenticated")];
    compare(effort, "surrealkv", &OPERATIONS, &kinds, make, progress)
}
