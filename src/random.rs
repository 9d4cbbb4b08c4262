//! The operating system's generator, the only source of keys, salts and ids.

use rand::TryRng;
use rand::rngs::SysRng;

use crate::error::{Error, ErrorKind, Result};

/// Fills `bytes`, or fails when the operating system cannot.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<()> {
    #[cfg(feature = "danger-simulation")]
    if crate::simulation::fill(bytes) {
        return Ok(());
    }
    SysRng.try_fill_bytes(bytes).map_err(|source| {
        Error::new(
            ErrorKind::Io(std::io::ErrorKind::Other),
            format!("the operating system's random generator failed: {source}"),
        )
    })
}
