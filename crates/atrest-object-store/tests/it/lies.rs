//! What a store promises and does not keep is refused at opening, waited out, or found out.

use std::sync::Arc;
use std::time::Duration;

use atrest::keyring::{Access, PlaintextPolicy};
use atrest::kms::Kms;
use atrest::{ErrorKind, FileKind, Integrity, Keyring};
use futures_executor::block_on;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};

use crate::keyring::{customer_key, options, storage};
use crate::liar::{Liar, Lie};
use crate::served::EncryptedStore;
use crate::support::{Keys, pattern};

fn create(store: &Liar, kms: &Arc<dyn Kms>) -> Result<Keyring, ErrorKind> {
    Keyring::create(storage(store.clone()), kms.clone(), options()).map_err(|error| error.kind())
}

fn open(store: &Liar, kms: &Arc<dyn Kms>) -> Result<Keyring, ErrorKind> {
    Keyring::open(storage(store.clone()), kms.clone(), options()).map_err(|error| error.kind())
}

fn names(store: &Liar) -> Vec<String> {
    let metas = store.inner.list(None).try_collect::<Vec<_>>();
    let metas = block_on(metas).unwrap();
    metas.into_iter().map(|meta| meta.location.to_string()).collect()
}

#[test]
fn what_does_not_keep_conditions_is_refused_at_opening() {
    let (_dir, kms) = customer_key();
    for lie in [
        Lie::Creates,
        Lie::Updates,
        Lie::UpdatesMissing,
        Lie::DropsConditions,
        Lie::WeakTags,
        Lie::ChangingTags,
    ] {
        let store = Liar::default();
        store.begin(lie);
        let refused = create(&store, &kms).map(drop);
        assert_eq!(refused, Err(ErrorKind::InvalidArgument), "{lie:?}");
        assert!(names(&store).is_empty(), "{lie:?}: {:?}", names(&store));
        // A store that became so since its keyring was made is not opened for writing.
        store.begin(Lie::None);
        drop(create(&store, &kms).unwrap());
        store.begin(lie);
        assert_eq!(open(&store, &kms).map(drop), Err(ErrorKind::InvalidArgument), "{lie:?}");
        store.begin(Lie::None);
        open(&store, &kms).unwrap();
    }
}

#[test]
fn a_conflict_with_nobody_is_tried_again() {
    let (_dir, kms) = customer_key();
    let store = Liar::default();
    let keyring = create(&store, &kms).unwrap();
    for times in 1..4 {
        let generation = keyring.anchor().generation;
        // The first is that of the older image, which is put aside.
        store.begin(Lie::Conflicts(times));
        keyring.keys().rotate_store_key().unwrap();
        store.begin(Lie::None);
        assert_eq!(keyring.anchor().generation, generation + 1, "once, and not twice");
        assert_eq!(open(&store, &kms).unwrap().anchor(), keyring.anchor());
    }
    // At some time it is another writer that has to be believed in.
    store.begin(Lie::Conflicts(100));
    let refused = keyring.keys().rotate().unwrap_err().kind();
    assert!(matches!(refused, ErrorKind::Poisoned | ErrorKind::KeyringConflict), "{refused:?}");
    store.begin(Lie::None);
    keyring.keys().rotate().unwrap();
}

#[test]
fn a_throttled_write_waits() {
    let (_dir, kms) = customer_key();
    let store = Liar::default();
    let keyring = create(&store, &kms).unwrap();
    store.begin(Lie::OneWriteASecond);
    for _ in 0..3 {
        let id = keyring.keys().rotate().unwrap();
        assert_eq!(keyring.keys().active_id().unwrap(), id);
    }
    store.begin(Lie::None);
    assert_eq!(open(&store, &kms).unwrap().anchor(), keyring.anchor());
}

/// Two writers that do not know of each other, over a store that no longer keeps them apart.
#[test]
fn a_commit_over_another_is_found_out() {
    let (_dir, kms) = customer_key();
    let store = Liar::default();
    let one = create(&store, &kms).unwrap();
    let other = open(&store, &kms).unwrap();
    store.begin(Lie::DropsConditions);
    one.keys().rotate().unwrap();
    // It did not hear of that, and overwrites it.
    other.keys().rotate().unwrap();
    let lost = one.reload().unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::KeyringRolledBack, "{lost}");
    // The keys that it has in memory go on, and it says what is wrong.
    one.encryptor(FileKind::Table).unwrap();
    let problem = one.access().check_now().keyring_problem.expect("a problem");
    assert!(problem.contains("two writers"), "{problem}");

    // The same if the other one is ahead already, while the older image is there to tell.
    let store = Liar::default();
    let one = create(&store, &kms).unwrap();
    let other = open(&store, &kms).unwrap();
    store.begin(Lie::DropsConditions);
    one.keys().rotate().unwrap();
    other.keys().rotate().unwrap();
    other.keys().rotate().unwrap();
    assert_eq!(one.reload().unwrap_err().kind(), ErrorKind::KeyringRolledBack);
}

#[test]
fn a_keyring_that_cannot_be_read_is_never_made_anew() {
    let (_dir, kms) = customer_key();
    for lie in [Lie::NotFound(1), Lie::NotFound(100), Lie::Forbidden(1), Lie::Fails(1)] {
        let store = Liar::default();
        let anchor = create(&store, &kms).unwrap().anchor();
        store.begin(lie);
        let refused = create(&store, &kms).map(drop).unwrap_err();
        let expected = match lie {
            Lie::NotFound(_) => {
                refused == ErrorKind::KeyringExists || refused == ErrorKind::Poisoned
            }
            _ => matches!(refused, ErrorKind::Io(_)),
        };
        assert!(expected, "{lie:?}: {refused:?}");
        store.begin(Lie::None);
        assert_eq!(open(&store, &kms).unwrap().anchor(), anchor, "{lie:?}");
    }
}

/// A store that does not find the request to revoke, or the keyring, says nothing for good.
#[test]
fn what_is_not_found_once_takes_nothing_away() {
    let (_dir, kms) = customer_key();
    let store = Liar::default();
    let keyring = create(&store, &kms).unwrap();
    let before = keyring.keys().active_id().unwrap();
    for lie in [Lie::NotFound(1), Lie::Forbidden(1), Lie::Fails(1)] {
        store.begin(lie);
        assert!(keyring.access().check_now().keyring_problem.is_some(), "{lie:?}");
        assert_eq!(keyring.keys().active_id().unwrap(), before, "{lie:?}");
        assert!(keyring.access().check_now().keyring_problem.is_none(), "{lie:?}");
    }
    let asked = storage(store.clone());
    Access::request_revocation(&asked).unwrap();
    assert!(Access::is_revocation_requested(&asked).unwrap());
    drop(keyring.access().check_now());
    assert_eq!(keyring.keys().active_id().unwrap_err().kind(), ErrorKind::CmekRevoked);
}

/// It is looked for, and not read.
#[test]
fn a_request_that_is_too_long_to_be_read_counts() {
    let (_dir, kms) = customer_key();
    let store = Liar::default();
    let keyring = create(&store, &kms).unwrap();
    let asked = storage(store.clone());
    Access::request_revocation(&asked).unwrap();
    let name = names(&store).into_iter().find(|name| name.ends_with("revoke")).unwrap();
    block_on(store.inner.put(&Path::from(name), vec![0; 65 << 20].into())).unwrap();
    assert!(Access::is_revocation_requested(&asked).unwrap());
    drop(keyring.access().check_now());
    assert_eq!(keyring.keys().active_id().unwrap_err().kind(), ErrorKind::CmekRevoked);
}

/// Without ETags the whole of it is asked for at once.
#[test]
fn an_answer_that_ends_too_early_is_an_error() {
    for keys in Keys::both() {
        let liar = Liar::default();
        let at = Path::from("table");
        block_on(keys.store(liar.clone()).put(&at, pattern(10_000, 1).into())).unwrap();
        liar.begin(Lie::CutsShort(1));
        // One that takes either kind knows no kind beforehand.
        for reader in [keys.store(liar.clone()), keys.store(liar.clone()).with_both_read()] {
            let read = block_on(async { reader.get(&at).await?.bytes().await });
            let told = read.unwrap_err().to_string();
            assert!(told.contains("too early"), "{:?}: {told}", keys.integrity);
        }
    }
}

/// What looks like an empty object is neither plaintext nor nobody's.
#[test]
fn an_answer_without_a_byte_is_an_error() {
    for integrity in [Integrity::Confidential, Integrity::Authenticated] {
        let keys = Keys { integrity, ..Keys::with_policy(PlaintextPolicy::Allow) };
        let (liar, at) = (Liar::default(), Path::from("table"));
        let data = pattern(300_000, 1);
        block_on(keys.store(liar.clone()).put(&at, data.clone().into())).unwrap();
        let read = |store: &EncryptedStore| block_on(async { store.get(&at).await?.bytes().await });
        for reader in [keys.store(liar.clone()), keys.store(liar.clone()).with_both_read()] {
            liar.begin(Lie::SendsNothing(1));
            let told = read(&reader).unwrap_err().to_string();
            assert!(told.contains("too early"), "{integrity:?}: {told}");
            // Nothing was learnt from it.
            assert!(read(&reader).unwrap() == data, "{integrity:?}");
        }
        let old = keys.keyring.keys().active_id().unwrap();
        keys.keyring.keys().rotate().unwrap();
        let store = keys.store(liar.clone());
        for _ in 0..2 {
            liar.begin(Lie::SendsNothing(1));
            assert!(block_on(store.retire(Duration::ZERO)).is_err(), "{integrity:?}");
        }
        let status = keys.keyring.status();
        let key = status.data_keys.iter().find(|key| key.id == old).unwrap();
        assert!(key.destroyed_ns.is_none(), "{integrity:?}");
        assert!(read(&store).unwrap() == data, "{integrity:?}");
    }
}

/// Nothing pins the object, so that all of it is asked for at once.
#[test]
fn an_answer_that_does_not_end_takes_no_memory() {
    for keys in Keys::both() {
        let (liar, at) = (Liar::default(), Path::from("table"));
        block_on(keys.store(liar.clone()).put(&at, pattern(300_000, 1).into())).unwrap();
        liar.begin(Lie::NeverEnds);
        let options = GetOptions { range: Some((0..100).into()), ..GetOptions::default() };
        let read = async { keys.store(liar.clone()).get_opts(&at, options).await?.bytes().await };
        assert_eq!(block_on(read).unwrap(), pattern(300_000, 1)[..100]);
        assert!(liar.pieces() < 10, "{} pieces", liar.pieces());
    }
}

#[test]
fn what_is_said_to_be_endless_takes_no_memory() {
    for keys in Keys::both() {
        let liar = Liar::default();
        let at = Path::from("table");
        let written = keys.store(liar.inner.as_ref().clone());
        block_on(written.put(&at, pattern(10_000, 1).into())).unwrap();
        liar.begin(Lie::Endless);
        for range in
            [None, Some(GetRange::Bounded(0..100)), Some(GetRange::Bounded(90_000..90_100))]
        {
            // One that knows nothing of the object, and one that wrote it.
            let reader = keys.store(liar.clone());
            let wrote = keys.store(liar.clone());
            liar.begin(Lie::None);
            block_on(wrote.put(&at, pattern(10_000, 1).into())).unwrap();
            liar.begin(Lie::Endless);
            for store in [reader, wrote] {
                let before = liar.pieces();
                let options = GetOptions { range: range.clone(), ..GetOptions::default() };
                let read = block_on(store.get_opts(&at, options));
                assert!(read.is_err(), "{range:?}");
                assert!(liar.pieces() - before < 10, "{} pieces", liar.pieces() - before);
            }
        }
    }
    let (_dir, kms) = customer_key();
    let liar = Liar::default();
    create(&liar, &kms).unwrap();
    liar.begin(Lie::Endless);
    assert_eq!(open(&liar, &kms).map(drop), Err(ErrorKind::KeyringCorrupt));
    assert!(liar.pieces() <= 65, "{} MiB of a keyring", liar.pieces());
}
