//! A full disk, a read-only one, one with a directory of root's: small memory file systems,
//! which only root may mount.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Bench, image, left_out};

struct Disk(PathBuf);

impl Disk {
    /// `None`, said loudly, where it cannot be mounted.
    fn mount(path: &Path, bytes: u64) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path);
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(path.to_owned()));
        }
        left_out("no tmpfs can be mounted here, which needs root");
        None
    }

    fn remount_read_only(&self) {
        let status =
            Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

#[test]
fn a_full_disk_leaves_the_store_as_it_was() {
    let bench = Bench::new();
    let Some(disk) = Disk::mount(&bench.path("disk"), 256 << 10) else { return };
    bench.good(&["init", "disk/data"]);
    bench.write("small", &[1; 10_000]);
    bench.write("large", &vec![2; 1 << 20]);
    bench.good(&["encrypt", "disk/data", "small", "f"]);
    let before = image(&bench.path("disk/data"));
    bench.bad(11, "io-storage-full", &["encrypt", "disk/data", "large", "g"]);
    assert!(image(&bench.path("disk/data")) == before);
    // Plaintext that finds no room leaves nothing either.
    bench.good(&["encrypt", "data", "large", "g"]);
    bench.bad(11, "io-storage-full", &["decrypt", "data", "g", "-o", "disk/out"]);
    assert_eq!(bench.names("disk"), ["data"]);
    // No room for one more keyring.
    let mut filler = fs::File::create(bench.path("disk/filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[3; 4096]).is_ok() {}
    drop(filler);
    for what in ["data-key", "store-key"] {
        bench.bad(11, "io-storage-full", &["rotate", what, "disk/data"]);
        assert!(image(&bench.path("disk/data")) == before);
    }
    assert_eq!(bench.good(&["decrypt", "disk/data", "f"]), [1; 10_000]);
    bench.bad(11, "io-storage-full", &["init", "disk/other"]);
    assert_eq!(bench.names("disk"), ["data", "filler"]);
    // A mark has no room, a request that stands for it has: it is not called a mark.
    assert_eq!(bench.json(&["cmek", "revoke", "disk/data"])["done"], "requested");
    bench.bad(3, "cmek-revoked", &["decrypt", "disk/data", "f"]);
    drop(disk);
}

#[test]
fn a_disk_in_the_store_is_among_its_directories() {
    let bench = Bench::new();
    fs::create_dir(bench.path("data/sub")).unwrap();
    let Some(disk) = Disk::mount(&bench.path("data/disk"), 256 << 10) else { return };
    bench.write("src", b"words");
    bench.good(&["encrypt", "data", "src", "sub/f"]);
    bench.good(&["encrypt", "data", "src", "disk/f"]);
    bench.good(&["rotate", "data-key", "data"]);
    let shown = || {
        let told = bench.json(&["keys", "directories", "data"]);
        let all = told["directories"].as_array().unwrap().clone();
        let all = all.iter().map(|dir| (dir["path"].as_str().unwrap(), &dir["registered"]));
        all.map(|(path, registered)| (path.to_owned(), registered == true)).collect::<Vec<_>>()
    };
    let path = |name: &str| bench.path(name).canonicalize().unwrap().to_str().unwrap().to_owned();
    let expected = [(path("data"), false), (path("data/disk"), true)];
    assert_eq!(shown(), expected);
    // One that is not mounted too: it is what a retirement misses.
    drop(disk);
    assert_eq!(shown(), expected);
    bench.bad(2, "invalid-argument", &["keys", "retire", "data"]);
}

/// What comes last is to tell it: by then all is done.
#[test]
fn a_full_standard_output_says_nothing_of_what_was_done() {
    let mut bench = Bench::new();
    bench.keygen("new.key");
    let (old, new) = (bench.uri("cmek.key"), bench.uri("new.key"));
    bench.write("src", b"words");
    let told_nowhere = |args: &[&str]| {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = bench.command(args).stdout(full).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(11), "{args:?}: {told}");
        assert!(told.contains("what the command changed stays"), "{args:?}: {told}");
        assert!(!told.contains("nothing was changed"), "{args:?}: {told}");
    };
    told_nowhere(&["encrypt", "data", "src", "f"]);
    told_nowhere(&["keygen", "other.key"]);
    assert_eq!(bench.read("other.key").len(), 64);
    told_nowhere(&["rotate", "cmek", "data", "--cmek", &old, "--new-cmek", &new]);
    bench.bad(5, "kms-integrity", &["decrypt", "data", "f", "--cmek", &old]);
    assert_eq!(bench.good(&["decrypt", "data", "f", "--cmek", &new]), b"words");
    let status = bench.json(&["status", "data", "--cmek", &new]);
    let id = status["store_id"].as_str().unwrap();
    told_nowhere(&["keys", "shred", "data", "--cmek", &new, "--store", "--confirm", id]);
    assert_ne!(bench.run(&["decrypt", "data", "f", "--cmek", &new]).code, 0);
}

#[test]
fn a_read_only_disk_is_read_and_not_written() {
    let bench = Bench::new();
    let Some(disk) = Disk::mount(&bench.path("disk"), 256 << 10) else { return };
    bench.write("src", b"words");
    bench.good(&["init", "disk/data"]);
    bench.good(&["encrypt", "disk/data", "src", "f"]);
    disk.remount_read_only();
    assert_eq!(bench.good(&["decrypt", "disk/data", "f"]), b"words");
    bench.good(&["status", "disk/data"]);
    bench.bad(11, "io-read-only", &["encrypt", "disk/data", "src", "g"]);
    bench.bad(11, "io-read-only", &["rotate", "data-key", "disk/data"]);
    bench.bad(11, "io-read-only", &["init", "disk/other"]);
    bench.bad(11, "io-read-only", &["keygen", "disk/key"]);
    bench.bad(11, "io-read-only", &["decrypt", "disk/data", "f", "-o", "disk/out"]);
}

/// The commands that walk over a store, by either of the two walks, with what says in JSON
/// which `lost+found` was passed by.
const WALKS: [(&[&str], &str); 5] = [
    (&["status", "data"], "/files/lost_found/0"),
    (&["verify", "data"], "/lost_found/0"),
    (&["keys", "list", "data"], "/lost_found/0"),
    (&["reencrypt", "data", "--all"], "/lost_found/0"),
    (&["backup", "create", "data", "dest"], "/lost_found/0"),
];

/// A store of a user who is not root on a disk of its own, with a file under a replaced key.
fn on_a_users_disk() -> Option<(Bench, Disk)> {
    const USER: u32 = 65534;
    let mut bench = Bench::empty();
    let disk = Disk::mount(&bench.path("data"), 4 << 20)?;
    bench.keygen("cmek.key");
    bench.write("src", b"words");
    fs::create_dir(bench.path("dest")).unwrap();
    for name in ["data", "dest", "cmek.key", "src"] {
        chown(bench.path(name), Some(USER), Some(USER)).unwrap();
    }
    fs::set_permissions(bench.path("data"), fs::Permissions::from_mode(0o755)).unwrap();
    bench.become_user(USER);
    Some((bench, disk))
}

fn make_dir(bench: &Bench, path: &str, mode: u32, owner: u32) {
    fs::create_dir_all(bench.path(path)).unwrap();
    fs::set_permissions(bench.path(path), fs::Permissions::from_mode(mode)).unwrap();
    chown(bench.path(path), Some(owner), None).unwrap();
}

#[test]
fn a_disks_lost_and_found_is_passed_by_and_told() {
    let Some((mut bench, _disk)) = on_a_users_disk() else { return };
    make_dir(&bench, "data/lost+found", 0o700, 0);
    bench.good(&["init", "data"]);
    bench.good(&["encrypt", "data", "src", "f"]);
    bench.good(&["rotate", "data-key", "data"]);
    for (args, pointer) in WALKS {
        let told = bench.json(args);
        let found = told.pointer(pointer).and_then(|path| path.as_str());
        assert!(found.is_some_and(|path| path.ends_with("lost+found")), "{args:?}: {told}");
    }
    // The old key's file was rewritten, so it goes.
    let retired = bench.retire();
    assert_eq!(retired["lost_found"][0], bench.path("data/lost+found").to_str().unwrap());
    assert_eq!(bench.good(&["decrypt", "data", "f"]), b"words");
    for args in [&["status", "data"][..], &["verify", "data"], &["keys", "list", "data"]] {
        let text = String::from_utf8(bench.good(args)).unwrap();
        assert!(text.contains("data/lost+found: of the file system"), "{text}");
    }
    let doctor = bench.json(&["doctor", "data"]);
    let findings = doctor["findings"].as_array().unwrap();
    let note = findings.iter().find(|note| note["what"].as_str().unwrap().contains("lost+found"));
    assert_eq!(note.unwrap()["level"], "note", "{doctor}");
    // Root, who may look into it, finds nothing wrong with its owner.
    bench.become_user(0);
    assert_eq!(bench.json(&["doctor", "data"])["healthy"], true);
    let status = bench.json(&["status", "data"]);
    assert_eq!(status["files"]["lost_found"], serde_json::json!([]));
}

#[test]
fn any_other_closed_directory_stops_the_walks() {
    let Some((bench, _disk)) = on_a_users_disk() else { return };
    bench.good(&["init", "data"]);
    bench.good(&["encrypt", "data", "src", "f"]);
    bench.good(&["rotate", "data-key", "data"]);
    let closed: [(&str, u32, u32); 4] = [
        // Another's, open to others' files, not at the root of the disk, another name.
        ("data/lost+found", 0o700, 1),
        ("data/lost+found", 0o733, 0),
        ("data/sub/lost+found", 0o700, 0),
        ("data/cold", 0o700, 0),
    ];
    for (path, mode, owner) in closed {
        make_dir(&bench, path, mode, owner);
        let more = [&["doctor", "data"][..], &["keys", "retire", "data"]];
        for args in WALKS.map(|(args, _)| args).into_iter().chain(more) {
            let run = bench.bad(11, "io-permission-denied", args);
            assert!(run.stderr.contains(path), "{args:?}: {}", run.stderr);
        }
        fs::remove_dir(bench.path(path)).unwrap();
    }
    let keys = bench.json(&["keys", "list", "data"]);
    assert_eq!(keys["keys"][0]["state"], "decrypt-only", "{keys}");
}
