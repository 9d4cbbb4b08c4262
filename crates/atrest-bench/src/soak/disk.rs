//! A small file system of its own, that can be filled.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use atrest_soak::Any;
use rustix::fs::{FallocateFlags, fallocate};

pub(super) struct Disk {
    pub(super) dir: PathBuf,
    /// Whether it is ours to fill and to unmount.
    mounted: bool,
}

impl Disk {
    /// An ext4 of that many MiB in an image file in `below`, if this process may mount one; the
    /// directory itself otherwise, which is never filled.
    pub(super) fn new(below: &Path, mib: u64) -> Any<Self> {
        let (dir, image) = (below.join("disk"), below.join("disk.img"));
        std::fs::create_dir(&dir)?;
        File::create(&image)?.set_len(mib << 20)?;
        let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
        let mounted = run(Command::new("mkfs.ext4").arg("-q").arg(&image))
            && run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&dir));
        if mounted {
            // The engines' directories are to have nothing of another owner in them.
            drop(std::fs::remove_dir(dir.join("lost+found")));
        }
        Ok(Self { dir, mounted })
    }

    pub(super) fn can_be_filled(&self) -> bool {
        self.mounted
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }

    /// Takes all room that is left.
    pub(super) fn fill(&self) -> Any<()> {
        let (file, mut len) = (File::create(self.ballast())?, 0);
        for size in [1 << 30, 1 << 26, 1 << 20, 1 << 16, 1 << 12] {
            // No more often than it can be, if engines gave up room meanwhile.
            for _ in 0..64 {
                if fallocate(&file, FallocateFlags::empty(), len, size).is_err() {
                    break;
                }
                len += size;
            }
        }
        Ok(())
    }

    pub(super) fn empty(&self) -> Any<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            drop(Command::new("umount").arg(&self.dir).status());
        }
    }
}
