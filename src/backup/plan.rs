//! What of a snapshot is new to a chain, what is there already, and what cannot be in a backup.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt;

use sha2::{Digest, Sha256};

use super::Snapshot;
use super::lack::{LackEntry, LackReason};
use super::manifest::{Entry, Manifest, What};
use super::object::Object;
use super::snapshot::SnapFile;
use crate::header::HEADER_LEN;
use crate::ids::DataKeyId;
use crate::vfs::{Links, Vfs};

/// A plaintext file changed so shortly before a backup may have changed again within the
/// same tick of its file system's clock.
const RACY_NS: i64 = 2_000_000_000;

/// How a file gets into the backup.
pub(super) enum Plan<'a> {
    /// Nothing is in it.
    Empty,
    /// Its copy is there.
    Have(&'a Object),
    /// The copy of this number will be.
    Copy(usize),
}

/// How each file gets in, what has to be copied for it, and what is left out.
pub(super) type Planned<'a> = (Vec<(&'a SnapFile, Plan<'a>)>, Vec<&'a SnapFile>, Vec<LackEntry>);

pub(super) fn plan<'a>(
    vfs: &dyn Vfs,
    snapshot: &'a Snapshot,
    destroyed: &HashSet<DataKeyId>,
    before: Option<&'a Manifest>,
    leftovers: &'a HashMap<[u8; 32], Object>,
) -> Planned<'a> {
    let files = before.map_or(&[][..], |manifest| &manifest.files);
    let known: HashMap<[u8; 32], &Entry> =
        files.iter().map(|file| (file.object.identity, file)).collect();
    let by_path: HashMap<&[u8], &Entry> =
        files.iter().map(|file| (file.path.as_slice(), file)).collect();
    let mut plans = Vec::with_capacity(snapshot.files.len());
    let (mut copies, mut lacks) = (Vec::new(), Vec::new());
    let mut copied: HashMap<[u8; 32], usize> = HashMap::new();
    for file in &snapshot.files {
        if file.empty {
            let same = by_path.get(file.path.as_os_str().as_bytes());
            let emptied = same.and_then(|same| emptied(file, same));
            lacks.extend(emptied.or_else(|| without_header(vfs, file)));
            plans.push((file, Plan::Empty));
            continue;
        }
        let why = if is_under(file, destroyed) {
            Some(LackReason::KeyDestroyed)
        } else {
            is_unfinished(file).then_some(LackReason::Unfinished)
        };
        if let Some(why) = why {
            lacks.push(left_out(file, why));
            continue;
        }
        let identity = identity(file, file.stat.len);
        let plan = if file.header.is_none() {
            let same = by_path.get(file.path.as_os_str().as_bytes());
            let created_ns = before.map_or(0, |manifest| manifest.created_ns);
            match same.filter(|same| is_unchanged(file, same, created_ns)) {
                Some(same) => Plan::Have(&same.object),
                None => {
                    copies.push(file);
                    Plan::Copy(copies.len() - 1)
                }
            }
        } else if let Some(known) = known.get(&identity) {
            Plan::Have(&known.object)
        } else if let Some(left) = leftovers.get(&identity) {
            Plan::Have(left)
        } else {
            // Two names of one file have one copy.
            Plan::Copy(*copied.entry(identity).or_insert_with(|| {
                copies.push(file);
                copies.len() - 1
            }))
        };
        plans.push((file, plan));
    }
    (plans, copies, lacks)
}

pub(super) fn left_out(file: &SnapFile, why: LackReason) -> LackEntry {
    LackEntry::new(&file.path, why).bytes(0, file.stat.len)
}

/// Whether a file is under one of these keys, by its header, which nothing proves once the
/// key is gone.
pub(super) fn is_under(file: &SnapFile, keys: &HashSet<DataKeyId>) -> bool {
    file.header.as_ref().is_some_and(|header| keys.contains(&header.data_key_id))
}

/// What a file lost of which the backup before has something. Nothing empties an encrypted file,
/// and a plaintext one that an engine empties is told all the same.
fn emptied(file: &SnapFile, same: &Entry) -> Option<LackEntry> {
    let lost = same.object.len > 0 && same.inode == file.stat.inode;
    lost.then(|| LackEntry::new(&file.path, LackReason::Emptied).bytes(0, same.object.len))
}

/// What is behind a header that is lost: more than a crash leaves of a file that had nothing yet.
fn without_header(vfs: &dyn Vfs, file: &SnapFile) -> Option<LackEntry> {
    let len = file.stat.len;
    let has_bytes = || -> io::Result<bool> {
        let opened = vfs.open(&file.link.path(), Links::Refuse)?;
        let (mut at, mut piece) = (HEADER_LEN as u64, vec![0; 64 << 10]);
        while at < len {
            let part = piece.len().min(usize::try_from(len - at).unwrap_or(usize::MAX));
            let read = opened.read_at(&mut piece[..part], at)?;
            if piece[..read].iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            at = if read == 0 { len } else { at + read as u64 };
        }
        Ok(false)
    };
    // What cannot be read counts.
    let lost = len > HEADER_LEN as u64 && has_bytes().unwrap_or(true);
    lost.then(|| LackEntry::new(&file.path, LackReason::Emptied).bytes(0, len))
}

/// Whether a file lacks the end that its suite gives it: its length is no finished file's.
fn is_unfinished(file: &SnapFile) -> bool {
    let Some(header) = &file.header else { return false };
    !header.layout.can_end_at(file.stat.len.saturating_sub(HEADER_LEN as u64))
}

/// Whether a file whose end is not there has the length of one whose writer was stopped.
pub(super) fn may_be_stopped(file: &SnapFile) -> bool {
    let Some(header) = &file.header else { return false };
    header.layout.can_stop_at(file.stat.len.saturating_sub(HEADER_LEN as u64))
}

fn is_unchanged(file: &SnapFile, same: &Entry, created_ns: u64) -> bool {
    let settled = i64::try_from(created_ns).unwrap_or(i64::MAX).saturating_sub(RACY_NS);
    same.what() == Some(What::Plaintext)
        && same.object.len == file.stat.len
        && same.inode == file.stat.inode
        && same.modified_ns == file.stat.modified_ns
        && file.stat.modified_ns != 0
        && file.stat.modified_ns < settled
}

/// Names one content of one encrypted file: its header, whose salt no other has, and so many of
/// its bytes on disk, each of which is written once. Zero for plaintext.
pub(super) fn identity(file: &SnapFile, len: u64) -> [u8; 32] {
    let Some(header) = &file.header else { return [0; 32] };
    let mut hash = Sha256::new();
    hash.update(header.prefix);
    hash.update(len.to_le_bytes());
    hash.finalize().into()
}
