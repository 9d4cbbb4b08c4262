//! Which mount a path is on.

use std::path::Path;

/// A number of the mount that a path is on, which two mounts of one device do not share; 0 where
/// the system does not tell. It may differ when the same is mounted again.
#[cfg(target_os = "linux")]
pub(crate) fn mount_of(path: &Path) -> u64 {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    // Since Linux 5.8; an older one leaves it out.
    let told = statx(CWD, path, flags, StatxFlags::MNT_ID).ok();
    let told = told.filter(|it| it.stx_mask & StatxFlags::MNT_ID.bits() != 0);
    told.map_or(0, |it| it.stx_mnt_id)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn mount_of(_path: &Path) -> u64 {
    0
}
