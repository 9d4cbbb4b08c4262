//! A bucket for each test, on a server of S3.

use std::sync::Arc;

use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::moto::{ACCESS_KEY, SECRET_KEY, Server};

/// The environment of a command that uses the server at a port.
pub fn variables(port: u16) -> Vec<(String, String)> {
    let endpoint = format!("http://127.0.0.1:{port}");
    [
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_ENDPOINT_URL", &endpoint),
        ("AWS_ALLOW_HTTP", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// A bucket, as its administrator sees it.
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    runtime: tokio::runtime::Runtime,
}

impl Bucket {
    /// Makes it.
    pub fn new(server: &Server, name: &str) -> Self {
        let store = server.bucket(name);
        drop(rustls::crypto::ring::default_provider().install_default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Self { store: Arc::new(store.build().unwrap()), runtime: runtime.unwrap() }
    }

    /// All keys below a prefix, sorted.
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        use futures_util::TryStreamExt;
        let prefix = Key::from(prefix);
        let listed = self.store.list(Some(&prefix)).map_ok(|it| it.location.to_string());
        let mut keys: Vec<String> = self.runtime.block_on(listed.try_collect()).unwrap();
        keys.sort();
        keys
    }

    pub fn store(&self) -> Arc<dyn ObjectStore> {
        self.store.clone()
    }

    pub fn block_on<F: Future>(&self, work: F) -> F::Output {
        self.runtime.block_on(work)
    }

    pub fn get(&self, key: &str) -> Vec<u8> {
        let key = Key::from(key);
        self.runtime
            .block_on(async { self.store.get(&key).await.unwrap().bytes().await })
            .unwrap()
            .into()
    }

    pub fn put(&self, key: &str, bytes: &[u8]) {
        let key = Key::from(key);
        self.runtime.block_on(self.store.put(&key, bytes.to_vec().into())).unwrap();
    }

    pub fn delete(&self, key: &str) {
        self.runtime.block_on(self.store.delete(&Key::from(key))).unwrap();
    }
}
