//! A full disk and a read-only one: small memory file systems, which only root may mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Bench, image};

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
        eprintln!("SKIPPED: no tmpfs can be mounted here, the test needs root");
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
    drop(disk);
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
