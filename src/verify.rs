//! Proving every file of a store: headers by their keys, bodies where a suite
//! authenticates them.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::classify::Contents;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{EncryptedFs, Torn, TornFile};
use crate::header::{HEADER_LEN, Header};
use crate::keyring::{Expect, Keyring, PlaintextPolicy};
use crate::names::is_in_the_making;
use crate::parallel;
use crate::progress::{Meter, OnProgress};
use crate::vfs::{EntryKind, Vfs};
use crate::walk::{Met, PassedBy, is_passed_by, walk};

/// Bytes read and verified at once.
const PIECE_LEN: usize = 256 << 10;

/// What a verification found. Field names are stable: they are the JSON of the command
/// line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Files whose header their key proved, and whose body was read and authenticated.
    pub authenticated_files: u64,
    /// Their bytes on disk.
    pub authenticated_bytes: u64,
    /// Files of suite 1: their header is proven, nothing authenticates their body.
    pub unauthenticated_files: u64,
    /// Their bytes on disk.
    pub unauthenticated_bytes: u64,
    /// Plaintext files that the store's policy allows.
    pub plaintext_files: u64,
    /// Temporary files of other processes, which those alone can read, if they still run.
    pub temporary_files: u64,
    /// Files in the making, under the names that [`names`](crate::names) has for them: of a
    /// re-encryption or a copy that works, or that was broken off. Nothing depends on them, so
    /// nothing was verified in them; the next re-encryption removes what was left.
    pub unfinished_files: u64,
    /// How many files have 0 bytes.
    pub empty_files: u64,
    /// These files. A crash between creation and first write leaves such a file, and so does
    /// whoever cuts one: nothing in it tells which, and no data key is kept for it.
    #[serde(serialize_with = "crate::shown::paths")]
    pub empty: Vec<PathBuf>,
    /// How many logs end before their file does.
    pub torn_logs: u64,
    /// These logs. What is in front of their ends is good, and counts as authenticated.
    pub torn: Vec<TornFile>,
    /// Files that a reader would refuse.
    pub problems: Vec<FileProblem>,
    /// Directories in which nothing was verified.
    #[serde(flatten)]
    pub passed_by: PassedBy,
    /// Where not the store's own directory was verified: directories of its files that are
    /// not below this one. Nothing in them was verified.
    #[serde(serialize_with = "crate::shown::paths")]
    pub elsewhere: Vec<PathBuf>,
}

/// A file that a reader would refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct FileProblem {
    /// The file.
    #[serde(serialize_with = "crate::shown::path")]
    pub path: PathBuf,
    /// What is wrong, in words.
    pub message: String,
    /// What is wrong.
    #[serde(skip)]
    pub kind: ErrorKind,
}

enum Verdict {
    Authenticated(u64),
    Unauthenticated(u64),
    Plaintext,
    Temporary,
    Empty,
    Gone,
}

/// Verifies every file below `root`, by several threads; if that is the store's own
/// directory, those in its registered directories too, and one that is not there is a
/// problem. The keyring's own files are left
/// out: whoever opened it has proven it. What an engine removes meanwhile is skipped; what
/// it has not finished is a problem, but not what has the name of a file
/// [in the making](VerifyReport::unfinished_files).
///
/// # Errors
/// [`Io`](ErrorKind::Io) if a directory cannot be read, and of `Interrupted` when
/// cancelled. Files are in the report.
pub fn verify(
    fs: &EncryptedFs,
    root: impl AsRef<Path>,
    on: OnProgress<'_>,
) -> Result<VerifyReport> {
    let (mut files, mut unfinished_files) = (Vec::new(), 0);
    let mut passed_by = PassedBy::default();
    let Extent { roots, elsewhere, absent } = Extent::of(fs, root.as_ref());
    let canonical: Vec<_> = roots.iter().filter_map(|dir| fs.vfs().canonical(dir).ok()).collect();
    for root in &roots {
        walk(&**fs.vfs(), root, &mut |met, entry| {
            match met {
                Met::File if is_unfinished(&entry.path) => unfinished_files += 1,
                Met::File => files.push((entry.path.clone(), entry.len)),
                Met::NestedStore => passed_by.nested_stores.push(entry.path.clone()),
                Met::LostFound => passed_by.lost_found.push(entry.path.clone()),
                Met::Link => files.extend(linked(&**fs.vfs(), &entry.path, &canonical)),
                _ => {}
            }
            Ok(())
        })?;
    }
    passed_by.settle(&canonical);
    files.sort_unstable();
    let bytes = files.iter().map(|(_, len)| len).sum();
    let meter = Meter::new(on, files.len() as u64, bytes);
    let judged = parallel::each(&files, |(path, len)| {
        let mut cancelled = None;
        let mut torn = None;
        let judged = judge(fs, path, *len, &mut torn, &mut |bytes| {
            let added = meter.add(0, bytes);
            added.map_err(|error| {
                let kind = error.kind();
                cancelled = Some(error);
                Error::new(kind, "cancelled")
            })
        });
        if let Some(cancelled) = cancelled {
            return Err(cancelled);
        }
        match judged {
            // Says nothing of this file.
            Err(error) if error.is_out_of_descriptors() => Err(error),
            judged => {
                meter.add(1, 0)?;
                Ok((judged, torn))
            }
        }
    })?;
    let mut report =
        VerifyReport { unfinished_files, passed_by, elsewhere, ..VerifyReport::default() };
    report.problems.extend(absent.into_iter().map(FileProblem::new));
    for ((path, _), (judged, torn)) in files.into_iter().zip(judged) {
        if let Some(torn) = torn {
            report.torn_logs += 1;
            report.torn.push(TornFile::new(path.clone(), &torn));
        }
        report.add(path, judged);
    }
    Ok(report)
}

impl VerifyReport {
    /// Takes in a file of which only the first 4096 bytes, or all of a shorter one, were read:
    /// its header is proven by its key, its body is not looked at.
    pub fn add_start(&mut self, keyring: &Keyring, path: PathBuf, len: u64, start: &[u8]) {
        let allowed = keyring.settings().plaintext == PlaintextPolicy::Allow;
        let judged = match Contents::of(start).where_plaintext_is(allowed) {
            Contents::Empty => Ok(Verdict::Empty),
            Contents::Plaintext if allowed => Ok(Verdict::Plaintext),
            _ => Header::parse(start)
                .and_then(|header| keyring.decryptor(&header, &Expect::default()))
                .map(|_| Verdict::Unauthenticated(len))
                .or_else(|error| match error.kind() {
                    ErrorKind::TemporaryEnded => Ok(Verdict::Temporary),
                    _ => Err(error.with_path(&path)),
                }),
        };
        self.add(path, judged);
    }

    /// Takes in a file of so many bytes that was read to its end elsewhere, in a suite that
    /// authenticates.
    pub fn add_read(&mut self, path: PathBuf, len: u64, read: Result<()>) {
        self.add(path, read.map(|()| Verdict::Authenticated(len)));
    }

    fn add(&mut self, path: PathBuf, judged: Result<Verdict>) {
        match judged {
            Ok(Verdict::Authenticated(len)) => {
                self.authenticated_files += 1;
                self.authenticated_bytes += len;
            }
            Ok(Verdict::Unauthenticated(len)) => {
                self.unauthenticated_files += 1;
                self.unauthenticated_bytes += len;
            }
            Ok(Verdict::Plaintext) => self.plaintext_files += 1,
            Ok(Verdict::Temporary) => self.temporary_files += 1,
            Ok(Verdict::Empty) => {
                self.empty_files += 1;
                self.empty.push(path);
            }
            Ok(Verdict::Gone) => {}
            Err(error) => {
                self.problems.push(FileProblem::new((path, error)));
            }
        }
    }
}

fn is_unfinished(path: &Path) -> bool {
    path.file_name().is_some_and(|name| is_in_the_making(name.as_encoded_bytes()))
}

/// The file behind a symbolic link, which readers open under the link's name, unless it is
/// met below `roots` anyway.
fn linked(vfs: &dyn Vfs, link: &Path, roots: &[PathBuf]) -> Option<(PathBuf, u64)> {
    let target = vfs.canonical(link).ok()?;
    let stat = vfs.stat(&target).ok()?;
    let met = roots.iter().any(|root| target.starts_with(root));
    (stat.kind == EntryKind::File && !met).then(|| (link.to_owned(), stat.len))
}

impl FileProblem {
    fn new((path, error): (PathBuf, Error)) -> Self {
        Self { path, message: error.to_string(), kind: error.kind() }
    }
}

/// What is to be verified.
struct Extent {
    roots: Vec<PathBuf>,
    /// The store's directories that are not.
    elsewhere: Vec<PathBuf>,
    /// Those that should be and are not there.
    absent: Vec<(PathBuf, Error)>,
}

impl Extent {
    fn of(fs: &EncryptedFs, root: &Path) -> Self {
        let mut roots = vec![root.to_owned()];
        // One that is lost is told by the walk.
        let Ok(top) = fs.vfs().canonical(root) else {
            return Self { roots, elsewhere: Vec::new(), absent: Vec::new() };
        };
        let directories = fs.places().directories();
        let below = |dir: &PathBuf| dir.starts_with(&top);
        let vfs = &**fs.vfs();
        let own = fs.keyring().roots().0;
        // A walk does not come by all that are below.
        let met = |dir: &PathBuf| {
            let is_own = Some(dir) == own.as_ref();
            below(dir) && (is_own || matches!(is_passed_by(vfs, &top, dir), Ok(None)))
        };
        let mut absent = directories.absent();
        let mut elsewhere: Vec<_> =
            directories.list().into_iter().filter(|dir| !met(dir)).collect();
        if own.as_ref() == Some(&top) {
            let is_there = |dir: &PathBuf| absent.iter().all(|(absent, _)| absent != dir);
            roots.extend(elsewhere.drain(..).filter(is_there));
        } else {
            absent.retain(|(dir, _)| below(dir));
        }
        Self { roots, elsewhere, absent }
    }
}

fn judge(
    fs: &EncryptedFs,
    path: &Path,
    len: u64,
    torn: &mut Option<Torn>,
    done: &mut dyn FnMut(u64) -> Result<()>,
) -> Result<Verdict> {
    let reader = match fs.open(path) {
        Ok(reader) => reader,
        Err(error) => {
            done(len)?;
            return match error.kind() {
                ErrorKind::EmptyFile => Ok(Verdict::Empty),
                ErrorKind::TemporaryEnded => Ok(Verdict::Temporary),
                ErrorKind::Io(std::io::ErrorKind::NotFound) => Ok(Verdict::Gone),
                _ => Err(error),
            };
        }
    };
    match reader.suite() {
        None => {
            done(len)?;
            return Ok(Verdict::Plaintext);
        }
        Some(suite) if !suite.is_authenticated() => {
            done(len)?;
            return Ok(Verdict::Unauthenticated(len));
        }
        Some(_) => {}
    }
    let mut piece = vec![0; PIECE_LEN];
    let mut at = 0;
    loop {
        let read = reader.read_at(&mut piece, at)?;
        if read == 0 {
            done(len.saturating_sub(at).min(HEADER_LEN as u64))?;
            *torn = reader.torn();
            return Ok(Verdict::Authenticated(
                len - torn.map_or(0, |torn| torn.len_bytes.min(len)),
            ));
        }
        at += read as u64;
        done(read as u64)?;
    }
}
