//! A database beside a store with its root keys.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::{DataKeyId, Header, Integrity, Store};
use atrest_surrealkv::{EncryptedTree, RootKeys};
use atrest_testkit::{Answer, Engine};
use surrealkv::tde::{
    CryptoHeader, HEADER_LEN, HEADER_MAGIC, describe_manifest_file, is_sealed_manifest,
};
use surrealkv::{CompactRangeOptions, Durability, Options};
use tokio::runtime::Runtime;

/// A directory with the database in `db` and its root keys in `roots`.
pub(crate) struct Surreal {
    pub(crate) tree: Option<EncryptedTree>,
    pub(crate) runtime: Runtime,
}

pub(crate) fn options(path: PathBuf) -> Options {
    Options::new().with_path(path).with_max_memtable_size(64 << 10)
}

fn key(number: u64) -> String {
    format!("key {number:012}")
}

impl Engine for Surreal {
    // Its suites are its own.
    const INTEGRITY: &'static [Integrity] = &[Integrity::Authenticated];

    fn open(store: &Store, dir: &Path) -> Answer<Self> {
        let (roots, db) = (dir.join("roots"), dir.join("db"));
        std::fs::create_dir_all(&roots)?;
        let runtime = Runtime::new()?;
        let keys = Arc::new(RootKeys::open(store, roots)?);
        let _inside = runtime.enter();
        let tree = EncryptedTree::open(keys, move || options(db.clone()))?;
        drop(_inside);
        Ok(Self { tree: Some(tree), runtime })
    }

    fn put(&mut self, number: u64, value: &str) -> Answer<()> {
        let mut transaction = self.tree().tree()?.begin()?;
        transaction.set_durability(Durability::Immediate);
        transaction.set(key(number).as_str(), value)?;
        Ok(self.runtime.block_on(transaction.commit())?)
    }

    fn get(&self, number: u64) -> Answer<Option<String>> {
        let value = self.tree().tree()?.begin()?.get(key(number).as_str())?;
        Ok(value.map(|bytes| String::from_utf8(bytes.to_vec())).transpose()?)
    }

    fn compact(&mut self) -> Answer<()> {
        let _inside = self.runtime.enter();
        self.tree().tree()?.compact_range(None, None, &CompactRangeOptions::default())?;
        self.tree().retire_unused()?;
        Ok(())
    }

    /// By way of the root key that a file of the database names.
    fn data_key(_store: &Store, path: &Path) -> Option<DataKeyId> {
        let bytes = std::fs::read(path).unwrap();
        if bytes.is_empty() || path.ends_with("LOCK") || bytes.starts_with(b"\x89ATRF") {
            return None;
        }
        let key_id = if is_sealed_manifest(&bytes) {
            describe_manifest_file(path).unwrap().key_id.unwrap()
        } else {
            // Behind what a kind of file has in front of it.
            let at = bytes.windows(HEADER_MAGIC.len()).take(64).position(|at| at == HEADER_MAGIC);
            let header = at.and_then(|at| bytes.get(at..at + HEADER_LEN));
            match header.map(CryptoHeader::decode) {
                Some(Ok(header)) => header.identity.key_id,
                other => panic!("{}: {other:?}", path.display()),
            }
        };
        let dirs = path.ancestors().map(|dir| dir.join("roots"));
        let roots = dirs.into_iter().find(|dir| dir.exists()).unwrap();
        let root = std::fs::read(roots.join(format!("root.{key_id:010}"))).unwrap();
        Some(Header::parse(&root).unwrap().data_key_id)
    }
}

impl Surreal {
    pub(crate) fn tree(&self) -> &EncryptedTree {
        self.tree.as_ref().unwrap()
    }
}

impl Drop for Surreal {
    fn drop(&mut self) {
        let tree = self.tree.take().unwrap();
        // Without its keys it cannot be; it was closed then.
        drop(self.runtime.block_on(tree.close()));
    }
}
