//! Crashes and faults between any two operations of a keyring commit.

use std::sync::Arc;

use atrest::keyring::Access;
use atrest::{EncryptedFs, Error, ErrorKind, FileKind, Keyring};

use crate::support::{
    DIR, ScriptedKms, check_file, in_dir, killed, kind, manual, mem_create, mem_files, mem_open,
    mem_storage, write_file,
};
use atrest_testkit::MemFs;
use atrest_testkit::mem_fs::{After, Fault, How, Op, OpKind, kill_everywhere};

/// What changes the keyring. The key service of `2` is the one that takes over.
type Change = fn(&EncryptedFs) -> Result<(), Error>;

const CHANGES: [(&str, Change); 6] = [
    ("data key", |fs| fs.keyring().keys().rotate().map(drop)),
    ("store key", |fs| fs.keyring().keys().rotate_store_key().map(drop)),
    ("cmek", |fs| fs.keyring().slots().rotate(ScriptedKms::new(2))),
    ("slot", |fs| fs.keyring().slots().add("two", ScriptedKms::new(2))),
    ("rewrap", |fs| fs.keyring().slots().rewrap(None).map(drop)),
    ("local key", |fs| fs.keyring().slots().disable_cmek(ScriptedKms::new(2))),
];

/// A store of generation 3 with a file under each of its data keys.
fn base() -> MemFs {
    let mem = MemFs::new(DIR);
    let fs = mem_create(&mem, &ScriptedKms::new(1)).unwrap();
    write_file(&fs, "one").unwrap();
    fs.keyring().keys().rotate().unwrap();
    fs.keyring().keys().rotate().unwrap();
    write_file(&fs, "two").unwrap();
    killed(&mem, fs)
}

fn open_with_any(mem: &MemFs) -> EncryptedFs {
    let kms: Vec<Arc<dyn atrest::kms::Kms>> = vec![ScriptedKms::new(1), ScriptedKms::new(2)];
    let keyring = Keyring::open(mem_storage(mem), kms, manual()).unwrap();
    mem_files(mem, keyring)
}

/// The store opens in the old or the new generation with all its files, takes another
/// rotation, and opens again.
fn check(mem: &MemFs, files: &[&str], generations: &[u64]) {
    let fs = open_with_any(mem);
    let generation = fs.keyring().status().info.generation;
    assert!(generations.contains(&generation), "generation {generation}");
    files.iter().for_each(|file| check_file(&fs, file));
    fs.keyring().keys().rotate().unwrap();
    write_file(&fs, "after").unwrap();
    drop(fs);
    let fs = open_with_any(mem);
    files.iter().chain(&["after"]).for_each(|file| check_file(&fs, file));
}

#[test]
fn a_crash_in_a_rotation_leaves_the_old_or_the_new_generation() {
    for (name, change) in CHANGES {
        crash_in(&base(), name, change);
    }
}

#[test]
fn a_file_system_without_hard_links_keeps_copies_of_older_images() {
    let base = base();
    base.without_links();
    for (name, change) in CHANGES {
        crash_in(&base, name, change);
    }
    let before = base.files();
    let fs = mem_open(&base, &ScriptedKms::new(1)).unwrap();
    fs.keyring().keys().rotate().unwrap();
    let after = base.files();
    assert_eq!(after["KEYRING.3"], before["KEYRING"]);
    assert_eq!(after["KEYRING.2"], before["KEYRING.2"]);
    assert!(!after.contains_key("KEYRING.1") && !after.contains_key("KEYRING.3.new"));
    // A copy that was cut off goes with the older images, since it holds what they do.
    base.put(&in_dir("KEYRING.2.new"), &after["KEYRING.3"]);
    fs.keyring().keys().rotate_store_key().unwrap();
    let left: Vec<_> =
        base.files().into_keys().filter(|name| name.starts_with("KEYRING.")).collect();
    assert!(left.iter().all(|name| name == "KEYRING.lock"), "{left:?}");
    // A new store too.
    let mem = MemFs::new(DIR);
    mem.without_links();
    let fs = mem_create(&mem, &ScriptedKms::new(1)).unwrap();
    fs.keyring().keys().rotate().unwrap();
}

fn crash_in(base: &MemFs, name: &str, change: Change) {
    let run = |mem: &MemFs| -> Result<_, Error> {
        let fs = mem_open(mem, &ScriptedKms::new(1))?;
        change(&fs)?;
        Ok(fs)
    };
    let steps = kill_everywhere(base, run, |after| {
        println!("{name}, stopped at {}, {:?}", after.step, after.crash);
        // An older image is never a torn one.
        for (image, bytes) in after.fs.files() {
            let old = image.strip_prefix("KEYRING.").is_some_and(|n| n.len() == 1);
            let base = base.files();
            assert!(!old || base.values().any(|old| *old == bytes), "{image}");
        }
        // A change that was reported done is durable.
        let generations: &[u64] = if after.done { &[4] } else { &[3, 4] };
        check(&after.fs, &["one", "two"], generations);
    });
    assert!(steps > 10, "{name}: only {steps} steps");
}

#[test]
fn a_crash_in_creation_leaves_no_keyring_or_a_whole_one() {
    creation(&MemFs::new(DIR), |mem| mem_create(mem, &ScriptedKms::new(1)));
}

#[test]
fn a_crash_while_encryption_is_switched_on_leaves_the_plaintext_and_another_try() {
    let base = MemFs::new(DIR);
    base.put(&in_dir("plain"), b"plain");
    let enable = |mem: &MemFs| -> Result<_, Error> {
        let keyring =
            Keyring::create(mem_storage(mem), ScriptedKms::new(1), manual().allowing_plaintext())?;
        Ok(mem_files(mem, keyring))
    };
    creation(&base, |mem| {
        let fs = enable(mem);
        for (_, after) in mem.crashes() {
            assert_eq!(after.read(&in_dir("plain")).unwrap(), b"plain");
            // Done again, or done already; never on with the plaintext refused.
            let fs = enable(&after.fork()).or_else(|error| {
                assert_eq!(error.kind(), ErrorKind::KeyringExists);
                mem_open(&after, &ScriptedKms::new(1))
            });
            check_file(&fs.unwrap(), "plain");
        }
        fs
    });
}

fn creation(base: &MemFs, create: impl Fn(&MemFs) -> Result<EncryptedFs, Error>) {
    let steps = kill_everywhere(base, create, |After { step, done, crash, fs: mem }| {
        println!("stopped at {step}, {crash:?}");
        assert!(!done || mem.files().contains_key("KEYRING"));
        let again =
            Keyring::open_or_create(mem_storage(&mem), ScriptedKms::new(1), manual()).unwrap();
        assert_eq!(again.anchor().generation, 1);
        drop(again);
        mem_open(&mem, &ScriptedKms::new(1)).unwrap();
    });
    assert!(steps > 5, "only {steps} steps");
}

/// Opens a store that may be marked as revoked; whether it is.
fn is_revoked(mem: &MemFs) -> bool {
    match mem_open(mem, &ScriptedKms::new(1)) {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::CmekRevoked);
            true
        }
    }
}

/// Opens a store and takes back whatever withdrew its access.
fn restore(mem: &MemFs) -> Result<Keyring, Error> {
    Access::open_and_restore(mem_storage(mem), ScriptedKms::new(1), manual())
}

#[test]
fn a_revocation_that_was_reported_done_outlives_every_crash() {
    let run = |mem: &MemFs| -> Result<_, Error> {
        let fs = mem_open(mem, &ScriptedKms::new(1))?;
        fs.keyring().access().revoke()?;
        Ok(fs)
    };
    let steps = kill_everywhere(&base(), run, |After { step, done, crash, fs: mem }| {
        println!("stopped at {step}, {crash:?}");
        assert!(is_revoked(&mem) || !done);
        drop(restore(&mem).unwrap());
        check(&mem, &["one", "two"], &[3, 4, 5, 6]);
    });
    assert!(steps > 10, "only {steps} steps");
}

#[test]
fn a_crash_while_restoring_leaves_the_store_revoked_or_restored() {
    for requested in [false, true] {
        let base = base();
        if requested {
            Access::request_revocation(&mem_storage(&base)).unwrap();
        } else {
            mem_open(&base, &ScriptedKms::new(1)).unwrap().keyring().access().revoke().unwrap();
        }
        let steps = kill_everywhere(&base, restore, |After { step, done, crash, fs: mem }| {
            println!("requested {requested}, stopped at {step}, {crash:?}");
            if is_revoked(&mem) {
                assert!(!done);
                drop(restore(&mem).unwrap());
            }
            check(&mem, &["one", "two"], &[3, 4, 5, 6]);
        });
        assert!(steps > 8, "only {steps} steps");
    }
}

#[test]
fn no_file_names_a_data_key_that_a_crash_takes_back() {
    // The new writer finds what the old one left: it must not use it before it is durable.
    let base = base();
    let mut steps = 0;
    loop {
        let mem = base.fork();
        mem.stop_at(steps);
        let fs = mem_open(&mem, &ScriptedKms::new(1));
        let changed = fs.as_ref().is_ok_and(|fs| fs.keyring().keys().rotate().is_ok());
        drop(fs);
        // The process died, the system did not: what it wrote can be read.
        let mem = mem.fork();
        let fs = mem_open(&mem, &ScriptedKms::new(1)).unwrap();
        let mut writer = fs.create_new(in_dir("three"), FileKind::Table).unwrap();
        writer.append(b"three").unwrap();
        writer.finish().unwrap();
        // Now the power fails, and the file survives: it may be on another disk.
        let three = mem.files()["three"].clone();
        for (_, after) in mem.crashes() {
            after.put(&in_dir("three"), &three);
            check_file(&open_with_any(&after), "three");
        }
        if changed {
            break;
        }
        steps += 1;
    }
}

#[test]
fn a_new_image_is_synced_before_the_rename_and_the_directory_after() {
    for (name, change) in CHANGES {
        let mem = base();
        let fs = mem_open(&mem, &ScriptedKms::new(1)).unwrap();
        mem.clear_log();
        change(&fs).unwrap();
        let log = mem.log();
        let at = |wanted: &dyn Fn(&Op) -> bool| {
            log.iter().position(wanted).unwrap_or_else(|| panic!("{name}: {log:?}"))
        };
        let sync = at(&|op| matches!(op, Op::Sync(name, _) if name == "KEYRING.new"));
        let append = at(&|op| matches!(op, Op::Append(name, _) if name == "KEYRING.new"));
        let rename = at(&|op| *op == Op::Rename("KEYRING.new".into(), "KEYRING".into()));
        let sync_dir = at(&|op| *op == Op::SyncDir);
        let link = at(&|op| *op == Op::Link("KEYRING.3".into()));
        assert!(append < sync && sync < rename && rename < sync_dir, "{name}: {log:?}");
        assert!(link < rename, "{name}: {log:?}");
        assert_eq!(log.iter().filter(|op| matches!(op, Op::Sync(..))).count(), 1);
    }
}

#[test]
fn a_fault_in_a_rotation_leaves_a_handle_that_serves() {
    for (name, change) in CHANGES {
        let base = base();
        let mut steps = 0;
        let mut poisoned = 0;
        loop {
            let mem = base.fork();
            let fs = mem_open(&mem, &ScriptedKms::new(1)).unwrap();
            mem.clear_log();
            mem.fail_at(steps);
            let result = change(&fs);
            let hit = mem.log().len() > steps;
            let generation = fs.keyring().status().info.generation;
            let poisoning = result.as_ref().is_err_and(|e| e.kind() == ErrorKind::Poisoned);
            if generation == 3 && !poisoning {
                assert_eq!(mem.files(), base.files(), "{name}: fault at {steps}");
            }
            mem.fail_at(usize::MAX);
            println!("{name}, fault at {steps}: {result:?}");
            write_file(&fs, "three").unwrap();
            ["one", "two", "three"].iter().for_each(|file| check_file(&fs, file));
            // No file is synced twice after a failed sync.
            let mut synced = Vec::new();
            for op in mem.log() {
                if let Op::Sync(_, inode) = op {
                    assert!(!synced.contains(&inode), "{name}: inode {inode} synced twice");
                    synced.push(inode);
                }
            }
            let crashes = mem.crashes();
            if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Poisoned) {
                poisoned += 1;
                assert_eq!(kind(fs.keyring().keys().rotate()), ErrorKind::Poisoned);
                assert_eq!(kind(fs.keyring().reload()), ErrorKind::Poisoned);
                fs.keyring().access().revoke().unwrap();
                assert_eq!(kind(fs.keyring().access().restore()), ErrorKind::Poisoned);
            } else {
                fs.keyring().keys().rotate().unwrap();
                write_file(&fs, "four").unwrap();
                check_file(&fs, "four");
            }
            drop(fs);
            for (_, after) in crashes {
                check(&after, &["one", "two", "three"], &[3, 4, 5]);
            }
            if !hit {
                assert!(result.is_ok());
                break;
            }
            steps += 1;
        }
        assert_eq!(poisoned, 1, "{name}");
    }
}

#[test]
fn a_rename_whose_answer_was_lost_is_a_commit() {
    let late = |how| Fault { on: OpKind::Rename, name: "KEYRING".into(), after: 0, times: 1, how };
    for (name, change) in CHANGES {
        let mem = base();
        let fs = mem_open(&mem, &ScriptedKms::new(1)).unwrap();
        mem.arm(late(How::Late(5)));
        change(&fs).unwrap();
        assert!(mem.disarm());
        assert_eq!(fs.keyring().status().info.generation, 4, "{name}");
        for (_, after) in mem.crashes() {
            check(&after, &["one", "two"], &[4]);
        }
        // Who cannot look does not know.
        mem.arm(late(How::Late(5)));
        mem.arm(Fault { on: OpKind::Open, after: 1, ..late(How::Error(5)) });
        assert_eq!(kind(fs.keyring().keys().rotate()), ErrorKind::Poisoned, "{name}");
    }
}

#[test]
fn a_failed_rotation_leaves_the_directory_as_it_was() {
    let base = base();
    let before = base.files();
    let full = base.fork();
    let fs = mem_open(&full, &ScriptedKms::new(1)).unwrap();
    for room in [0, 1, 100, 700] {
        full.room(Some(room));
        for (_, change) in CHANGES {
            let refused = kind(change(&fs));
            assert_eq!(refused, ErrorKind::Io(std::io::ErrorKind::StorageFull));
            assert_eq!(full.files(), before);
        }
    }
    full.room(None);
    fs.keyring().keys().rotate().unwrap();
    drop(fs);
    check(&full, &["one", "two"], &[4]);
}

#[test]
fn a_writer_whose_sync_failed_never_syncs_again() {
    let mem = base();
    let fs = mem_open(&mem, &ScriptedKms::new(1)).unwrap();
    let mut writer = fs.create_new(in_dir("new"), FileKind::Log).unwrap();
    writer.append(b"data").unwrap();
    mem.clear_log();
    mem.fail_at(1);
    assert!(matches!(kind(writer.sync()), ErrorKind::Io(_)));
    assert_eq!(kind(writer.sync()), ErrorKind::Poisoned);
    assert_eq!(kind(writer.append(b"more")), ErrorKind::Poisoned);
    assert_eq!(kind(writer.flush()), ErrorKind::Poisoned);
    assert_eq!(kind(writer.finish()), ErrorKind::Poisoned);
    let syncs = mem.log().iter().filter(|op| matches!(op, Op::Sync(..))).count();
    assert_eq!(syncs, 1);
}

#[test]
fn a_writer_whose_write_failed_takes_no_more() {
    let mem = base();
    let fs = mem_open(&mem, &ScriptedKms::new(1)).unwrap().write_buffer_len(8192);
    let mut writer = fs.create_new(in_dir("new"), FileKind::Log).unwrap();
    mem.room(Some(10_000));
    assert_eq!(kind(writer.append(&[7; 20_000])), ErrorKind::Io(std::io::ErrorKind::StorageFull));
    mem.room(None);
    assert_eq!(kind(writer.append(b"more")), ErrorKind::Poisoned);
    assert_eq!(kind(writer.finish()), ErrorKind::Poisoned);
}

/// A finished file's content is durable, and its name when its directory is synced.
#[test]
fn who_syncs_the_directory_keeps_a_finished_file() {
    let mem = MemFs::new(DIR);
    let fs = mem_create(&mem, &ScriptedKms::new(1)).unwrap();
    let mut writer = fs.create_new(in_dir("file"), FileKind::Table).unwrap();
    writer.append(b"file").unwrap();
    writer.finish().unwrap();
    let lost = |after: &MemFs| after.read(&in_dir("file")).is_none();
    assert!(mem.crashes().iter().any(|(_, after)| lost(after)));
    for (_, after) in mem.crashes().iter().filter(|(_, after)| !lost(after)) {
        assert!(after.read(&in_dir("file")).unwrap().len() > 4096, "named files are whole");
    }
    fs.sync_dir(DIR).unwrap();
    drop(fs);
    for (_, after) in mem.crashes() {
        check_file(&mem_open(&after.fork(), &ScriptedKms::new(1)).unwrap(), "file");
    }
}
