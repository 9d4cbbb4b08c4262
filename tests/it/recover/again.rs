//! Recoveries that end too early.

use super::*;

/// Kills a recovery everywhere, looks what a mere opening finds, recovers again.
fn cut_off(mem: &MemFs, kms: &Arc<ScriptedKms>, place: ImagePlace, lost: &[Vec<u8>]) {
    let images = mem_storage(mem).images(&keys(kms), &manual()).unwrap();
    let chosen = images.iter().find(|image| image.place == place).unwrap();
    let old_keys = chosen.data_keys.clone().unwrap();
    let count = {
        let fork = mem.fork();
        recover(&fork, mem_storage(&fork), place, kms).unwrap();
        fork.log().len()
    };
    for at in 0..count {
        let stopped = mem.fork();
        stopped.stop_at(at);
        drop(recover(&stopped, mem_storage(&stopped), place, kms));
        for (crash, left) in stopped.crashes() {
            // Whoever just opens it goes on under no key of the chosen image.
            if let Ok(fs) = mem_open(&left.fork(), kms) {
                let active = fs.keyring().keys().active_id().unwrap();
                assert!(!old_keys.contains(&active), "{at} {crash:?}");
                let status = fs.keyring().status();
                assert!(status.history.iter().any(|e| e.what == AuditKind::Recovered));
            }
            let fs = match recover(&left, mem_storage(&left), place, kms) {
                Ok((fs, _)) => fs,
                // It was done already, and the commit after it was at its older image.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::KeyringExists | ErrorKind::KeyringMissing
                    ) =>
                {
                    mem_open(&left, kms).unwrap_or_else(|e| panic!("{at} {crash:?}: {e:?}"))
                }
                Err(error) => panic!("{at} {crash:?}: {error:?}"),
            };
            check_file(&fs, "first");
            write_file(&fs, "new").unwrap();
            let files = left.files();
            let there = |image: &Vec<u8>| files.values().any(|file| file == image);
            assert!(lost.iter().all(there), "{at} {crash:?}");
        }
    }
}

#[test]
fn a_recovery_that_is_cut_off_anywhere_is_done_again() {
    let (mem, kms) = three();
    damage(&mem);
    cut_off(&mem, &kms, ImagePlace::Kept(2), &[mem.files()[KEYRING_FILE].clone()]);
}

/// The first of three generations was put back, beside the others or another of its own number.
fn put_back() -> (MemFs, Arc<ScriptedKms>, Vec<Vec<u8>>) {
    let (mem, kms) = three();
    let read = |name: &str| mem.read(&in_dir(name)).unwrap();
    let images = [read("KEYRING.1"), read("KEYRING.2"), read(KEYRING_FILE)];
    mem.delete(&in_dir("KEYRING.1"));
    mem.put(&in_dir("KEYRING.3"), &images[2]);
    mem.put(&in_dir(KEYRING_FILE), &images[0]);
    (mem, kms, images.into())
}

#[test]
fn a_choice_of_the_present_image_is_cut_off_anywhere_and_done_again() {
    let (mem, kms, images) = put_back();
    cut_off(&mem, &kms, ImagePlace::Current, &images);
    cut_off(&mem, &kms, ImagePlace::Kept(2), &images);
}

/// Contested by another image of the same generation alone.
#[test]
fn a_choice_between_two_of_one_generation_is_cut_off_anywhere_and_done_again() {
    let (mem, kms, _) = put_back();
    mem.delete(&in_dir("KEYRING.2"));
    mem.delete(&in_dir("KEYRING.3"));
    let rotated = |mem: &MemFs| {
        mem_open(mem, &kms).unwrap().keyring().keys().rotate().unwrap();
        mem.read(&in_dir(KEYRING_FILE)).unwrap()
    };
    let both = [rotated(&mem.fork()), rotated(&mem)];
    assert_eq!(both.each_ref().map(|image| generation(image)), [2, 2]);
    mem.put(&in_dir("KEYRING.2"), &both[0]);
    assert_eq!(kind(mem_open(&mem, &kms)), ErrorKind::KeyringRolledBack);
    for place in [ImagePlace::Current, ImagePlace::Kept(2)] {
        cut_off(&mem, &kms, place, &both);
    }
    mem.without_links();
    cut_off(&mem, &kms, ImagePlace::Current, &both);
}

#[test]
fn a_recovery_without_room_leaves_all_as_it_was() {
    let (mem, kms, _) = put_back();
    for place in [ImagePlace::Current, ImagePlace::Kept(2)] {
        for room in [0, 10] {
            let full = mem.fork();
            full.room(Some(room));
            let failed = recover(&full, mem_storage(&full), place, &kms);
            assert!(matches!(kind(failed), ErrorKind::Io(_)));
            full.room(None);
            assert!(full.read(&in_dir(KEYRING_FILE)) == mem.read(&in_dir(KEYRING_FILE)));
            let (fs, _) = recover(&full, mem_storage(&full), place, &kms).unwrap();
            check_file(&fs, "first");
        }
    }
}
