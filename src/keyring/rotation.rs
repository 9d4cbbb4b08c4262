//! When keys rotate by themselves.

use std::time::Duration;

use super::audit::AuditKind;
use super::commit::Draft;
use super::{ActiveKey, Inner, Settings};
use crate::error::{ErrorKind, Result};

/// A key created further in the future than this comes from a clock that was wrong.
const CLOCK_TOLERANCE_NS: u64 = 24 * 3600 * 1_000_000_000;
/// The byte count is committed when it grew by this part of the limit.
const COUNT_PARTS: u64 = 8;

/// Byte counts are committed when the last commit is as old as this, so that a process
/// that is killed loses no more.
const COUNTS_KEPT_NS: u64 = 3600 * 1_000_000_000;

/// Growth of the byte count that is worth a commit.
fn count_step(limit: u64) -> u64 {
    (limit / COUNT_PARTS).max(1)
}

impl Inner {
    pub(super) fn maintain(&self) -> Result<()> {
        let done = {
            let mut writer = self.writer();
            self.commit(&mut writer, |draft| self.do_due(draft))
        };
        // Without a key there is nothing to rotate.
        let failed = done.as_ref().err().filter(|e| e.kind() != ErrorKind::CmekRevoked);
        let problem = failed.map(ToString::to_string);
        let mut monitor = self.watch.monitor();
        if let Some(new) = &problem
            && monitor.upkeep_problem != problem
        {
            monitor.note(self.clock.now_ns(), AuditKind::UpkeepFailed, new.as_str());
        }
        monitor.upkeep_problem = problem;
        drop(monitor);
        done
    }

    fn do_due(&self, draft: &mut Draft) -> Result<bool> {
        let (now_ns, settings) = (draft.now_ns, draft.body.settings());
        let snapshot = self.vault.load();
        let may_rotate = self.check_may_rotate().is_ok();
        let mut changed = false;
        for (index, active) in snapshot.unlocked()?.active.iter().enumerate() {
            let Some(active) = active else { continue };
            let keyspace = &mut draft.body.keyspaces[index];
            if may_rotate && active.is_due(now_ns, &settings) {
                draft.rotate_data_key(index)?;
                changed = true;
            } else if active.created_ns > now_ns.saturating_add(CLOCK_TOLERANCE_NS)
                && (keyspace.clock_rebased_ns == 0 || keyspace.clock_rebased_ns > now_ns)
            {
                // The clock stands before the key's creation. One of the two times is
                // wrong, and nobody knows which: count a whole period from now, so that
                // the key rotates neither early nor never.
                keyspace.clock_rebased_ns = now_ns;
                changed = true;
            }
        }
        if let Some(limit) = settings.rotation_bytes {
            // The draft has the present counts, the snapshot those of the last commit.
            let grown = draft.body.keys.iter().zip(&snapshot.body.keys);
            changed |= grown
                .into_iter()
                .any(|(new, old)| new.encrypted_bytes - old.encrypted_bytes >= count_step(limit));
        }
        let since_commit_ns = now_ns.saturating_sub(snapshot.image.fixed.written_ns);
        changed |= draft.counted && since_commit_ns >= COUNTS_KEPT_NS;
        Ok(changed)
    }

    /// How long the background thread may sleep.
    pub(super) fn until_due(&self) -> Duration {
        const LONGEST: Duration = Duration::from_secs(3600);
        // One large file grows the count without telling anybody.
        const LONGEST_COUNTING: Duration = Duration::from_secs(60);
        let snapshot = self.vault.load();
        let Ok(unlocked) = snapshot.unlocked() else { return LONGEST };
        let settings = snapshot.body.settings();
        let (now_ns, period) = (self.clock.now_ns(), settings.rotation_period);
        let longest = if settings.rotation_bytes.is_some() { LONGEST_COUNTING } else { LONGEST };
        let until = unlocked
            .active
            .iter()
            .flatten()
            .map(|active| period.saturating_sub(Duration::from_nanos(active.age_ns(now_ns))));
        until.min().unwrap_or(longest).min(longest)
    }
}

impl ActiveKey {
    /// Age by the clock; by the time since the clock was seen to stand before the key's
    /// creation, while it does.
    fn age_ns(&self, now_ns: u64) -> u64 {
        if now_ns >= self.created_ns {
            now_ns - self.created_ns
        } else if self.clock_rebased_ns != 0 {
            now_ns.saturating_sub(self.clock_rebased_ns)
        } else {
            0
        }
    }

    pub(super) fn is_due(&self, now_ns: u64, settings: &Settings) -> bool {
        u128::from(self.age_ns(now_ns)) >= settings.rotation_period.as_nanos()
            || settings.rotation_bytes.is_some_and(|limit| self.entry.count.get() >= limit)
    }

    /// Whether the byte count grew enough to be committed.
    pub(super) fn is_uncounted(&self, settings: &Settings) -> bool {
        let grown = self.entry.count.get().saturating_sub(self.committed_bytes);
        settings.rotation_bytes.is_some_and(|limit| grown >= count_step(limit))
    }
}
