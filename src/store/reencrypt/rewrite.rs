//! One file: copied, made durable, read back, put in its place.

use std::io;
use std::path::Path;
use std::sync::PoisonError;

use super::collect::Work;
use super::exchange::{Pair, same_content};
use super::fingerprint::{Fingerprint, FingerprintKey, Print};
use super::{Rewritten, Run, Skipped};
use crate::classify::Contents;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::pieces::Copied;
use crate::fs::{Reader, Torn, TornFile, Writer};
use crate::header::{FileKind, Header, begins_encrypted};
use crate::keyring::FileSpec;
use crate::names::temporary_name;
use crate::scan::look;
use crate::store::ledger::{FileRecord, Owner};
use crate::store::links::hold_key;
use crate::suite::Integrity;
use crate::vfs::{FileStat, Vfs, WriteFile, keep_access};

/// What a copy goes into.
enum Target {
    Encrypted(Writer),
    Plaintext(Box<dyn WriteFile>),
}

impl Target {
    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Encrypted(writer) => writer.append(bytes),
            Self::Plaintext(file) => {
                file.append(bytes).map_err(|e| Error::io("the file cannot be written", e))
            }
        }
    }

    /// Whether each append to it can be told from the next one.
    fn keeps_appends(&self) -> bool {
        matches!(self, Self::Encrypted(writer) if writer.keeps_appends())
    }

    /// Makes it durable.
    fn finish(self) -> Result<()> {
        match self {
            Self::Encrypted(writer) => writer.finish().map(drop),
            Self::Plaintext(mut file) => {
                file.sync().map_err(|e| Error::io("the file cannot be made durable", e))
            }
        }
    }
}

impl Run<'_> {
    pub(super) fn rewrite(&self, work: &Work) -> Result<Rewritten> {
        let vfs = &**self.fs.vfs();
        let path = &*work.file.path;
        let Some((before, what)) = look(vfs, path)? else {
            return Ok(Rewritten::Skipped(Skipped::Gone));
        };
        let wanted = match &what {
            Contents::Encrypted(_) if self.how.to_plaintext => true,
            what => self.judge.judge(what).is_some(),
        };
        if !wanted {
            return Ok(Rewritten::Skipped(Skipped::Fresh));
        }
        let header = match &what {
            Contents::Encrypted(header) => Some(&**header),
            _ => None,
        };
        if self.must_exchange_and_cannot(before.device) {
            return Ok(Rewritten::Skipped(Skipped::NoExchange));
        }
        // A finished file never gets a writer again, so this need not be asked twice.
        if header.is_some_and(|header| self.fs.keyring().is_being_written(header)) {
            return Ok(Rewritten::Skipped(Skipped::BeingWritten));
        }
        let linked = before.shared_inode();
        let is_name = |name: &Path| vfs.stat(name).is_ok_and(|it| it.shared_inode() == linked);
        if linked != work.inode
            || before.links > work.links
            || !work.others.iter().all(|other| is_name(other))
        {
            // Linked or replaced since, maybe by a backup, or met under two names one after the
            // other, the second in place of one elsewhere: the next run knows all of its names.
            return Ok(Rewritten::Skipped(Skipped::Changed));
        }
        if let (Some(header), Some(inode)) = (header, linked)
            && before.links > work.names
        {
            if self.fs.places().is_backups(path, inode, work.names) {
                // It began before the scan met the file, and its links came behind the scan.
                return Ok(Rewritten::Skipped(Skipped::Changed));
            }
            hold_key(self.fs.keyring(), header.data_key_id)?;
        }
        let reader = self.fs.open(path);
        // Asked even when opening failed: a file that went meanwhile may have taken its key
        // with it.
        if !same_content(&before, &stat(vfs, path)?) {
            return Ok(Rewritten::Skipped(Skipped::Changed));
        }
        let reader = reader?;
        if reader.torn().is_some_and(|torn| self.is_left(path, &torn)) {
            return Ok(Rewritten::Skipped(Skipped::Torn));
        }
        let Some(name) = path.file_name() else {
            return Ok(Rewritten::Skipped(Skipped::Gone));
        };
        let temporary = path.with_file_name(temporary_name(name.as_encoded_bytes()));
        let result = self.replace(work, &temporary, &before, header, &reader);
        if !matches!(result, Ok(Rewritten::Done(_))) {
            // Best effort: the next run removes it otherwise. The first error is the one
            // to tell.
            drop(self.fs.remove_own(&temporary));
        }
        result
    }

    /// Reports a torn file, and tells whether it is left as it is.
    fn is_left(&self, path: &Path, torn: &Torn) -> bool {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.torn.push(TornFile::new(path.into(), torn));
        !self.how.cut_torn
    }

    fn replace(
        &self,
        work: &Work,
        temporary: &Path,
        before: &FileStat,
        header: Option<&Header>,
        reader: &Reader,
    ) -> Result<Rewritten> {
        let path = &*work.file.path;
        let vfs = &**self.fs.vfs();
        let mut target = self.create(path, temporary, header)?;
        let key = FingerprintKey::random()?;
        let by_append = reader.keeps_appends() && target.keeps_appends();
        let torn = reader.torn();
        let Some((copied, print)) = self.copy(reader, &mut target, by_append, before.len, &key)?
        else {
            return Ok(Rewritten::Cancelled);
        };
        match copied.torn {
            found if found == torn => {}
            // Told by nothing but reading it.
            Some(found) if !reader.keeps_appends() => {
                if self.is_left(path, &found) {
                    return Ok(Rewritten::Skipped(Skipped::Torn));
                }
            }
            _ => return Ok(Rewritten::Skipped(Skipped::Changed)),
        }
        vfs.stat(path)
            .and_then(|old| keep_access(vfs, path, &old, temporary))
            .map_err(|e| Error::io("owner and mode cannot be kept", e).with_path(path))?;
        target.finish()?;
        if !self.reads_back(temporary, &key, by_append, print)? {
            // What grows while it is read is not what was written of it.
            if !same_content(before, &stat(vfs, path)?) {
                return Ok(Rewritten::Skipped(Skipped::Changed));
            }
            let what = "the new file does not read back as it was written";
            return Err(Error::new(ErrorKind::Authentication, what).with_path(temporary));
        }
        let mut replaced = Err(Skipped::Changed);
        let mut swap = || {
            replaced = self.swap(work, temporary, before)?;
            Ok(())
        };
        match self.how.commit {
            Some(hook) => hook.commit(path, temporary, &mut swap)?,
            None => swap()?,
        }
        Ok(match replaced {
            Ok(()) => {
                if reader.keeps_appends() && !by_append {
                    let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
                    report.merged.push(path.into());
                }
                Rewritten::Done(copied.len)
            }
            Err(why) => Rewritten::Skipped(why),
        })
    }

    fn create(&self, path: &Path, temporary: &Path, header: Option<&Header>) -> Result<Target> {
        if self.how.to_plaintext {
            let file = self.fs.vfs().create_new(temporary, 0o600);
            let file =
                file.map_err(|e| Error::io("the file cannot be created", e).with_path(temporary))?;
            return Ok(Target::Plaintext(file));
        }
        let mut spec = match header {
            Some(header) => self.spec_of(header),
            None => {
                let spec = self.how.plaintext.and_then(|spec_of| spec_of(path));
                spec.unwrap_or(FileSpec::new(FileKind::Other))
            }
        };
        spec.suite = self.how.suite.or(spec.suite);
        self.fs.create_own(temporary, spec).map(Target::Encrypted)
    }

    /// The new file is what the old one was.
    fn spec_of(&self, header: &Header) -> FileSpec {
        let mut spec = FileSpec::new(header.kind).file_id(header.file_id);
        let promised = self.judge.promised(header.kind);
        let kept = header.suite.is_authenticated() || promised == Integrity::Confidential;
        spec.suite = Some(if kept { header.suite } else { spec.suite_under(promised) });
        spec.chunk_len = header.chunk_len.unwrap_or(spec.chunk_len);
        spec.keyspace = self.judge.keyspace_of(header.data_key_id).unwrap_or_default();
        spec
    }

    /// Returns what was copied and its fingerprint; `None` if the run was cancelled.
    fn copy(
        &self,
        reader: &Reader,
        target: &mut Target,
        by_append: bool,
        mut uncounted: u64,
        key: &FingerprintKey,
    ) -> Result<Option<(Copied, Print)>> {
        let mut fingerprint = Fingerprint::new(key);
        let (mut first, mut cancelled) = (true, false);
        let copied = reader.pieces(by_append, &mut |bytes| {
            if !self.throttle.take(bytes.len() as u64, || self.is_cancelled()) {
                cancelled = true;
                let kind = ErrorKind::Io(io::ErrorKind::Interrupted);
                return Err(Error::new(kind, "cancelled"));
            }
            if std::mem::take(&mut first) && self.how.to_plaintext && begins_encrypted(bytes) {
                let what = "the plaintext itself begins like an encrypted file";
                return Err(Error::new(ErrorKind::ForeignFile, what).with_path(reader.path()));
            }
            fingerprint.take(bytes, by_append);
            target.append(bytes)?;
            let counted = uncounted.min(bytes.len() as u64);
            uncounted -= counted;
            self.advance(0, counted);
            Ok(())
        });
        if cancelled {
            return Ok(None);
        }
        let copied = copied?;
        // The header and tags.
        self.advance(0, uncounted);
        Ok(Some((copied, fingerprint.finish())))
    }

    /// Whether the new file reads back as it was written.
    fn reads_back(
        &self,
        temporary: &Path,
        key: &FingerprintKey,
        by_append: bool,
        expected: Print,
    ) -> Result<bool> {
        if self.how.to_plaintext && expected.1 == 0 {
            // Nothing opens a file of nothing.
            return Ok(stat(&**self.fs.vfs(), temporary)?.len == 0);
        }
        let reader = self.fs.open(temporary)?;
        let mut fingerprint = Fingerprint::new(key);
        let copied = reader.pieces(by_append, &mut |bytes| {
            fingerprint.take(bytes, by_append);
            Ok(())
        })?;
        Ok(fingerprint.finish() == expected && copied.torn.is_none())
    }

    /// Puts the new file in the old one's place, if that is still the file that was read.
    fn swap(
        &self,
        work: &Work,
        temporary: &Path,
        before: &FileStat,
    ) -> Result<Result<(), Skipped>> {
        let path = &*work.file.path;
        let (vfs, places) = (&**self.fs.vfs(), self.fs.places());
        let alone = places.moves().alone();
        match stat(vfs, path) {
            // A name more than were found would be left behind with the old file.
            Ok(now) if same_content(before, &now) && now.links <= before.links => {}
            Ok(_) => return Ok(Err(Skipped::Changed)),
            Err(error) if error.kind() == ErrorKind::Io(io::ErrorKind::NotFound) => {
                return Ok(Err(Skipped::Gone));
            }
            Err(error) => return Err(error),
        }
        let pair = Pair::new(vfs, path, before, stat(vfs, temporary)?);
        places.moves().note(path);
        places.moves().note(pair.aside());
        let exchanged = pair.exchange(temporary, self.how.commit.is_some());
        match &exchanged {
            Ok(Ok(())) => places.renamed(temporary, path),
            _ => places.removed(temporary),
        }
        places.removed(pair.aside());
        match exchanged? {
            Ok(()) => {}
            Err(why) => {
                if why == Skipped::NoExchange {
                    self.cannot_exchange(before.device);
                }
                return Ok(Err(why));
            }
        }
        if self.how.to_plaintext {
            self.account_plaintext(path);
        }
        let relinked = self.relink(work, before, pair.new_file());
        drop(alone);
        if let Some(dir) = path.parent() {
            // Before the old file goes: after a crash there is the one or the other.
            self.fs.sync_dir(dir)?;
        }
        pair.remove_old()?;
        for pair in relinked? {
            if let Some(dir) = pair.aside().parent() {
                self.fs.sync_dir(dir)?;
            }
            pair.remove_old()?;
        }
        Ok(Ok(()))
    }

    /// Gives the new file the old one's other names.
    fn relink<'b>(
        &'b self,
        work: &'b Work,
        before: &'b FileStat,
        new: FileStat,
    ) -> Result<Vec<Pair<'b>>> {
        let (vfs, places) = (&**self.fs.vfs(), self.fs.places());
        let mut relinked = Vec::new();
        for other in &work.others {
            let pair = Pair::new(vfs, other, before, new);
            places.moves().note(other);
            places.moves().note(pair.aside());
            let outcome = pair.relink(&work.file.path, self.how.commit.is_some())?;
            places.removed(pair.aside());
            if outcome.is_ok() {
                places.linked(&work.file.path, other);
                relinked.push(pair);
            }
        }
        Ok(relinked)
    }

    fn account_plaintext(&self, path: &Path) {
        let Ok(now) = stat(&**self.fs.vfs(), path) else { return };
        // As a scan counts a file of nothing.
        let owner = if now.len == 0 { Owner::Torn } else { Owner::Plaintext };
        let record = FileRecord { owner, bytes: now.len, created_ns: 0 };
        if let Some(place) = self.fs.places().place(path) {
            self.fs.places().ledger().created(place, record);
        }
    }
}

fn stat(vfs: &dyn Vfs, path: &Path) -> Result<FileStat> {
    vfs.stat(path).map_err(|e| Error::io("the file's attributes are unknown", e).with_path(path))
}
