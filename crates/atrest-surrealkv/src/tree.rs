//! A database that ends when access to the customer's key is withdrawn.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use atrest::keyring::AccessFlag;
use surrealkv::{
    CipherPreference, EncryptionError, Error, KeyProviderFailure, Options, Tree, TreeBuilder,
};
use tokio::runtime::Handle;

use crate::RootKeys;

/// A database of SurrealKV over root keys of a store.
///
/// SurrealKV keeps the keys of its open files, which nothing can take back from it. So a
/// withdrawal of access closes the [`Tree`], and [`tree`](Self::tree) opens it anew when access is
/// back. **Ask for it for each transaction**; whoever keeps one keeps its keys in memory.
pub struct EncryptedTree {
    shared: Arc<Shared>,
}

struct Shared {
    keys: Arc<RootKeys>,
    options: Box<dyn Fn() -> Options + Send + Sync>,
    access: AccessFlag,
    runtime: Handle,
    tree: Mutex<Option<Arc<Tree>>>,
    /// Whether one that was open is still being closed.
    closing: AtomicBool,
}

impl EncryptedTree {
    /// Opens the database, or creates it. `options` are asked for at each opening, with a block
    /// cache of its own, and without encryption, which is added here.
    ///
    /// # Errors
    /// Those of [`TreeBuilder::build`].
    ///
    /// # Panics
    /// Outside of a tokio runtime, which SurrealKV needs.
    pub fn open(
        keys: Arc<RootKeys>,
        options: impl Fn() -> Options + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let access = keys.store().access().flag();
        let shared = Arc::new(Shared {
            keys,
            options: Box::new(options),
            access,
            runtime: Handle::current(),
            tree: Mutex::default(),
            closing: AtomicBool::new(false),
        });
        shared.tree()?;
        let weak = Arc::downgrade(&shared);
        shared.keys.store().access().on_transition(move |_| {
            if let Some(shared) = weak.upgrade().filter(|shared| shared.access.check().is_err()) {
                shared.end();
            }
        });
        Ok(Self { shared })
    }

    /// The open database: one that was closed by a withdrawal of access is opened anew.
    ///
    /// # Errors
    /// `KeyProvider(Unavailable)` while access is withdrawn, and while what was open is still being
    /// closed; those of [`TreeBuilder::build`].
    pub fn tree(&self) -> Result<Arc<Tree>, Error> {
        self.shared.tree()
    }

    /// Destroys the root keys that no file of the database is under: after a compaction those of
    /// older data keys. Then [`Renewal::retire`](atrest::store::Renewal::retire) destroys the data
    /// keys. Checkpoints elsewhere **MUST NOT** be under them: nobody knows of those here.
    ///
    /// # Errors
    /// Those of [`tree`](Self::tree); `InvalidArgument` if the header of a file cannot be read;
    /// `Io` if a key's file cannot be removed.
    pub fn retire_unused(&self) -> Result<Vec<u32>, Error> {
        let status = self.tree()?.encryption_status()?;
        if status.unattributed.files > 0 {
            let what = "nobody can tell the keys of some files: no key is retired".to_owned();
            return Err(Error::InvalidArgument(what));
        }
        let in_use = |id| status.keys.iter().any(|key| key.key_id == id && !key.covers_no_files());
        let retired = self.shared.keys.retire(|id| !in_use(id));
        retired.map_err(|error| std::io::Error::from(error).into())
    }

    /// Closes the database.
    ///
    /// # Errors
    /// Those of [`Tree::close`].
    pub async fn close(self) -> Result<(), Error> {
        let tree = self.shared.take();
        match tree {
            Some(tree) => tree.close().await,
            None => Ok(()),
        }
    }
}

impl Shared {
    fn tree(&self) -> Result<Arc<Tree>, Error> {
        if self.access.check().is_err() || self.closing.load(Ordering::Acquire) {
            return Err(EncryptionError::KeyProvider(KeyProviderFailure::Unavailable).into());
        }
        let mut tree = self.tree.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = &*tree {
            return Ok(tree.clone());
        }
        let _runtime = self.runtime.enter();
        let builder = TreeBuilder::with_options((self.options)());
        let builder = builder.with_encryption(self.keys.clone(), CipherPreference::Auto);
        Ok(tree.insert(Arc::new(builder.build()?)).clone())
    }

    fn take(&self) -> Option<Arc<Tree>> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Closes what is open, in this thread if that may wait.
    fn end(self: Arc<Self>) {
        let Some(tree) = self.take() else { return };
        self.closing.store(true, Ordering::Release);
        if Handle::try_current().is_err() {
            return self.closed(&tree, self.runtime.block_on(tree.close()).is_ok());
        }
        let (shared, open) = (self.clone(), tree.clone());
        let close = move || shared.closed(&open, shared.runtime.block_on(open.close()).is_ok());
        if std::thread::Builder::new().name("atrest-close".into()).spawn(close).is_err() {
            self.closed(&tree, false);
        }
    }

    fn closed(&self, tree: &Tree, cleanly: bool) {
        if !cleanly {
            // Not without the keys. What was committed is in its log.
            tree.abandon();
        }
        self.closing.store(false, Ordering::Release);
    }
}

impl fmt::Debug for EncryptedTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedTree").field("keys", &self.shared.keys).finish_non_exhaustive()
    }
}
