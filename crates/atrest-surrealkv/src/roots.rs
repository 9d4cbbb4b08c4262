//! Root keys in files of a store, as SurrealKV asks for them.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use atrest::keyring::{AccessFlag, Expect};
use atrest::{DataKeyId, Error, ErrorKind, FileKind, FileSpec, Header, Integrity, Result, Store};
use surrealkv::tde::{ROOT_KEY_LEN, Zeroizing};
use surrealkv::{EncryptionError, KeyManager, KeyProviderFailure, KeyState};

/// Root keys for one database of SurrealKV, each in a file of the store.
///
/// There is one for each data key that was active while the database wrote: the first file that is
/// begun after a rotation gets a new one. Its file is under that data key, so that the data key is
/// in use for as long as the root key is.
pub struct RootKeys {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    dir: PathBuf,
    access: AccessFlag,
    roots: RwLock<BTreeMap<u32, Root>>,
    /// Held by who makes one.
    making: Mutex<()>,
}

/// Of a root key, what is in memory.
struct Root {
    data_key: DataKeyId,
    /// `None` while access is withdrawn, and until it is asked for. Boxed, so that the map moves
    /// no key about.
    key: Option<Box<Zeroizing<[u8; ROOT_KEY_LEN]>>>,
}

impl RootKeys {
    /// The root keys in `dir`, which exists and holds nothing else; where there are none, the
    /// first is made. `dir` is best below the store's own directory. The database **MUST NOT** be
    /// there: its files are none of the store's.
    ///
    /// # Errors
    /// Those of [`EncryptedFs::list`](atrest::EncryptedFs::list),
    /// [`open_expecting`](atrest::EncryptedFs::open_expecting) and
    /// [`create_new`](atrest::EncryptedFs::create_new): a root key that is not what it was is
    /// never passed over.
    pub fn open(store: &Store, dir: impl Into<PathBuf>) -> Result<Self> {
        let dir = dir.into();
        let mut roots = BTreeMap::new();
        for file in store.files().list(&dir)? {
            if let Some(id) = id_of(&file.path) {
                roots.insert(id, load(store, &file.path, id)?);
            }
        }
        let access = store.access().flag();
        let inner = Inner {
            store: store.clone(),
            dir,
            access,
            roots: RwLock::new(roots),
            making: Mutex::default(),
        };
        let inner = Arc::new(inner);
        inner.follow()?;
        let weak = Arc::downgrade(&inner);
        store.access().on_transition(move |_| {
            if let Some(inner) = weak.upgrade().filter(|inner| inner.access.check().is_err()) {
                inner.forget();
            }
        });
        Ok(Self { inner })
    }

    /// Destroys root keys that the database does not need any more, and with their files what
    /// keeps their data keys from being retired. The active one always stays.
    /// [`EncryptedTree::retire_unused`](crate::EncryptedTree::retire_unused) knows which they are.
    ///
    /// # Errors
    /// Those of [`EncryptedFs::remove`](atrest::EncryptedFs::remove); some are destroyed then.
    pub fn retire(&self, unused: impl Fn(u32) -> bool) -> Result<Vec<u32>> {
        let inner = &*self.inner;
        let _one = inner.making.lock().unwrap_or_else(PoisonError::into_inner);
        let (active, _) = inner.newest().ok_or_else(gone)?;
        let ids: Vec<u32> = inner.read().keys().copied().collect();
        let mut retired = Vec::new();
        for id in ids.into_iter().filter(|id| *id != active && unused(*id)) {
            match inner.store.files().remove(inner.path(id)) {
                Err(e) if e.kind() != ErrorKind::Io(io::ErrorKind::NotFound) => return Err(e),
                _ => {}
            }
            inner.write().remove(&id);
            retired.push(id);
        }
        if !retired.is_empty() {
            inner.store.files().sync_dir(&inner.dir)?;
        }
        Ok(retired)
    }

    /// The data key that a root key is under; `None` for one that there is not.
    pub fn data_key_id(&self, key_id: u32) -> Option<DataKeyId> {
        self.inner.read().get(&key_id).map(|root| root.data_key)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.inner.store
    }
}

impl Inner {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<u32, Root>> {
        self.roots.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<u32, Root>> {
        self.roots.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: u32) -> PathBuf {
        self.dir.join(format!("root.{id:010}"))
    }

    /// The active root key, and the data key it is under.
    fn newest(&self) -> Option<(u32, DataKeyId)> {
        self.read().last_key_value().map(|(id, root)| (*id, root.data_key))
    }

    /// Makes a root key if the data key was rotated since the newest one was made.
    fn follow(&self) -> Result<u32> {
        let active = self.store.keys().active_id()?;
        if let Some((id, data_key)) = self.newest()
            && data_key == active
        {
            return Ok(id);
        }
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        // Another thread made it, maybe.
        let next = match self.newest() {
            Some((id, data_key)) if data_key == active => return Ok(id),
            Some((id, _)) => id.checked_add(1).ok_or_else(gone)?,
            None => 1,
        };
        let root = self.make(next)?;
        self.write().insert(next, root);
        Ok(next)
    }

    /// Under a name beside it until it is whole: what has the name of a root key is one.
    fn make(&self, id: u32) -> Result<Root> {
        let mut key = Box::new(Zeroizing::new([0; ROOT_KEY_LEN]));
        getrandom::fill(&mut **key).map_err(|e| Error::io("no randomness", io::Error::from(e)))?;
        let (files, beside) = (self.store.files(), self.dir.join("root.new"));
        let spec = FileSpec::new(FileKind::Other).integrity(Integrity::Authenticated);
        let mut writer = files.reuse_for_write(&beside, spec.file_id(u64::from(id)))?;
        writer.append(&**key)?;
        let data_key = writer.finish()?.data_key_id;
        files.rename(beside, self.path(id))?;
        files.sync_dir(&self.dir)?;
        Ok(Root { data_key, key: Some(key) })
    }

    fn forget(&self) {
        self.write().values_mut().for_each(|root| root.key = None);
    }

    fn root(&self, id: u32) -> Result<Option<Zeroizing<[u8; ROOT_KEY_LEN]>>> {
        self.access.check()?;
        match self.read().get(&id) {
            None => return Ok(None),
            Some(Root { key: Some(key), .. }) => return Ok(Some((**key).clone())),
            Some(_) => {}
        }
        // Given back.
        let loaded = load(&self.store, &self.path(id), id)?;
        let key = loaded.key.as_deref().cloned();
        if let Some(root) = self.write().get_mut(&id) {
            *root = loaded;
        }
        if let Err(error) = self.access.check() {
            // Withdrawn while it was read.
            self.forget();
            return Err(error);
        }
        Ok(key)
    }
}

/// The id that a file's name says.
fn id_of(path: &Path) -> Option<u32> {
    let digits = path.file_name()?.to_str()?.strip_prefix("root.")?;
    digits.parse().ok().filter(|id| format!("{id:010}") == digits)
}

fn load(store: &Store, path: &Path, id: u32) -> Result<Root> {
    let expect = Expect { file_id: Some(u64::from(id).into()), ..Expect::default() };
    let mut key = Box::new(Zeroizing::new([0; ROOT_KEY_LEN]));
    let (reader, read) = store.files().open_and_read(path, &expect, &mut **key)?;
    let authenticated = reader.suite().is_some_and(|suite| suite.is_authenticated());
    if !authenticated || read != ROOT_KEY_LEN || reader.len()? != ROOT_KEY_LEN as u64 {
        let what = "expected a root key of 32 authenticated bytes, found another file";
        return Err(Error::new(ErrorKind::IdentityMismatch, what).with_path(path));
    }
    // The reader proved it.
    let bytes = std::fs::read(path).map_err(|e| Error::io("the file cannot be read", e))?;
    Ok(Root { data_key: Header::parse(&bytes)?.data_key_id, key: Some(key) })
}

fn gone() -> Error {
    Error::new(ErrorKind::UnknownKey, "there is no root key, and no room for one")
}

impl KeyManager for RootKeys {
    /// Makes the root key of a data key that is new, which takes one small file and its sync. If
    /// that fails, the one before goes on.
    fn active_key_id(&self) -> u32 {
        let newest = self.inner.newest().map_or(0, |(id, _)| id);
        self.inner.follow().unwrap_or(newest)
    }

    fn key_state(&self, key_id: u32) -> KeyState {
        let roots = self.inner.read();
        match roots.last_key_value() {
            Some((newest, _)) if *newest == key_id => KeyState::Active,
            _ if roots.contains_key(&key_id) => KeyState::DecryptOnly,
            // Made in order, and removed only when they are retired.
            Some((newest, _)) if (1..*newest).contains(&key_id) => KeyState::Retired,
            _ => KeyState::Unknown,
        }
    }

    fn root_key(&self, key_id: u32) -> Result<Zeroizing<[u8; ROOT_KEY_LEN]>, EncryptionError> {
        match self.inner.root(key_id) {
            Ok(Some(key)) => Ok(key),
            Ok(None) if self.key_state(key_id) == KeyState::Retired => {
                Err(EncryptionError::KeyRetired)
            }
            Ok(None) => Err(EncryptionError::UnknownKeyId),
            Err(error) => Err(EncryptionError::KeyProvider(match error.kind() {
                // They may come back.
                ErrorKind::CmekRevoked | ErrorKind::Io(_) => KeyProviderFailure::Unavailable,
                _ => KeyProviderFailure::Failed,
            })),
        }
    }
}

impl fmt::Debug for RootKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u32> = self.inner.read().keys().copied().collect();
        f.debug_struct("RootKeys").field("dir", &self.inner.dir).field("ids", &ids).finish()
    }
}
