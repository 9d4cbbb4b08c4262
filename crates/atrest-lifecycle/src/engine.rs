//! SlateDB, a writer, a reader, and what an engine does when its keys are withdrawn.

use std::error::Error;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atrest::keyring::{AccessPolicy, DirectoryStorage, Grace, Options};
use atrest::{Keyring, StoreId};
use atrest_object_store::{EncryptedStore, slatedb_file_kind};
use object_store::local::LocalFileSystem;
use serde_json::{Value, json};
use slatedb::Db;
use slatedb::config::Settings;

/// Longest wait for the engine to open or close; errors are retried meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
/// Wait after a refusal, so that a refusing engine does not spin.
const PAUSE: Duration = Duration::from_millis(5);

struct Engine {
    keyring: Keyring,
    data: PathBuf,
    /// None while the keys are withdrawn: what the engine has in memory went with them.
    db: Mutex<Option<Arc<Db>>>,
    /// Set by the hook. What needs no key, such as a record still in memory, has to stop
    /// by it.
    stopped: AtomicBool,
    ending: AtomicBool,
    written: AtomicU64,
    read: AtomicU64,
    refused: AtomicU64,
    last_success_ns: AtomicU64,
}

pub(crate) fn run(dir: &Path, uri: &str) -> Result<(), Box<dyn Error>> {
    let keyring = open(dir, uri)?;
    let engine = Arc::new(Engine {
        keyring: keyring.clone(),
        data: dir.into(),
        db: Mutex::new(None),
        stopped: AtomicBool::new(false),
        ending: AtomicBool::new(false),
        written: AtomicU64::new(0),
        read: AtomicU64::new(0),
        refused: AtomicU64::new(0),
        last_success_ns: AtomicU64::new(0),
    });
    let weak = Arc::downgrade(&engine);
    keyring.access().on_transition(move |transition| {
        say(&json!({"transition": transition}));
        if let Some(engine) = weak.upgrade() {
            engine.stopped.store(!transition.to.serves(), Ordering::SeqCst);
        }
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let tasks = [runtime.spawn(write(engine.clone())), runtime.spawn(read(engine.clone()))];
    for line in std::io::stdin().lock().lines() {
        match line?.as_str() {
            "report" => say(&engine.report()),
            "verify" => say(&runtime.block_on(engine.verify())),
            _ => break,
        }
    }
    engine.ending.store(true, Ordering::SeqCst);
    for task in tasks {
        runtime.block_on(task)?;
    }
    runtime.block_on(engine.close());
    Ok(())
}

fn open(dir: &Path, uri: &str) -> Result<Keyring, Box<dyn Error>> {
    let mut options = Options::default();
    let ms = |name: &str, default: Duration| -> Result<Duration, Box<dyn Error>> {
        match std::env::var(name) {
            Ok(text) => Ok(Duration::from_millis(text.parse()?)),
            Err(_) => Ok(default),
        }
    };
    let default = AccessPolicy::default();
    options.access.check_interval = ms("CHECK", default.check_interval)?;
    options.access.check_deadline = ms("DEADLINE", default.check_deadline)?;
    options.access.confirm_over = ms("CONFIRM", default.confirm_over)?;
    options.access.suspicion_max = ms("SUSPICION", default.suspicion_max)?;
    options.access.recovery_interval = ms("RECOVERY", default.recovery_interval)?;
    options.access.unreachable_grace = Grace::For(ms("GRACE", Duration::from_secs(3600))?);
    Ok(Keyring::open_or_create(DirectoryStorage::new(dir), atrest_kms::from_uri(uri)?, options)?)
}

fn say(value: &Value) {
    println!("{value}");
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn key(number: u64) -> String {
    format!("record-{number:012}")
}

fn value(number: u64) -> String {
    format!("value {number} {}", "v".repeat((number % 3000) as usize))
}

impl Engine {
    /// The database; opened again if the keys are back.
    async fn db(&self) -> Option<Arc<Db>> {
        if self.stopped.load(Ordering::SeqCst) {
            self.close().await;
            return None;
        }
        if let Some(db) = &*self.slot() {
            return Some(db.clone());
        }
        let raw = LocalFileSystem::new_with_prefix(&self.data).ok()?;
        let store = EncryptedStore::new(Arc::new(raw), self.keyring.clone());
        let store = Arc::new(store.with_file_kind(slatedb_file_kind));
        let settings =
            Settings { flush_interval: Some(Duration::from_millis(5)), ..Settings::default() };
        let builder = Db::builder("db", store).with_settings(settings).with_db_cache_disabled();
        let db = Arc::new(tokio::time::timeout(PATIENCE, builder.build()).await.ok()?.ok()?);
        *self.slot() = Some(db.clone());
        Some(db)
    }

    async fn close(&self) {
        let db = self.slot().take();
        if let Some(db) = db {
            // Without keys it cannot end well; what was acknowledged is durable.
            drop(tokio::time::timeout(PATIENCE, db.close()).await);
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Db>>> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn succeeded(&self, counter: &AtomicU64) {
        // Checked once more: an answer from memory does not count as one of the store's.
        if !self.stopped.load(Ordering::SeqCst) {
            self.last_success_ns.fetch_max(now_ns(), Ordering::SeqCst);
            counter.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn refused(&self, error: Option<slatedb::Error>) {
        self.refused.fetch_add(1, Ordering::SeqCst);
        if error.is_some() {
            // SlateDB closes itself at an error that no retry mends.
            drop(self.slot().take());
        }
        tokio::time::sleep(PAUSE).await;
    }

    fn report(&self) -> Value {
        json!({
            "access": self.keyring.access().status(),
            "store_id": StoreId::to_string(&self.keyring.store_id()),
            "written": self.written.load(Ordering::SeqCst),
            "read": self.read.load(Ordering::SeqCst),
            "refused": self.refused.load(Ordering::SeqCst),
            "last_success_ns": self.last_success_ns.load(Ordering::SeqCst),
        })
    }

    /// Reads every record that was acknowledged.
    async fn verify(&self) -> Value {
        let written = self.written.load(Ordering::SeqCst);
        let (mut good, mut number) = (0_u64, 0);
        while number < written {
            let Some(db) = self.db().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            match db.get(key(number)).await {
                Ok(found) => {
                    good += u64::from(found.is_some_and(|found| found == value(number)));
                    number += 1;
                }
                Err(error) => self.refused(Some(error)).await,
            }
        }
        json!({"verified": good, "written": written})
    }
}

async fn write(engine: Arc<Engine>) {
    let mut number = 0;
    while !engine.ending.load(Ordering::SeqCst) {
        let Some(db) = engine.db().await else {
            engine.refused(None).await;
            continue;
        };
        let durable = async { db.put(key(number), value(number)).await?.await_durable().await };
        match durable.await {
            Ok(()) => {
                engine.succeeded(&engine.written);
                number = engine.written.load(Ordering::SeqCst);
            }
            Err(error) => engine.refused(Some(error)).await,
        }
    }
}

async fn read(engine: Arc<Engine>) {
    let mut turn = 0_u64;
    while !engine.ending.load(Ordering::SeqCst) {
        let written = engine.written.load(Ordering::SeqCst);
        let db = if written == 0 { None } else { engine.slot().clone() };
        let Some(db) = db.filter(|_| !engine.stopped.load(Ordering::SeqCst)) else {
            engine.refused(None).await;
            continue;
        };
        // Far apart, so that old files are read too.
        turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        match db.get(key((turn >> 33) % written)).await {
            Ok(_) => engine.succeeded(&engine.read),
            Err(error) => engine.refused(Some(error)).await,
        }
    }
}
