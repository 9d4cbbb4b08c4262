//! Who may use what this library writes anew: whoever could use what it replaces.

use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use atrest::ErrorKind;
use atrest::backup::{Chain, DirectoryTarget, RestoreSpec, Snapshot};
use atrest::keyring::Keyring;
use atrest::store::{Reencrypt, StalePolicy};
use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

use crate::renewal::write;
use crate::support::{DIR, ScriptedKms, TestStore, in_dir, kind, manual, mem_create, store_of};
use atrest_testkit::MemFs;
use atrest_testkit::mem_fs::Op;

/// An engine's user. Only root can become it, so that without root the tests try modes and
/// extended attributes alone.
const ENGINE: u32 = 54_321;

fn to_engine(path: &Path) {
    match chown(path, Some(ENGINE), Some(ENGINE)) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
        other => other.unwrap(),
    }
}

const NAME: &str = "user.atrest-test";

/// An access control list: user, the engine's user again, group, mask and others may read
/// and write.
fn list() -> Vec<u8> {
    let entries: [(u16, u16, u32); 5] =
        [(1, 6, !0), (2, 4, 12_345), (4, 4, !0), (16, 6, !0), (32, 0, !0)];
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, may, id) in entries {
        list.extend_from_slice(&tag.to_le_bytes());
        list.extend_from_slice(&may.to_le_bytes());
        list.extend_from_slice(&id.to_le_bytes());
    }
    list
}

const ACL: &str = "system.posix_acl_access";

/// What a file system has: mode and owner always, the others where it can.
#[derive(Debug, PartialEq)]
struct Access {
    owner: (u32, u32),
    mode: u32,
    attribute: Option<Vec<u8>>,
    list: Option<Vec<u8>>,
}

fn access_of(path: &Path) -> Access {
    let metadata = path.symlink_metadata().unwrap();
    let get = |name: &str| {
        let mut value = vec![0; 1000];
        let len = lgetxattr(path, name, &mut value[..]).ok()?;
        value.truncate(len);
        Some(value)
    };
    Access {
        owner: (metadata.uid(), metadata.gid()),
        mode: metadata.mode() & 0o7777,
        attribute: get(NAME),
        list: get(ACL),
    }
}

/// Makes a file the engine's, and says what it is then.
fn dress(path: &Path) -> Access {
    to_engine(path);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o640)).unwrap();
    // Not every file system has them.
    let _ = lsetxattr(path, NAME, b"kept", XattrFlags::empty());
    let _ = lsetxattr(path, ACL, &list(), XattrFlags::empty());
    access_of(path)
}

#[test]
fn a_commit_by_another_user_locks_nobody_out() {
    let store = TestStore::new();
    let path = |name: &str| store.data().join(name);
    drop(store.keyring());
    to_engine(&store.data());
    std::fs::remove_file(path("KEYRING.lock")).unwrap();
    let wanted = dress(&path("KEYRING"));
    let keyring = Keyring::open(store.storage(), store.kms(), manual()).unwrap();
    keyring.keys().rotate().unwrap();
    keyring.keys().rotate_store_key().unwrap();
    keyring.keys().rotate().unwrap();
    for name in ["KEYRING", &format!("KEYRING.{}", keyring.anchor().generation - 1)] {
        assert_eq!(access_of(&path(name)), wanted, "{name}");
    }
    assert_eq!(access_of(&path("KEYRING.lock")).owner, wanted.owner);
}

#[test]
fn a_new_store_is_its_directorys_owners() {
    let store = TestStore::new();
    to_engine(&store.data());
    drop(store.keyring());
    let owner = access_of(&store.data()).owner;
    for name in ["KEYRING", "KEYRING.lock"] {
        assert_eq!(access_of(&store.data().join(name)).owner, owner, "{name}");
    }
}

#[test]
fn a_restored_store_is_its_directorys_owners() {
    let store = TestStore::new();
    let beside = |name: &str| store.dir.path().join(name);
    let fs = store.fs();
    std::fs::create_dir(store.data().join("below")).unwrap();
    write(&fs, &store.data().join("below/a"), b"content");
    for name in ["backup", "restored"] {
        std::fs::create_dir(beside(name)).unwrap();
    }
    to_engine(&beside("restored"));
    let target = DirectoryTarget::new(beside("backup"));
    let chain = Chain::open_or_create(target, store.kms()).unwrap();
    let snapshot = Snapshot::take(&store_of(&fs), store.data()).unwrap();
    let go_on = |_| ControlFlow::Continue(());
    chain.back_up(&store_of(&fs), &snapshot, &go_on).unwrap();
    chain.restore(&RestoreSpec::new(beside("restored"), store.kms()), &go_on).unwrap();
    let owner = access_of(&beside("restored")).owner;
    for name in ["KEYRING", "below", "below/a"] {
        assert_eq!(access_of(&beside("restored").join(name)).owner, owner, "{name}");
    }
}

#[test]
fn a_re_encrypted_file_stays_whose_it_was() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("a");
    write(&fs, &path, b"content");
    let plain = store.data().join("b");
    write(&fs, &plain, b"content");
    let (wanted, bare) = (dress(&path), access_of(&plain));
    // What new files get there, and the old one had not.
    let _ = lsetxattr(store.data(), "system.posix_acl_default", &list(), XattrFlags::empty());
    fs.keyring().keys().rotate().unwrap();
    let mut how = Reencrypt::default();
    how.policy = StalePolicy::older_than(Duration::ZERO);
    assert_eq!(store_of(&fs).renewal().reencrypt(&how).unwrap().files, 2);
    assert_eq!(access_of(&path), wanted);
    assert_eq!(access_of(&plain), bare);
}

#[test]
fn where_access_cannot_be_kept_nothing_changes() {
    let mem = MemFs::new(DIR);
    let fs = mem_create(&mem, &ScriptedKms::new(1)).unwrap();
    mem.clear_log();
    fs.keyring().keys().rotate().unwrap();
    let at = mem.log().iter().position(|op| matches!(op, Op::SetAttributes(_))).unwrap();
    let image = mem.read(&in_dir("KEYRING")).unwrap();
    mem.clear_log();
    mem.fail_at(at);
    assert!(matches!(kind(fs.keyring().keys().rotate()), ErrorKind::Io(_)));
    assert_eq!(mem.read(&in_dir("KEYRING")).unwrap(), image);
    assert_eq!(mem.read(&in_dir("KEYRING.new")), None);
    fs.keyring().keys().rotate().unwrap();
}
