//! Access control lists and extended attributes of the operating system's files.

use std::io;
use std::path::Path;

/// Gives a file the access control list and the extended attributes of another. Of those
/// that are the system's own to give, such as a security label, what it allows.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{XattrFlags, lremovexattr, lsetxattr};
    let (wanted, found) = (names(from)?, names(to)?);
    // One that the directory gave to the new file.
    if found.iter().any(|name| name == ACL) && !wanted.iter().any(|name| name == ACL) {
        lremovexattr(to, ACL)?;
    }
    for name in &wanted {
        let Some(value) = value(from, name)? else { continue };
        match lsetxattr(to, name.as_slice(), &value, XattrFlags::empty()) {
            Err(_) if is_systems(name) => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub(super) fn copy(_from: &Path, _to: &Path) -> io::Result<()> {
    Ok(())
}

/// Where Linux keeps the list.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
const ACL: &[u8] = b"system.posix_acl_access";

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn is_systems(name: &[u8]) -> bool {
    let own = |prefix: &[u8]| name.starts_with(prefix);
    own(b"security.") || own(b"trusted.") || own(b"com.apple.") || (own(b"system.") && name != ACL)
}

#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn names(path: &Path) -> io::Result<Vec<Vec<u8>>> {
    use rustix::io::Errno;
    let list = loop {
        let len = match rustix::fs::llistxattr_query(path) {
            Ok(0) | Err(Errno::NOTSUP | Errno::NOSYS) => return Ok(Vec::new()),
            other => other?,
        };
        let mut list = vec![0; len];
        match rustix::fs::llistxattr(path, &mut list[..]) {
            Ok(len) => {
                list.truncate(len);
                break list;
            }
            // It has grown since.
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno.into()),
        }
    };
    Ok(list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(Vec::from).collect())
}

/// `None` if it is gone, or not for this process to read.
#[cfg(any(target_os = "linux", target_vendor = "apple"))]
fn value(path: &Path, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    use rustix::io::Errno;
    loop {
        let read = rustix::fs::lgetxattr_query(path, name).and_then(|len| {
            let mut value = vec![0; len];
            let len = rustix::fs::lgetxattr(path, name, &mut value[..])?;
            value.truncate(len);
            Ok(value)
        });
        match read {
            Ok(value) => return Ok(Some(value)),
            Err(Errno::RANGE) => {}
            Err(Errno::NODATA) => return Ok(None),
            Err(_) if is_systems(name) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        }
    }
}
