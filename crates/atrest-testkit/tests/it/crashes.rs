//! What the file system in memory loses, and how it fails.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use atrest::vfs::{Links, Rename, Vfs};
use atrest_testkit::MemFs;
use atrest_testkit::mem_fs::{Fault, How, OpKind};

const DIR: &str = "/dir";

fn at(name: &str) -> PathBuf {
    Path::new(DIR).join(name)
}

/// All that a crash at any moment may have left: contents by name.
fn outcomes(fs: &MemFs) -> BTreeSet<Vec<(String, Vec<u8>)>> {
    // The same picks in each run, and all of them: the outcomes here are few.
    let mut next = 1_u64;
    let mut outcomes = BTreeSet::new();
    for _ in 0..40 {
        let images = fs.fork().crash_images(64, &mut |end| {
            next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (next >> 33) % end
        });
        outcomes
            .extend(images.iter().map(|image| image.fs.files().into_iter().collect::<Vec<_>>()));
    }
    outcomes
}

fn file(name: &str, bytes: &[u8]) -> (String, Vec<u8>) {
    (name.into(), bytes.into())
}

fn fault(on: OpKind, name: &str, after: usize, how: How) -> Fault {
    Fault { on, name: name.into(), after, times: 1, how }
}

fn code<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn bytes_that_were_not_synced_are_lost_torn_or_zeros() {
    let fs = MemFs::new(DIR);
    let mut writer = fs.create_new(&at("f"), 0o600).unwrap();
    fs.sync_dir(Path::new(DIR)).unwrap();
    writer.append(&[1; 100]).unwrap();
    writer.sync().unwrap();
    writer.append(&[2; 1000]).unwrap();
    let lens: BTreeSet<_> = outcomes(&fs)
        .into_iter()
        .map(|files| {
            let bytes = &files[0].1;
            assert!(bytes.starts_with(&[1; 100]), "what was synced stays");
            let written = bytes[100..].iter().take_while(|byte| **byte == 2).count();
            assert!(bytes[100 + written..].iter().all(|byte| *byte == 0));
            (bytes.len(), written)
        })
        .collect();
    // All, none, up to a block, and zeros from there or from the beginning on.
    let expected =
        [(100, 0), (512, 412), (1024, 924), (1100, 0), (1100, 412), (1100, 924), (1100, 1000)];
    assert_eq!(lens, BTreeSet::from(expected));
    writer.sync().unwrap();
    assert_eq!(outcomes(&fs).len(), 1);
}

#[test]
fn names_survive_in_any_order_and_a_rename_never_loses_both() {
    let fs = MemFs::new(DIR);
    fs.put(&at("old"), b"old");
    fs.put(&at("new"), b"new");
    fs.rename(&at("new"), &at("old"), Rename::Replace).unwrap();
    drop(fs.create_new(&at("later"), 0o600).unwrap());
    let found = outcomes(&fs);
    let both = |extra: bool| {
        let mut files = vec![file("new", b"new"), file("old", b"old")];
        if extra {
            files.insert(0, file("later", b""));
        }
        files
    };
    assert!(found.contains(&both(false)) && found.contains(&both(true)), "the later name alone");
    assert!(found.contains(&vec![file("old", b"new")]));
    assert!(found.contains(&vec![file("new", b"new"), file("old", b"new")]), "half of the rename");
    assert_eq!(found.len(), 6, "{found:?}");
}

#[test]
fn a_directory_keeps_its_own_names_alone() {
    let fs = MemFs::new(DIR);
    fs.put_dir(Path::new("/other"));
    drop(fs.create_new(&at("f"), 0o600).unwrap());
    fs.sync_dir(Path::new("/other")).unwrap();
    assert!(outcomes(&fs).contains(&Vec::new()));
    fs.sync_dir(Path::new(DIR)).unwrap();
    assert_eq!(outcomes(&fs).len(), 1);
    // What is in a directory goes with it.
    fs.create_dir(&at("sub"), 0o700).unwrap();
    drop(fs.create_new(&at("sub").join("g"), 0o600).unwrap());
    fs.sync_dir(&at("sub")).unwrap();
    assert!(outcomes(&fs).contains(&vec![file("f", b"")]));
}

#[test]
fn every_moment_since_the_last_look_is_shown() {
    let fs = MemFs::new(DIR);
    fs.keep_points();
    for name in ["a", "b"] {
        drop(fs.create_new(&at(name), 0o600).unwrap());
        fs.sync_dir(Path::new(DIR)).unwrap();
    }
    let images = fs.crash_images(8, &mut |_| 0);
    let seen: Vec<_> = images.iter().map(|image| (image.fs.files().len(), image.is_now)).collect();
    assert_eq!(seen, [(2, true), (1, false), (0, false)]);
    assert_eq!(fs.crash_images(8, &mut |_| 0).len(), 1, "only what is there now");
}

#[test]
fn faults_strike_by_operation_name_and_count() {
    let fs = MemFs::new(DIR);
    fs.put(&at("one"), b"12345678");
    fs.put(&at("two"), b"12345678");
    fs.arm(fault(OpKind::Open, "two", 1, How::Error(24)));
    for (name, expected) in [("one", None), ("two", None), ("two", Some(24)), ("two", None)] {
        assert_eq!(code(fs.open(&at(name), Links::Follow)), expected);
    }
    assert!(fs.disarm() && !fs.disarm());
    // Carried out, and not said so.
    fs.arm(fault(OpKind::Rename, "", 0, How::Late(5)));
    assert_eq!(code(fs.rename(&at("one"), &at("three"), Rename::Replace)), Some(5));
    assert!(fs.read(&at("three")).is_some() && fs.read(&at("one")).is_none());
    fs.arm(fault(OpKind::Append, "", 0, How::Error(28)));
    let mut writer = fs.create_new(&at("four"), 0o600).unwrap();
    assert_eq!(code(writer.append(&[4; 10])), Some(28));
    assert_eq!(fs.read(&at("four")).unwrap(), [4; 5], "a part of it is there");
    fs.arm(fault(OpKind::Read, "two", 1, How::OtherBytes));
    let (reader, mut bytes) = (fs.open(&at("two"), Links::Follow).unwrap(), [0; 8]);
    for is_good in [true, false, true] {
        reader.read_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes == *b"12345678", is_good);
    }
}

#[test]
#[should_panic(expected = "synced again")]
fn who_syncs_again_after_a_failed_sync_is_told() {
    let fs = MemFs::new(DIR);
    let mut writer = fs.create_new(&at("f"), 0o600).unwrap();
    fs.arm(fault(OpKind::Sync, "f", 0, How::Error(5)));
    assert_eq!(code(writer.sync()), Some(5));
    drop(writer.sync());
}
