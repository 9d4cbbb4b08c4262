//! A store and its mirror that went on apart.

use super::*;

/// A store whose directory was put back as it was before a rotation, and then committed so many
/// times without its mirror, with a file under the new key. What that mirror has.
fn apart(commits: usize) -> (MemFs, Arc<ScriptedKms>, Vec<u8>) {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    drop(Keyring::create(mirrored(&mem), kms.clone(), manual()).unwrap());
    let first = mem.read(&in_dir(KEYRING_FILE)).unwrap();
    let keyring = Keyring::open(mirrored(&mem), kms.clone(), manual()).unwrap();
    keyring.keys().rotate().unwrap();
    let fs = mem_files(&mem, keyring);
    write_file(&fs, "file").unwrap();
    let mem = killed(&mem, fs);
    let has = mem.read(&std::path::Path::new(MIRROR).join(KEYRING_FILE)).unwrap();
    // A backup of the whole directory is put back.
    mem.delete(&in_dir("KEYRING.1"));
    mem.put(&in_dir(KEYRING_FILE), &first);
    for _ in 0..commits {
        mem_open(&mem, &kms).unwrap().keyring().keys().rotate().unwrap();
    }
    (mem, kms, has)
}

/// Older than its mirror, of the same generation, the one after it, and one beside which another
/// of that generation is kept.
const APART: std::ops::RangeInclusive<usize> = 0..=3;

#[test]
fn a_mirror_of_another_line_is_not_overwritten() {
    let mirror = std::path::Path::new(MIRROR).join(KEYRING_FILE);
    for commits in APART {
        let (mem, kms, has) = apart(commits);
        for _ in 0..2 {
            let opened = Keyring::open(mirrored(&mem), kms.clone(), manual());
            assert_eq!(kind(opened), ErrorKind::KeyringRolledBack, "{commits}");
            assert!(mem.read(&mirror).unwrap() == has, "{commits}");
        }
    }
}

#[test]
fn a_recovery_goes_on_with_the_store_or_its_mirror_and_keeps_the_other() {
    for commits in APART {
        let (mem, kms, has) = apart(commits);
        let present = mem.read(&in_dir(KEYRING_FILE)).unwrap();
        for place in [ImagePlace::Current, ImagePlace::Mirror] {
            let mem = mem.fork();
            let (fs, recovery) = recover(&mem, mirrored(&mem), place, &kms).unwrap();
            let aside: Vec<_> = recovery.kept_aside.iter().map(|path| mem.read(path)).collect();
            assert!(aside.contains(&Some(present.clone())), "{commits} {place:?}");
            assert!(aside.contains(&Some(has.clone())) || place == ImagePlace::Mirror);
            let read = fs.open(in_dir("file")).map(drop);
            assert_eq!(read.is_ok(), place == ImagePlace::Mirror, "{commits} {place:?}");
            drop(fs);
            drop(Keyring::open(mirrored(&mem), kms.clone(), manual()).unwrap());
        }
    }
}

#[test]
fn a_recovery_leaves_another_stores_mirror_alone() {
    let mirror = std::path::Path::new(MIRROR).join(KEYRING_FILE);
    let (mem, kms) = three();
    damage(&mem);
    let other = MemFs::new(DIR);
    drop(Keyring::create(mirrored(&other), kms.clone(), manual()).unwrap());
    let has = other.read(&mirror);
    mem.put_dir(std::path::Path::new(MIRROR));
    mem.put(&mirror, has.as_ref().unwrap());
    let before = mem.files();
    let recovered = recover(&mem, mirrored(&mem), ImagePlace::Kept(2), &kms);
    assert_eq!(kind(recovered), ErrorKind::KeyringExists);
    assert!(mem.read(&mirror) == has && mem.files() == before);
}

#[test]
fn a_mirror_that_was_away_for_long_catches_up() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new(7));
    let mirror = std::path::Path::new(MIRROR).join(KEYRING_FILE);
    for away in 0..=5 {
        drop(Keyring::open_or_create(mirrored(&mem), kms.clone(), manual()).unwrap());
        assert_eq!(mem.read(&mirror), mem.read(&in_dir(KEYRING_FILE)), "{away}");
        for _ in 0..away {
            mem_open(&mem, &kms).unwrap().keyring().keys().rotate().unwrap();
        }
    }
}
