//! The chain of manifests.
//!
//! A manifest is a file of suite 2 under the chain's data key, kind manifest, with the
//! backup's number as file id. Its hash, which the next one names, is the SHA-256 of its
//! plaintext.

use sha2::{Digest, Sha256};

use super::Chain;
use super::manifest::{MANIFEST_LEN_MAX, Manifest};
use super::object::broken;
use super::objects;
use crate::error::{Error, ErrorKind, Result};
use crate::header::FileKind;

/// Begins a manifest's name; then its number.
const NAME: &str = "backup.";

impl Chain {
    /// How many backups there are; every one from 1 on must be there.
    pub(super) fn count(&self) -> Result<u64> {
        let names = self.target.list("")?;
        let mut numbers: Vec<u64> = names.iter().filter_map(|(name, _)| number(name)).collect();
        numbers.sort_unstable();
        for (expected, found) in (1..).zip(&numbers) {
            if expected != *found {
                let what = format!("backup {expected} is missing, later ones are there");
                return Err(broken(what));
            }
        }
        Ok(numbers.len() as u64)
    }

    /// Reads the manifests from 1 to `last` and proves that each follows the one before.
    pub(super) fn walk(
        &self,
        last: u64,
        mut each: impl FnMut(Manifest, [u8; 32], u64) -> Result<()>,
    ) -> Result<()> {
        let mut previous = [0; 32];
        for number in 1..=last {
            let (manifest, hash, physical_len) = self.manifest(number)?;
            if manifest.previous != previous {
                return Err(broken(format!("backup {number} does not follow the one before it")));
            }
            previous = hash;
            each(manifest, hash, physical_len)?;
        }
        Ok(())
    }

    fn manifest(&self, number: u64) -> Result<(Manifest, [u8; 32], u64)> {
        let name = name(number);
        let read = || {
            let file = self.target.open(&name)?;
            let physical_len = file.len().map_err(|e| Error::io("the length is unknown", e))?;
            let mut id = [0; 16];
            id[..8].copy_from_slice(&number.to_le_bytes());
            let reader = objects::open_as(self, &name, file, id, FileKind::Manifest)?;
            let len = usize::try_from(reader.len()?).unwrap_or(usize::MAX);
            if len > MANIFEST_LEN_MAX {
                return Err(broken(format!("expected at most 2 GiB of manifest, found {len}")));
            }
            let mut bytes = vec![0; len];
            reader.read_exact_at(&mut bytes, 0)?;
            let manifest = Manifest::decode(&bytes)?;
            if manifest.chain_id != *self.id().as_bytes() || manifest.number != number {
                return Err(broken("the manifest is that of another backup"));
            }
            Ok((manifest, hash(&bytes), physical_len))
        };
        read().map_err(|error: Error| match error.kind() {
            ErrorKind::Io(std::io::ErrorKind::NotFound) => {
                broken(format!("backup {number} is missing")).with_source(error)
            }
            _ => error.with_path(&name),
        })
    }

    /// Writes the manifest, which makes the backup.
    pub(super) fn write_manifest(&self, manifest: &Manifest) -> Result<([u8; 32], u64)> {
        let bytes = manifest.encode()?;
        let physical_len =
            objects::write_whole(self, &name(manifest.number), manifest.number, &bytes)?;
        Ok((hash(&bytes), physical_len))
    }
}

fn name(number: u64) -> String {
    format!("{NAME}{number:06}")
}

/// The number of a manifest's name. Every other name is a stranger's, 0 and one with too
/// many or too few digits among them.
fn number(name_: &str) -> Option<u64> {
    let number = name_.strip_prefix(NAME)?.parse().ok()?;
    (number > 0 && name(number) == name_).then_some(number)
}

fn hash(plaintext: &[u8]) -> [u8; 32] {
    Sha256::digest(plaintext).into()
}
