//! Old keys go away: which files are under which data key, which of them an engine should
//! rewrite first, rewriting those that never change by themselves, and destroying keys
//! that are under no file any more.

use crate::fs::EncryptedFs;

/// How the files of a store come under newer keys, and old keys to their end.
///
/// New files get the newest data key; old files change only when the engine rewrites
/// them. [`usage`](Self::usage) tells how far that is, [`stale_files`](Self::stale_files)
/// what a compaction should prefer, [`reencrypt`](Self::reencrypt) rewrites what no
/// compaction touches, and [`retire`](Self::retire) destroys the keys that are left.
#[derive(Clone, Copy, Debug)]
pub struct Renewal<'a>(pub(super) &'a EncryptedFs);
