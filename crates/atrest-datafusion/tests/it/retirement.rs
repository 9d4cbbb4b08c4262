//! No data key is destroyed that a file needs, and every other one is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use atrest::keyring::{LiveKeys, MemoryStorage, RetireOutcome};
use atrest::{Clock, DataKeyId, ErrorKind, Keyring, Options};
use atrest_datafusion::{ParquetFiles, ParquetKeys};
use datafusion_common::config::EncryptionFactoryOptions;
use datafusion_execution::parquet_encryption::EncryptionFactory;
use object_store::ObjectStoreExt;

use crate::support::{bytes, count, keyring, one_file, places, rows, write};
use atrest_testkit::ScriptedKms;

/// What becomes of the oldest replaced data key by one call.
async fn look(keys: &ParquetKeys, places: &[ParquetFiles], grace: Duration) -> RetireOutcome {
    keys.retire(places, grace).await.unwrap().keys[0].outcome.clone()
}

/// The same by as many as it takes.
async fn retire(keys: &ParquetKeys, places: &[ParquetFiles]) -> RetireOutcome {
    for _ in 0..2 {
        if look(keys, places, Duration::ZERO).await == RetireOutcome::Destroyed {
            return RetireOutcome::Destroyed;
        }
    }
    look(keys, places, Duration::ZERO).await
}

fn held(keyring: &Keyring) -> BTreeSet<DataKeyId> {
    keyring.holds().list().into_iter().flat_map(|hold| hold.keys).collect()
}

#[tokio::test]
async fn a_data_key_goes_with_its_last_file() {
    let keyring = keyring();
    let first = keyring.keys().active_id().unwrap();
    let (keys, raw) = one_file(&keyring).await;
    assert_eq!(held(&keyring), [first].into());
    let second = keyring.keys().rotate().unwrap();
    write(&keys, &raw, "a/2.parquet").await.unwrap();
    assert_eq!(retire(&keys, &places(&raw)).await, RetireOutcome::InUse);
    assert_eq!(count(&keys, &raw, "a/1.parquet").await, 1000);
    raw.delete(&"a/1.parquet".into()).await.unwrap();
    assert_eq!(retire(&keys, &places(&raw)).await, RetireOutcome::Destroyed);
    assert_eq!(held(&keyring), [second].into());
    assert_eq!(count(&keys, &raw, "a/2.parquet").await, 1000);
    // The hold goes on with the next ones.
    let third = keyring.keys().rotate().unwrap();
    write(&keys, &raw, "a/3.parquet").await.unwrap();
    assert_eq!(held(&keyring), [second, third].into());
}

/// Retires keys without a look at the files, which the holds of these numbers have to survive.
fn nothing_goes(keyring: &Keyring, holds: &[u64]) {
    struct Nothing;
    impl LiveKeys for Nothing {
        fn keys_in_use(&self) -> atrest::Result<Vec<DataKeyId>> {
            Ok(Vec::new())
        }
    }
    for _ in 0..2 {
        let retired = keyring.keys().retire(&Nothing, Duration::ZERO).unwrap();
        let by = holds.iter().map(|number| format!("parquet/tables/{number}")).collect();
        assert_eq!(retired.keys[0].outcome, RetireOutcome::Held { by });
    }
}

#[tokio::test]
async fn who_does_not_look_at_the_files_destroys_nothing() {
    let keyring = keyring();
    let (keys, raw) = one_file(&keyring).await;
    keyring.keys().rotate().unwrap();
    nothing_goes(&keyring, &[0]);
    assert_eq!(count(&keys, &raw, "a/1.parquet").await, 1000);
}

/// As one that another process writes, or of which this one is sending the last.
#[tokio::test]
async fn a_file_that_lands_after_a_look_keeps_its_data_key() {
    let (keyring, hour) = (keyring(), Duration::from_secs(3600));
    let first = keyring.keys().active_id().unwrap();
    let (keys, raw) = one_file(&keyring).await;
    let late = bytes(&*raw, "a/1.parquet").await;
    raw.delete(&"a/1.parquet".into()).await.unwrap();
    keyring.keys().rotate().unwrap();
    for _ in 0..2 {
        keys.retire(&places(&raw), hour).await.unwrap();
        assert!(held(&keyring).contains(&first));
    }
    nothing_goes(&keyring, &[0]);
    raw.put(&"a/1.parquet".into(), late.into()).await.unwrap();
    assert_eq!(look(&keys, &places(&raw), hour).await, RetireOutcome::InUse);
    nothing_goes(&keyring, &[0, 1]);
    // The first hold goes with its grace, and the second has the key now.
    assert_eq!(retire(&keys, &places(&raw)).await, RetireOutcome::InUse);
    nothing_goes(&keyring, &[1]);
    assert_eq!(count(&keys, &raw, "a/1.parquet").await, 1000);
}

/// Time that a test moves, in seconds: that since boot, and what the time of day is ahead by.
#[derive(Debug, Default)]
struct Moved {
    time: AtomicU64,
    ahead: AtomicU64,
}

impl Clock for Moved {
    fn now_ns(&self) -> u64 {
        let seconds = self.time.load(Ordering::SeqCst) + self.ahead.load(Ordering::SeqCst);
        (1_000_000_000 + seconds) * 1_000_000_000
    }

    fn since_boot(&self) -> Duration {
        Duration::from_secs(self.time.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn a_clock_that_was_ahead_once_keeps_no_data_key() {
    let (clock, minute) = (Arc::new(Moved::default()), Duration::from_secs(60));
    let mut options = Options::default();
    options.clock = clock.clone();
    let kms = ScriptedKms::new("customer");
    let keyring = Keyring::create(MemoryStorage::new(), kms, options).unwrap();
    let (keys, raw) = one_file(&keyring).await;
    raw.delete(&"a/1.parquet".into()).await.unwrap();
    keyring.keys().rotate().unwrap();
    clock.ahead.store(300_000_000, Ordering::SeqCst);
    assert!(matches!(look(&keys, &places(&raw), minute).await, RetireOutcome::Held { .. }));
    clock.ahead.store(0, Ordering::SeqCst);
    let mut outcomes = Vec::new();
    while outcomes.len() < 6 && outcomes.last() != Some(&RetireOutcome::Destroyed) {
        outcomes.push(look(&keys, &places(&raw), minute).await);
        clock.time.fetch_add(120, Ordering::SeqCst);
    }
    assert_eq!(outcomes.last(), Some(&RetireOutcome::Destroyed), "{outcomes:?}");
}

/// As after a crash between the file and its hold, or where a hold was given up by hand.
#[tokio::test]
async fn a_file_without_a_hold_gets_one_with_the_next_look() {
    let keyring = keyring();
    let (keys, raw) = one_file(&keyring).await;
    keyring.holds().release("parquet/tables/0").unwrap();
    keyring.keys().rotate().unwrap();
    assert_eq!(look(&keys, &places(&raw), Duration::ZERO).await, RetireOutcome::InUse);
    nothing_goes(&keyring, &[0]);
    assert_eq!(count(&keys, &raw, "a/1.parquet").await, 1000);
}

#[tokio::test]
async fn a_file_that_is_being_written_keeps_its_data_key() {
    let keyring = keyring();
    let (keys, raw) = one_file(&keyring).await;
    let (config, schema) = (EncryptionFactoryOptions::default(), rows().schema());
    let writing = keys.get_file_encryption_properties(&config, &schema, &"a/2".into()).await;
    raw.delete(&"a/1.parquet".into()).await.unwrap();
    keyring.keys().rotate().unwrap();
    assert_eq!(retire(&keys, &places(&raw)).await, RetireOutcome::InUse);
    drop(writing);
    // Its last bytes may be on their way.
    let hour = Duration::from_secs(3600);
    let outcome = look(&keys, &places(&raw), hour).await;
    assert!(matches!(outcome, RetireOutcome::Held { .. }), "{outcome:?}");
    assert_eq!(retire(&keys, &places(&raw)).await, RetireOutcome::Destroyed);
}

#[tokio::test]
async fn what_cannot_be_looked_at_lets_no_data_key_go() {
    let keyring = keyring();
    let (keys, raw) = one_file(&keyring).await;
    let place = places(&raw);
    keyring.keys().rotate().unwrap();
    // None of them is a file of ours.
    for other in [&b""[..], b"PAR", b"PAR1PAR1", b"text"] {
        raw.put(&"a/other".into(), other.into()).await.unwrap();
        assert_eq!(keys.usage(&place).await.unwrap().len(), 1);
    }
    let good = bytes(&*raw, "a/1.parquet").await;
    let mut bad = good.clone();
    let at = bad.len() - 300;
    bad[at] ^= 1;
    raw.put(&"a/1.parquet".into(), bad.into()).await.unwrap();
    let refused = keys.retire(&place, Duration::ZERO).await.unwrap_err().kind();
    assert_eq!(refused, ErrorKind::CorruptHeader);
    raw.put(&"a/1.parquet".into(), good.into()).await.unwrap();
    keyring.access().revoke().unwrap();
    assert_eq!(keys.usage(&place).await.unwrap_err().kind(), ErrorKind::CmekRevoked);
    assert!(keys.retire(&place, Duration::ZERO).await.is_err());
    keyring.access().restore().unwrap();
    assert_eq!(retire(&keys, &place).await, RetireOutcome::InUse);
}
