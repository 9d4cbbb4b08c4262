#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::keyring::fuzz::{store_key, stored};
use crate::keyring::{Keyring, KeyringStorage, MemoryStorage, Options, Settings};
use crate::kms::{KeyFile, Kms};
use crate::suite::Integrity;

/// Made by `tests/vectors/make.py`: its first slot has context version 1, its second one
/// a key service that is not given here, its settings an entry of a version to come.
const GOLDEN: &[u8] = include_bytes!("../../../tests/vectors/keyring-v2.bin");

fn key_file(dir: &tempfile::TempDir) -> Arc<dyn Kms> {
    let path = dir.path().join("cmek.key");
    std::fs::write(&path, [[1; 32], [2; 32]].concat()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    Arc::new(KeyFile::new(path).unwrap())
}

fn search() -> Search {
    Search::opening(&Options::default(), true)
}

fn unlock(image: &Image, kms: &Arc<dyn Kms>) -> Result<(Arc<StoreKey>, Body)> {
    Ok(search().unlock(image, &[Client::new(kms.clone())])?)
}

#[test]
fn a_slot_of_an_older_context_version_unlocks() {
    let dir = tempfile::tempdir().unwrap();
    let kms = key_file(&dir);
    let mut image = Image::parse(stored(GOLDEN.to_vec())).unwrap();
    assert!(image.slots[0].context_version < WrapContext::VERSION);
    let (key, _) = unlock(&image, &kms).unwrap();
    assert!(key.same(&store_key()));
    // As if the version came from this library.
    image.slots[0].context_version = WrapContext::VERSION;
    let refused = unlock(&image, &kms).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Kms(KmsErrorKind::Integrity));
}

#[test]
fn commits_keep_what_they_do_not_know_and_the_contexts_of_slots() {
    let dir = tempfile::tempdir().unwrap();
    let kms = key_file(&dir);
    let storage = Arc::new(MemoryStorage::new());
    storage.commit(GOLDEN, 3, None).unwrap();
    let parsed = || Image::parse(storage.load().unwrap().unwrap()).unwrap();
    let read = || {
        let image = parsed();
        let (_, body) = unlock(&image, &kms).unwrap();
        (image, body)
    };
    let later = |body: &Body| body.settings.0.has(900);
    assert!(later(&read().1));
    let keyring = Keyring::open(storage.clone(), kms.clone(), Options::default()).unwrap();
    keyring.keys().rotate().unwrap();
    assert!(later(&read().1));
    let settings = Settings { integrity: Integrity::Authenticated.into(), ..Settings::default() };
    keyring.keys().configure(&settings).unwrap();
    let (image, body) = read();
    assert!(later(&body));
    assert_eq!((body.settings(), keyring.settings()), (settings.clone(), settings));
    assert_eq!(image.slots.len(), 2);

    // The uri of the golden slot is not the key file's: it is given that of its new place.
    keyring.slots().replace("default", kms.clone()).unwrap();
    assert_eq!(parsed().slots[0].context_version, WrapContext::VERSION);
    keyring.keyspaces().create("tenant").unwrap();
    let before = parsed();
    keyring.keyspaces().danger_shred("tenant").unwrap();
    let (image, body) = read();
    assert!(later(&body));
    assert_ne!(image.fixed.store_key_id, before.fixed.store_key_id);
    for (now, before) in image.slots.iter().zip(&before.slots) {
        let kept = |slot: &Slot| (slot.slot_key_id, slot.context_version, slot.blob.clone());
        assert_eq!(kept(now), kept(before));
        assert_ne!(now.store_key, before.store_key);
    }
    // The other slot's key leads to the new store key, too.
    let mut far = SlotKey::zeroed();
    far.bytes_mut().fill(0x62);
    let fixed = &image.fixed;
    let key = image.slots[1].unwrap_store_key(&far, fixed.store_id, fixed.store_key_id).unwrap();
    assert!(image.is_under(&key).unwrap());
    let error = keyring.keys().rotate_store_key().unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("west hcvault://vault:8200/transit/keys/app"), "{cause}");
    assert!(!cause.contains("default"), "{cause}");
}

#[test]
fn the_last_generation_is_not_followed_by_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let kms = key_file(&dir);
    let image = Image::parse(stored(GOLDEN.to_vec())).unwrap();
    let mut body = image.authenticate(&store_key()).unwrap();
    body.location = [0; 16];
    let mut fixed = image.fixed.clone();
    fixed.generation = u64::MAX - 1;
    let bytes = crate::keyring::format::encode(&fixed, &image.slots, &body, &store_key()).unwrap();
    let storage = Arc::new(MemoryStorage::new());
    storage.commit(&bytes, fixed.generation, None).unwrap();
    let options = Options { background: false, ..Options::default() };
    let keyring = Keyring::open(storage.clone(), kms, options).unwrap();
    let error = keyring.keys().rotate().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyringCorrupt);
    assert_eq!(storage.load().unwrap().unwrap().bytes, bytes);
}

/// Who has the store key but no data key, or a fault that the MAC was made over.
#[test]
fn a_data_key_that_does_not_unwrap_is_a_corrupt_keyring() {
    let dir = tempfile::tempdir().unwrap();
    let kms = key_file(&dir);
    let image = Image::parse(stored(GOLDEN.to_vec())).unwrap();
    let open = |edit: &dyn Fn(&mut Body)| {
        let mut body = image.authenticate(&store_key()).unwrap();
        edit(&mut body);
        let (fixed, key) = (&image.fixed, store_key());
        let bytes = crate::keyring::format::encode(fixed, &image.slots, &body, &key).unwrap();
        let storage = MemoryStorage::new();
        storage.commit(&bytes, fixed.generation, None).unwrap();
        let options = Options { background: false, ..Options::default() };
        Keyring::open_read_only(storage, kms.clone(), options).map(drop).map_err(|e| e.kind())
    };
    assert_eq!(open(&|_| {}), Ok(()));
    let keys = image.authenticate(&store_key()).unwrap().keys;
    let live: Vec<_> = (0..keys.len()).filter(|at| !keys[*at].wrap.is_erased()).collect();
    let (one, other) = (live[0], live[1]);
    for edit in [
        &|body: &mut Body| body.keys[one].created_ns ^= 1,
        &|body: &mut Body| body.keys[one].store_key_id[0] ^= 1,
        &|body: &mut Body| body.keys[one].wrap = keys[other].wrap.clone(),
    ] as [&dyn Fn(&mut Body); 3]
    {
        assert_eq!(open(edit), Err(ErrorKind::KeyringCorrupt));
    }
}

/// A bug in making a slot must not reach the disk.
#[test]
fn a_draft_whose_slot_leads_elsewhere_is_not_proven() {
    use crate::keyring::commit::Draft;
    use crate::keyring::{Counts, Snapshot, Unlocked};

    let image = Image::parse(stored(GOLDEN.to_vec())).unwrap();
    let body = image.authenticate(&store_key()).unwrap();
    let unlocked =
        Unlocked::new(Arc::new(store_key()), &image, &body, None, &Counts::new()).unwrap();
    let snapshot = Snapshot { image, body, unlocked: Some(Arc::new(unlocked)) };
    let draft = || Draft::new(&snapshot, snapshot.unlocked().unwrap(), 1);
    draft().prove(&snapshot).unwrap();
    let edits: [fn(&mut Draft); 4] = [
        |draft| draft.slots[1].store_key = Wrap::ERASED,
        |draft| draft.slots[1].store_key = draft.slots[0].store_key.clone(),
        |draft| draft.body.slot_keys.truncate(1),
        |draft| {
            let other = (SlotKeyId::from_bytes(draft.slots[1].slot_key_id), &SlotKey::zeroed());
            let top = (draft.store_key_id, &*draft.store_key);
            draft.body.slot_keys[1] = KeptSlotKey::new(other, draft.store_id(), top).unwrap();
        },
    ];
    for edit in edits {
        let mut bad = draft();
        edit(&mut bad);
        assert!(bad.prove(&snapshot).is_err());
    }
}

/// The price of retirement without key services, and what ends it: who kept an old store
/// key and its image follows the slot keys to later store keys, up to the next rotation of
/// the store key.
#[test]
fn an_old_store_key_leads_to_later_ones_until_it_is_rotated() {
    let dir = tempfile::tempdir().unwrap();
    let kms = key_file(&dir);
    let storage = Arc::new(MemoryStorage::new());
    let keyring = Keyring::create(storage.clone(), kms.clone(), Options::default()).unwrap();
    let parsed = || Image::parse(storage.load().unwrap().unwrap()).unwrap();
    let kept = parsed();
    let (store_key, body) = unlock(&kept, &kms).unwrap();
    // All that it gives: the keys of the slots, of then and, if they are wrapped by it, now.
    let follow = |now: &Image| {
        let ids = (kept.fixed.store_id, kept.fixed.store_key_id);
        let slot_key = |body: &Body, slot: &Slot| {
            body.slot_key(&slot.slot_key_id, ids.0, (ids.1, &store_key)).ok()
        };
        let now_body = unlock(now, &kms).unwrap().1;
        let keys = [slot_key(&body, &kept.slots[0]), slot_key(&now_body, &now.slots[0])];
        keys.iter().flatten().any(|key| {
            let id = now.fixed.store_key_id;
            now.slots[0]
                .unwrap_store_key(key, ids.0, id)
                .is_ok_and(|key| now.is_under(&key).unwrap())
        })
    };
    keyring.keyspaces().create("tenant").unwrap();
    keyring.keyspaces().danger_shred("tenant").unwrap();
    assert!(!parsed().is_under(&store_key).unwrap() && follow(&parsed()));
    keyring.keys().rotate_store_key().unwrap();
    assert!(!parsed().is_under(&store_key).unwrap() && !follow(&parsed()));
}

/// As after a crash between a destruction and the removal of the older images: the slots'
/// blobs are the same, and the older image has the wrapped key that was destroyed.
#[test]
fn an_image_from_before_a_destruction_goes_at_the_next_opening() {
    let dir = tempfile::tempdir().unwrap();
    let kms = key_file(&dir);
    let storage = Arc::new(MemoryStorage::new());
    let keyring = Keyring::create(storage.clone(), kms.clone(), Options::default()).unwrap();
    keyring.keyspaces().create("tenant").unwrap();
    let before = storage.load().unwrap().unwrap();
    keyring.keyspaces().danger_shred("tenant").unwrap();
    drop(keyring);
    let after = storage.load().unwrap().unwrap();

    let crashed = Arc::new(MemoryStorage::new());
    crashed.commit(&before.bytes, 2, None).unwrap();
    let first = crashed.load().unwrap().unwrap();
    crashed.commit(&after.bytes, 3, Some(&first)).unwrap();
    assert_eq!(crashed.kept().unwrap().len(), 1);
    drop(Keyring::open(crashed.clone(), kms, Options::default()).unwrap());
    assert!(crashed.kept().unwrap().is_empty());
}
