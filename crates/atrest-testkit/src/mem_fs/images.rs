//! What a crash may leave: any part of what was not made durable, in any order.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use super::MemFs;
use super::faults::Fault;
use super::state::{Change, NameOp, Node, State};

/// Changes of which every subset is tried; those before them went to the disk as a whole.
const WINDOW: usize = 12;

/// What a crash left.
#[derive(Clone, Debug)]
pub struct Image {
    /// The disk, as the next process finds it.
    pub fs: MemFs,
    /// Whether everything before the look was over: what was acknowledged has to be there.
    pub is_now: bool,
}

/// Numbers from 0 to below what is asked for: a seeded generator.
pub type Chance<'a> = &'a mut dyn FnMut(u64) -> u64;

/// What becomes of one change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Kept,
    Lost,
    /// So many of the bytes.
    Torn(usize),
    /// The length, and so many of the bytes; the rest are zeros.
    Zeros(usize),
}

impl MemFs {
    /// From now on what is between operations is kept, for [`crash_images`](Self::crash_images).
    pub fn keep_points(&self) {
        self.state().points.get_or_insert_default();
    }

    /// Arms a fault; it strikes once those before it are spent.
    pub fn arm(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Takes all faults back. Returns whether one struck.
    pub fn disarm(&self) -> bool {
        let mut state = self.state();
        state.faults.clear();
        std::mem::take(&mut state.is_struck)
    }

    /// What crashes may have left at any operation since the last call, the latest first: of each moment all
    /// outcomes where they are few, else `most` that `chance` picks, the extremes among them.
    /// Outcomes that are equal are given once.
    ///
    /// Of the last 12 changes that were not made durable any subset survives: names in any
    /// order, and of appended bytes all, none, a part up to a block of 512 or 4096 bytes, or
    /// zeros from there on. What is older went to the disk before.
    pub fn crash_images(&self, most: usize, chance: Chance<'_>) -> Vec<Image> {
        let mut state = self.state();
        state.keep_point();
        let last = state.bare();
        let points = match &mut state.points {
            // The last one is where the next call begins; it was looked at.
            Some(points) => std::mem::replace(points, vec![last]),
            None => vec![last],
        };
        drop(state);
        let mut seen = std::collections::HashSet::new();
        let mut images = Vec::new();
        // The strictest first: what may be there at the end may be there before.
        for (at, point) in points.iter().rev().enumerate() {
            for fates in outcomes(&point.pending, most, chance) {
                let image = point.after(&fates);
                if seen.insert(image.fingerprint()) {
                    let fs = Self(Arc::new(Mutex::new(image)));
                    images.push(Image { fs, is_now: at == 0 });
                }
            }
        }
        images
    }

    /// Whether `needle` stands in any file that ever was, named or not.
    pub fn contains(&self, needle: &[u8]) -> bool {
        let state = self.state();
        state.inodes.iter().any(|inode| inode.data.windows(needle.len()).any(|at| at == needle))
    }
}

fn outcomes(pending: &[Change], most: usize, chance: Chance<'_>) -> Vec<Vec<Fate>> {
    let old = pending.len().saturating_sub(WINDOW);
    let window = &pending[old..];
    let all_kept = || vec![Fate::Kept; pending.len()];
    let of_mask = |mask: u64| {
        let mut fates = all_kept();
        for (at, fate) in fates[old..].iter_mut().enumerate() {
            if mask >> at & 1 == 0 {
                *fate = Fate::Lost;
            }
        }
        fates
    };
    let subsets = 1_u64 << window.len();
    let few = subsets <= most as u64;
    let mut outcomes: Vec<_> = if few {
        (0..subsets).map(of_mask).collect()
    } else {
        let mut outcomes = vec![of_mask(0), of_mask(subsets - 1)];
        outcomes.extend((2..most).map(|_| of_mask(chance(subsets))));
        outcomes
    };
    // What is kept of bytes may be kept in part.
    for (at, change) in pending.iter().enumerate().skip(old) {
        let Change::Data(_, offset, len) = change else { continue };
        let mut fates = outcomes[chance(outcomes.len() as u64) as usize].clone();
        let block = [512, 4096][chance(2) as usize];
        let blocks = (offset + len).div_ceil(block) - offset / block;
        let cut = (offset / block + chance(blocks as u64 + 1) as usize) * block;
        let kept = cut.saturating_sub(*offset).min(*len);
        fates[at] = if chance(2) == 0 { Fate::Torn(kept) } else { Fate::Zeros(kept) };
        outcomes.push(fates);
    }
    for fates in &mut outcomes {
        // A rename never loses both names.
        for at in 1..pending.len() {
            if let (Change::Name(NameOp::Add(_, new)), Change::Name(NameOp::Leave(_, old))) =
                (&pending[at - 1], &pending[at])
                && new == old
                && fates[at - 1] == Fate::Lost
            {
                fates[at] = Fate::Lost;
            }
        }
    }
    outcomes
}

impl State {
    /// What is there when these changes fared so.
    fn after(&self, fates: &[Fate]) -> Self {
        let mut after = self.clone();
        let mut names = self.durable.clone();
        for inode in &mut after.inodes {
            inode.data = inode.synced.clone();
        }
        for (change, fate) in self.pending.iter().zip(fates) {
            match (change, fate) {
                (_, Fate::Lost) => {}
                (Change::Name(op), _) => op.clone().apply(&mut names),
                (Change::Data(inode, offset, len), fate) => {
                    let written = &self.inodes[*inode].data[*offset..offset + len];
                    let kept = match fate {
                        Fate::Torn(kept) | Fate::Zeros(kept) => *kept,
                        _ => *len,
                    };
                    let end = if matches!(fate, Fate::Zeros(_)) { *len } else { kept };
                    let data = Arc::make_mut(&mut after.inodes[*inode].data);
                    if end > 0 && data.len() < offset + end {
                        data.resize(offset + end, 0);
                    }
                    if kept > 0 {
                        data[*offset..offset + kept].copy_from_slice(&written[..kept]);
                    }
                }
            }
        }
        for inode in &mut after.inodes {
            inode.synced = inode.data.clone();
        }
        drop_orphans(&mut names, &after);
        after.settle_as(names);
        after
    }

    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (path, inode) in &self.names {
            path.hash(&mut hasher);
            inode.hash(&mut hasher);
            self.inodes[*inode].data.hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// What is below a directory that is not there is not there.
fn drop_orphans(names: &mut BTreeMap<PathBuf, usize>, state: &State) {
    loop {
        let is_dir = |path: &PathBuf| {
            names.get(path).is_some_and(|inode| state.inodes[*inode].node == Node::Directory)
        };
        let lost =
            |path: &&PathBuf| path.parent().is_some_and(|parent| !is_dir(&parent.to_path_buf()));
        let orphans: Vec<_> = names.keys().filter(lost).cloned().collect();
        if orphans.is_empty() {
            return;
        }
        for orphan in orphans {
            names.remove(&orphan);
        }
    }
}
