//! A lost or damaged keyring, and the mirror.

use std::sync::Arc;

use atrest::keyring::{
    Access, AuditKind, DirectoryStorage, FilesBeside as _, ImagePlace, KEYRING_FILE, KeyringInfo,
    Recovery,
};
use atrest::kms::Kms;
use atrest::{EncryptedFs, Error, ErrorKind, Keyring};

use crate::support::{
    DIR, ScriptedKms, TestStore, check_file, in_dir, killed, kind, manual, mem_create, mem_files,
    mem_open, mem_storage, store_of, write_file,
};
use atrest_testkit::MemFs;

mod again;
mod lines;

const MIRROR: &str = "/mirror";

fn mirrored(mem: &MemFs) -> DirectoryStorage {
    mem.put_dir(std::path::Path::new(MIRROR));
    mem_storage(mem).with_mirror(MIRROR)
}

fn recover(
    mem: &MemFs,
    storage: DirectoryStorage,
    place: ImagePlace,
    kms: &Arc<ScriptedKms>,
) -> Result<(EncryptedFs, Recovery), Error> {
    let (keyring, recovery) = storage.recover(place, vec![kms.clone()], manual())?;
    Ok((mem_files(mem, keyring), recovery))
}

/// Three generations, a file under the data key of each.
fn three() -> (MemFs, Arc<ScriptedKms>) {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    let fs = mem_create(&mem, &kms).unwrap();
    write_file(&fs, "first").unwrap();
    for name in ["second", "third"] {
        fs.keyring().keys().rotate().unwrap();
        write_file(&fs, name).unwrap();
    }
    (killed(&mem, fs), kms)
}

fn keys(kms: &Arc<ScriptedKms>) -> Vec<Arc<dyn Kms>> {
    vec![kms.clone()]
}

fn damage(mem: &MemFs) {
    let mut bytes = mem.files()[KEYRING_FILE].clone();
    bytes[300] ^= 1;
    mem.put(&in_dir(KEYRING_FILE), &bytes);
}

#[test]
fn images_tell_what_they_would_open() {
    let (mem, kms) = three();
    damage(&mem);
    assert_eq!(kind(mem_open(&mem, &kms)), ErrorKind::KeyringCorrupt);
    let storage = mem_storage(&mem);
    let images = storage.images(&keys(&kms), &manual()).unwrap();
    let places: Vec<_> = images.iter().map(|image| image.place).collect();
    assert_eq!(places, [ImagePlace::Current, ImagePlace::Kept(2), ImagePlace::Kept(1)]);
    assert!(images[0].info.is_none() && images[0].problem.is_some());
    assert_eq!(images[1].data_keys.as_ref().unwrap().len(), 2);
    assert_eq!(images[2].data_keys.as_ref().unwrap().len(), 1);
    // Without a key, and with a wrong one.
    let images = storage.images(&[], &manual()).unwrap();
    assert!(images[1].info.is_some() && images[1].data_keys.is_none());
    let images = storage.images(&[ScriptedKms::new(8)], &manual()).unwrap();
    assert!(images[1].data_keys.is_none() && images[1].problem.is_some());
}

#[test]
fn an_image_is_put_back_only_when_it_is_chosen_and_needed() {
    let (mem, kms) = three();
    // The present one is good: nothing to recover.
    let chosen = recover(&mem, mem_storage(&mem), ImagePlace::Kept(2), &kms);
    assert_eq!(kind(chosen), ErrorKind::KeyringExists);
    damage(&mem);
    // While access is revoked no service is asked, and nothing changes.
    Access::request_revocation(&mem_storage(&mem)).unwrap();
    let (before, asked) = (mem.files(), kms.unwraps());
    let withdrawn = recover(&mem, mem_storage(&mem), ImagePlace::Kept(2), &kms);
    assert_eq!(kind(withdrawn), ErrorKind::CmekRevoked);
    assert_eq!((mem.files(), kms.unwraps()), (before, asked));
    mem_storage(&mem).remove_beside("revoke").unwrap();
    let before = mem.files();
    let absent = recover(&mem, mem_storage(&mem), ImagePlace::Kept(9), &kms);
    assert_eq!(kind(absent), ErrorKind::KeyringMissing);
    let absent = recover(&mem, mem_storage(&mem), ImagePlace::Mirror, &kms);
    assert_eq!(kind(absent), ErrorKind::KeyringMissing);
    let current = recover(&mem, mem_storage(&mem), ImagePlace::Current, &kms);
    assert_eq!(kind(current), ErrorKind::KeyringCorrupt);
    let wrong = recover(&mem, mem_storage(&mem), ImagePlace::Kept(2), &ScriptedKms::new(8));
    assert!(matches!(kind(wrong), ErrorKind::Kms(_)));
    assert_eq!(mem.files(), before);

    let (fs, recovery) = recover(&mem, mem_storage(&mem), ImagePlace::Kept(2), &kms).unwrap();
    assert_eq!(recovery.generation, 2);
    check_file(&fs, "first");
    check_file(&fs, "second");
    assert_eq!(kind(fs.open(in_dir("third"))), ErrorKind::UnknownKey);
    // A new data key, the bad image aside, an event.
    assert_eq!(fs.keyring().keys().active_id().unwrap(), recovery.data_key_id);
    let status = fs.keyring().status();
    assert_eq!((status.data_keys.len(), status.info.generation), (3, 3));
    assert!(status.history.iter().any(|event| event.what == AuditKind::Recovered));
    let aside = recovery.kept_aside[0].file_name().unwrap().to_str().unwrap();
    assert_eq!(mem.files()[aside], before[KEYRING_FILE]);
    write_file(&fs, "fourth").unwrap();
    drop(fs);
    check_file(&mem_open(&mem, &kms).unwrap(), "fourth");
}

#[test]
fn later_images_do_not_pass_for_older_ones() {
    let (mem, kms) = three();
    mem.put(&in_dir(KEYRING_FILE), b"gone");
    let (fs, recovery) = recover(&mem, mem_storage(&mem), ImagePlace::Kept(1), &kms).unwrap();
    assert_eq!(recovery.kept_aside.len(), 2);
    for _ in 0..4 {
        fs.keyring().keys().rotate().unwrap();
    }
    drop(fs);
    let images = mem_storage(&mem).images(&[kms], &manual()).unwrap();
    let generations: Vec<_> =
        images.iter().map(|image| image.info.as_ref().unwrap().generation).collect();
    assert_eq!(generations, [6, 5, 4]);
}

fn generation(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[32..40].try_into().unwrap())
}

#[test]
fn the_mirror_has_every_commit_and_is_never_newer() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    let keyring = Keyring::create(mirrored(&mem), kms.clone(), manual()).unwrap();
    drop(keyring);
    mem.clear_log();
    let run = |mem: &MemFs| -> Result<(), Error> {
        let keyring = Keyring::open(mirrored(mem), kms.clone(), manual())?;
        let fs = mem_files(mem, keyring);
        fs.keyring().keys().rotate()?;
        write_file(&fs, "file")
    };
    let count = {
        let fork = mem.fork();
        run(&fork).unwrap();
        fork.log().len()
    };
    let mirror_of = |mem: &MemFs| mem.read(&std::path::Path::new(MIRROR).join(KEYRING_FILE));
    for at in 0..count {
        let stopped = mem.fork();
        stopped.stop_at(at);
        drop(run(&stopped));
        for (crash, left) in stopped.crashes() {
            let mirror = mirror_of(&left).unwrap();
            let current = left.read(&in_dir(KEYRING_FILE)).unwrap();
            let (mirrored_, stored) = (generation(&mirror), generation(&current));
            assert!(mirrored_ == stored || mirrored_ + 1 == stored, "{at} {crash:?}");
            // What was written is under keys that the mirror alone opens too.
            left.put(&in_dir(KEYRING_FILE), b"lost");
            let recovered = recover(&left, mirrored(&left), ImagePlace::Mirror, &kms);
            let (fs, _) = recovered.unwrap_or_else(|error| panic!("{at} {crash:?}: {error:?}"));
            if left.read(&in_dir("file")).is_some_and(|bytes| bytes.len() > 4096) {
                check_file(&fs, "file");
            }
        }
    }
}

#[test]
fn the_mirror_of_a_killed_writer_is_durable_before_the_next_one_commits() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    drop(Keyring::create(mirrored(&mem), kms.clone(), manual()).unwrap());
    let open = |mem: &MemFs| Keyring::open(mirrored(mem), kms.clone(), manual());
    let count = {
        let fork = mem.fork();
        open(&fork).unwrap().keys().rotate().unwrap();
        fork.log().len()
    };
    for at in 0..=count {
        // The process dies, the machine goes on, and has a power cut under the next process.
        let killed = mem.fork();
        killed.stop_at(at);
        drop(open(&killed).and_then(|keyring| keyring.keys().rotate()));
        let killed = killed.fork();
        killed.keep_points();
        let keyring = open(&killed).unwrap();
        keyring.keys().rotate().unwrap();
        std::mem::forget(keyring);
        let mut next = 0;
        let images = killed.crash_images(64, &mut |end| {
            next += 1;
            next % end
        });
        let generation_at = |fs: &MemFs, dir: &str| {
            let bytes = fs.read(&std::path::Path::new(dir).join(KEYRING_FILE));
            generation(&bytes.unwrap())
        };
        for image in images {
            let (mirror, stored) =
                (generation_at(&image.fs, MIRROR), generation_at(&image.fs, DIR));
            let behind = u64::from(!image.is_now);
            assert!(mirror <= stored && mirror + behind >= stored, "{at}: {mirror} {stored}");
        }
    }
}

#[test]
fn a_mirror_is_brought_up_to_date_and_guards_against_rollback() {
    let (mem, kms) = three();
    let mirror = std::path::Path::new(MIRROR).join(KEYRING_FILE);
    // Given to a store that had none.
    drop(Keyring::open(mirrored(&mem), kms.clone(), manual()).unwrap());
    assert_eq!(mem.read(&mirror), mem.read(&in_dir(KEYRING_FILE)));
    // The store went on without it.
    mem_open(&mem, &kms).unwrap().keyring().keys().rotate().unwrap();
    assert_ne!(mem.read(&mirror), mem.read(&in_dir(KEYRING_FILE)));
    drop(Keyring::open(mirrored(&mem), kms.clone(), manual()).unwrap());
    assert_eq!(mem.read(&mirror), mem.read(&in_dir(KEYRING_FILE)));
    // Somebody put an older keyring back.
    let older = mem.read(&in_dir("KEYRING.2")).or(mem.read(&in_dir("KEYRING.3"))).unwrap();
    mem.put(&in_dir(KEYRING_FILE), &older);
    let opened = Keyring::open(mirrored(&mem), kms.clone(), manual());
    assert_eq!(kind(opened), ErrorKind::KeyringRolledBack);
    let (fs, recovery) = recover(&mem, mirrored(&mem), ImagePlace::Mirror, &kms).unwrap();
    assert_eq!(recovery.generation, 4);
    check_file(&fs, "third");
    drop(fs);
    // An older one by choice, against the mirror.
    damage(&mem);
    let images = mirrored(&mem).images(&keys(&kms), &manual()).unwrap();
    let kept = images.iter().map(|image| image.place);
    let kept = kept.filter(|place| matches!(place, ImagePlace::Kept(_))).min().unwrap();
    drop(recover(&mem, mirrored(&mem), kept, &kms).unwrap());
    assert_eq!(mem.read(&mirror), mem.read(&in_dir(KEYRING_FILE)));
    // Another store's mirror.
    let other = MemFs::new(DIR);
    drop(mem_create(&other, &kms).unwrap());
    other.put(&mirror, &mem.read(&mirror).unwrap());
    let opened = Keyring::open(mirrored(&other), kms.clone(), manual());
    assert_eq!(kind(opened), ErrorKind::KeyringExists);
    assert_eq!(other.read(&mirror), mem.read(&mirror));
}

#[test]
fn a_mirror_that_fails_leaves_the_store_as_it_was() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    let keyring = Keyring::create(mirrored(&mem), kms.clone(), manual()).unwrap();
    let before = mem.read(&in_dir(KEYRING_FILE));
    mem.room(Some(10));
    assert!(matches!(kind(keyring.keys().rotate()), ErrorKind::Io(_)));
    mem.room(None);
    assert_eq!(mem.read(&in_dir(KEYRING_FILE)), before);
    // Not poisoned: the next one works.
    keyring.keys().rotate().unwrap();
    // A directory that is not there.
    let store = TestStore::new();
    drop(store.keyring());
    let missing = store.dir.path().join("missing");
    let opened = Keyring::open(store.storage().with_mirror(missing), store.kms(), manual());
    assert!(matches!(kind(opened), ErrorKind::Io(_)));
    drop(store.keyring());
}

#[test]
fn nothing_is_replaced_or_destroyed_past_a_mirror() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    let mirror = std::path::Path::new(MIRROR).join(KEYRING_FILE);
    let with_mirror =
        || mem_files(&mem, Keyring::open(mirrored(&mem), kms.clone(), manual()).unwrap());
    let proofs = |fs: &EncryptedFs| store_of(fs).renewal().prove_all_destroyed(&|_| {});
    let keyring = Keyring::create(mirrored(&mem), kms.clone(), manual()).unwrap();
    keyring.keyspaces().create("red").unwrap();
    drop(keyring);
    // Whoever was not given it goes on, but for what it would keep.
    let fs = mem_open(&mem, &kms).unwrap();
    fs.keyring().keys().rotate().unwrap();
    fs.keyring().slots().add("second", ScriptedKms::new(8)).unwrap();
    write_file(&fs, "file").unwrap();
    let before = mem.files();
    let refused = fs.keyring().keyspaces().danger_shred("red").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.to_string().contains(MIRROR), "{refused}");
    for refused in [
        fs.keyring().keys().rotate_store_key().map(drop),
        fs.keyring().slots().rewrap(None).map(drop),
        fs.keyring().slots().remove("second"),
        fs.keyring().slots().replace("default", ScriptedKms::new(9)),
        fs.keyring().slots().enable_cmek(ScriptedKms::new(9)),
        fs.keyring().keyspaces().danger_shred_store(fs.keyring().store_id()),
    ] {
        assert_eq!(kind(refused), ErrorKind::InvalidArgument);
    }
    assert_eq!(mem.files(), before);
    drop(fs);
    let fs = with_mirror();
    fs.keyring().keyspaces().danger_shred("red").unwrap();
    assert_eq!(proofs(&fs).unwrap().len(), 1);
    drop(fs);
    // Without it nobody says that the key is gone, nor with one that lacks the present image.
    assert_eq!(kind(proofs(&mem_open(&mem, &kms).unwrap())), ErrorKind::InvalidArgument);
    let reader =
        || mem_files(&mem, Keyring::open_read_only(mirrored(&mem), kms.clone(), manual()).unwrap());
    assert_eq!(proofs(&reader()).unwrap().len(), 1);
    let present = mem.read(&mirror).unwrap();
    for other in [Some(&before[KEYRING_FILE]), None] {
        match other {
            Some(other) => mem.put(&mirror, other),
            None => mem.delete(&mirror),
        }
        assert_eq!(kind(proofs(&reader())), ErrorKind::InvalidArgument);
        assert_eq!(proofs(&with_mirror()).unwrap().len(), 1);
        assert_eq!(mem.read(&mirror).unwrap(), present);
    }
    // It is the same one wherever it is mounted; where nothing is, there is another.
    let is_note = |name: &String| name.starts_with("KEYRING.mirror.");
    let note = mem.files().into_keys().find(is_note).unwrap();
    mem.put_dir(std::path::Path::new("/moved"));
    for name in [KEYRING_FILE, &note] {
        let path = std::path::Path::new(MIRROR).join(name);
        mem.put(&std::path::Path::new("/moved").join(name), &mem.read(&path).unwrap());
        mem.delete(&path);
    }
    let moved = mem_storage(&mem).with_mirror("/moved");
    let fs = mem_files(&mem, Keyring::open(moved, kms.clone(), manual()).unwrap());
    assert_eq!(proofs(&fs).unwrap().len(), 1);
    drop(fs);
    assert_eq!(kind(proofs(&with_mirror())), ErrorKind::InvalidArgument);
    // Another mirror is not this one.
    mem.put_dir(std::path::Path::new("/mirror 2"));
    let second = mem_storage(&mem).with_mirror("/mirror 2");
    let fs = mem_files(&mem, Keyring::open(second, kms.clone(), manual()).unwrap());
    assert_eq!(kind(proofs(&fs)), ErrorKind::InvalidArgument);
    drop(fs);
    // They were given up.
    let notes: Vec<_> = mem.files().into_keys().filter(is_note).collect();
    assert_eq!(notes.len(), 3);
    notes.iter().for_each(|name| mem.delete(&in_dir(name)));
    let fs = mem_open(&mem, &kms).unwrap();
    assert_eq!(proofs(&fs).unwrap().len(), 1);
    fs.keyring().keyspaces().danger_shred_store(fs.keyring().store_id()).unwrap();
}

#[test]
fn a_mirror_has_nothing_before_the_store_tells_of_it() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    drop(mem_create(&mem, &kms).unwrap());
    mem.put_dir(std::path::Path::new(MIRROR));
    let open = |mem: &MemFs| Keyring::open(mirrored(mem), kms.clone(), manual());
    let count = {
        let fork = mem.fork();
        open(&fork).unwrap();
        fork.log().len()
    };
    for at in 0..=count {
        let stopped = mem.fork();
        stopped.stop_at(at);
        drop(open(&stopped));
        for (crash, left) in stopped.crashes() {
            let told = left
                .files()
                .keys()
                .any(|name| name.starts_with("KEYRING.mirror.") && !name.ends_with(".new"));
            let has = ["KEYRING", "KEYRING.new"]
                .iter()
                .any(|name| left.read(&std::path::Path::new(MIRROR).join(name)).is_some());
            assert!(told || !has, "{at} {crash:?}");
        }
    }
}

/// Every way to write a store whose keyring was put back is refused, and nothing of it
/// changes; reading goes on, and the newer images tell.
fn assert_rolled_back(mem: &MemFs, kms: &Arc<ScriptedKms>, newer: &[u64]) {
    let before = mem.files();
    for _ in 0..6 {
        assert_eq!(kind(mem_open(mem, kms)), ErrorKind::KeyringRolledBack);
        let opened = Keyring::open_or_create(mem_storage(mem), kms.clone(), manual());
        assert_eq!(kind(opened), ErrorKind::KeyringRolledBack);
    }
    let lock = |files: &mut std::collections::BTreeMap<String, Vec<u8>>| {
        files.remove("KEYRING.lock");
    };
    let (mut before, mut after) = (before, mem.files());
    lock(&mut before);
    lock(&mut after);
    assert_eq!(after, before);
    let info = KeyringInfo::read(&mem_storage(mem)).unwrap();
    assert_eq!(info.newer_images(&mem_storage(mem)).unwrap(), newer);
    drop(Keyring::open_read_only(mem_storage(mem), kms.clone(), manual()).unwrap());
}

#[test]
fn a_keyring_put_back_over_a_rotated_store_key_destroys_nothing() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    let fs = mem_create(&mem, &kms).unwrap();
    fs.keyring().keys().rotate().unwrap();
    let second = mem.read(&in_dir(KEYRING_FILE)).unwrap();
    fs.keyring().keys().rotate_store_key().unwrap();
    write_file(&fs, "f").unwrap();
    fs.keyring().keys().rotate().unwrap();
    fs.keyring().keys().rotate().unwrap();
    let mem = killed(&mem, fs);
    mem.put(&in_dir(KEYRING_FILE), &second);
    assert_rolled_back(&mem, &kms, &[3, 4]);

    let fork = mem.fork();
    let (fs, recovery) = recover(&fork, mem_storage(&fork), ImagePlace::Kept(4), &kms).unwrap();
    assert_eq!(recovery.generation, 4);
    check_file(&fs, "f");
    // Or the old line goes on, by choice: then too the newer images stay.
    let kept = mem.read(&in_dir("KEYRING.4"));
    let (fs, recovery) = recover(&mem, mem_storage(&mem), ImagePlace::Current, &kms).unwrap();
    assert_eq!((recovery.generation, recovery.kept_aside.len()), (2, 3));
    assert!(recovery.kept_aside.iter().any(|path| mem.read(path) == kept));
    write_file(&fs, "g").unwrap();
    fs.keyring().keys().rotate_store_key().unwrap();
    assert!(recovery.kept_aside.iter().any(|path| mem.read(path) == kept));
    drop(fs);
    check_file(&mem_open(&mem, &kms).unwrap(), "g");
}

#[test]
fn nothing_is_committed_beside_images_of_another_line() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    let fs = mem_create(&mem, &kms).unwrap();
    fs.keyring().keys().rotate().unwrap();
    let current = mem.read(&in_dir(KEYRING_FILE)).unwrap();
    let generation = fs.keyring().anchor().generation;
    // Of a copy of the directory that went on, say. The keyring itself is the one in memory.
    for later in [generation + 1, generation + 7] {
        let stranger = in_dir(&format!("{KEYRING_FILE}.{later}"));
        mem.put(&stranger, b"of another line");
        assert_eq!(kind(fs.keyring().keys().rotate()), ErrorKind::KeyringRolledBack);
        assert_eq!(mem.read(&in_dir(KEYRING_FILE)).unwrap(), current);
        assert_eq!(mem.read(&stranger).unwrap(), b"of another line");
        mem.delete(&stranger);
    }
    fs.keyring().keys().rotate().unwrap();
    assert_eq!(fs.keyring().anchor().generation, generation + 1);
}

#[test]
fn a_keyring_put_back_is_refused_at_each_rotation() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    let fs = mem_create(&mem, &kms).unwrap();
    let first = mem.read(&in_dir(KEYRING_FILE)).unwrap();
    for _ in 0..3 {
        fs.keyring().keys().rotate().unwrap();
    }
    write_file(&fs, "new").unwrap();
    // An open handle notices by itself.
    let current = mem.read(&in_dir(KEYRING_FILE)).unwrap();
    mem.put(&in_dir(KEYRING_FILE), &first);
    assert_eq!(kind(fs.keyring().keys().rotate()), ErrorKind::KeyringRolledBack);
    mem.put(&in_dir(KEYRING_FILE), &current);
    drop(fs);
    mem.put(&in_dir(KEYRING_FILE), &first);
    assert_rolled_back(&mem, &kms, &[3, 4]);
    let (fs, _) = recover(&mem, mem_storage(&mem), ImagePlace::Kept(4), &kms).unwrap();
    check_file(&fs, "new");
}

#[test]
fn another_image_of_the_same_generation_is_of_another_line() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    let fs = mem_create(&mem, &kms).unwrap();
    fs.keyring().keys().rotate().unwrap();
    let other = mem.fork();
    fs.keyring().keys().rotate().unwrap();
    fs.keyring().keys().rotate().unwrap();
    let mem = killed(&mem, fs);
    let fs = mem_open(&other, &kms).unwrap();
    fs.keyring().keys().rotate().unwrap();
    // Generation 3 of the one line beside KEYRING.3 of the other.
    drop(killed(&other, fs));
    mem.put(&in_dir(KEYRING_FILE), &other.read(&in_dir(KEYRING_FILE)).unwrap());
    assert_rolled_back(&mem, &kms, &[3]);
}

#[test]
fn what_a_recovery_put_aside_spoils_the_proof_of_destruction() {
    let (mem, kms) = three();
    damage(&mem);
    let (fs, recovery) = recover(&mem, mem_storage(&mem), ImagePlace::Kept(2), &kms).unwrap();
    let keyring = fs.keyring();
    assert_eq!(keyring.keys().copies_aside().unwrap().len(), recovery.kept_aside.len());
    keyring.keys().rotate_store_key().unwrap();
    assert!(recovery.kept_aside.iter().all(|path| mem.read(path).is_some()));
    keyring.keys().danger_forget_aside().unwrap();
    assert!(keyring.keys().copies_aside().unwrap().is_empty());
    assert!(recovery.kept_aside.iter().all(|path| mem.read(path).is_none()));

    // With all keys of the store they go without being asked for.
    let aside = in_dir("KEYRING.bad-1");
    mem.put(&aside, b"an image");
    keyring.keyspaces().danger_shred_store(keyring.store_id()).unwrap();
    assert_eq!(mem.read(&aside), None);
}

#[test]
fn what_a_killed_restore_left_goes_with_the_older_images() {
    let (mem, kms) = three();
    let old = mem.read(&in_dir("KEYRING.1")).unwrap();
    let dir = in_dir("KEYRING.restore");
    mem.put_dir(&dir);
    mem.put(&dir.join("KEYRING.1"), &old);
    mem.put(&dir.join("KEYRING.from"), b"a note");
    let fs = mem_open(&mem, &kms).unwrap();
    assert_eq!(fs.keyring().keys().copies_aside().unwrap(), ["KEYRING.restore/KEYRING.1"]);
    fs.keyring().keys().rotate_store_key().unwrap();
    assert_eq!(mem.read(&dir.join("KEYRING.1")), None);
    assert!(fs.keyring().keys().copies_aside().unwrap().is_empty());
    // One under way has its keyring in there, and keeps it.
    mem.put(&dir.join(KEYRING_FILE), &old);
    mem.put(&dir.join("KEYRING.1"), &old);
    fs.keyring().keys().rotate_store_key().unwrap();
    assert!(mem.read(&dir.join("KEYRING.1")).is_some());
}
