//! A customer takes a key away and gives it back, under a store in use:
//! `cargo run --example rotate_and_revoke`

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use atrest::error::KmsErrorKind;
use atrest::kms::{
    Deadline, KeyFile, KeyUri, Kms, KmsError, SlotKey, WrapContext, WrappedKey, generate_key_file,
};
use atrest::{ErrorKind, FileKind, Options, Store};

/// A key service whose key the customer can switch off. Real ones are in `atrest-kms`.
#[derive(Debug)]
struct Customer {
    key: KeyFile,
    disabled: AtomicBool,
}

impl Customer {
    /// Which error it is decides what the store does: a denial withdraws the keys; a service
    /// that does not answer is borne for a while.
    fn check(&self) -> Result<(), KmsError> {
        if self.disabled.load(Ordering::Relaxed) {
            return Err(KmsError::new(KmsErrorKind::KeyDisabled, "the customer disabled the key"));
        }
        Ok(())
    }
}

impl Kms for Customer {
    fn key_uri(&self) -> &KeyUri {
        self.key.key_uri()
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.check()?;
        self.key.wrap(key, context, deadline)
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        self.check()?;
        self.key.unwrap(wrapped, context, deadline)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = tempfile::tempdir()?;
    let (dir, key) = (place.path().join("data"), place.path().join("cmek.key"));
    std::fs::create_dir(&dir)?;
    generate_key_file(&key)?;
    let customer = Arc::new(Customer { key: KeyFile::new(&key)?, disabled: false.into() });

    // So that one denial suffices here; by default it takes three, over 30 seconds.
    let mut options = Options::default();
    options.access.confirmations = 1;
    options.access.confirm_over = Duration::ZERO;
    let store = Store::create(&dir, customer.clone(), options)?;
    // An engine drops its caches here: they hold plaintext.
    store.access().on_transition(|change| println!("{} -> {}", change.from, change.to));

    let mut writer = store.files().create_new(dir.join("table"), FileKind::Table)?;
    writer.append(b"rows")?;
    writer.finish()?;
    let table = store.files().open(dir.join("table"))?;
    let mut rows = [0; 4];

    // The hierarchy rotates in three places, all of them while files are open. A new data key is
    // for files from now on; a new store key or customer's key wraps the same data keys.
    store.keys().rotate()?;
    store.keys().rotate_store_key()?;
    let new = place.path().join("new.key");
    generate_key_file(&new)?;
    let customer = Arc::new(Customer { key: KeyFile::new(&new)?, disabled: false.into() });
    store.slots().rotate(customer.clone())?;
    table.read_exact_at(&mut rows, 0)?;

    // The background thread asks every few minutes; `check_now` asks at once.
    customer.disabled.store(true, Ordering::Relaxed);
    store.access().check_now();
    let refused = table.read_exact_at(&mut rows, 0).err().map(|error| error.kind());
    assert_eq!((refused, rows), (Some(ErrorKind::CmekRevoked), [0; 4]));
    assert!(Store::open_read_only(&dir, customer.clone(), Options::default()).is_err());

    customer.disabled.store(false, Ordering::Relaxed);
    store.access().check_now();
    // The same open file goes on.
    table.read_exact_at(&mut rows, 0)?;
    assert_eq!(&rows, b"rows");

    // What an auditor gets. It cannot be forged without the store key.
    for event in store.audit().events()? {
        println!("{} {} {}", event.number, event.what.as_str(), event.detail);
    }
    store.close()?;
    Ok(())
}

#[test]
fn runs() -> Result<(), Box<dyn std::error::Error>> {
    main()
}
