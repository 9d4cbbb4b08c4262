//! What lies in a store's directory, by the first 4096 bytes of each file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use atrest::classify::Contents;
use atrest::names::kind_of;
use atrest::vfs::{Links, OsVfs, Vfs as _};
use atrest::walk::{Met, PassedBy, walk};
use atrest::{
    DataKeyId, Error, ErrorKind, Expect, FileKind, HEADER_LEN, Header, Keyring, PlaintextPolicy,
};
use serde::Serialize;

use crate::advice::Verdict;
use crate::bucket::Bucket;
use crate::failure::{Failure, Result};
use crate::paint::{YELLOW, clean};
use crate::{progress, units};

/// Problem files that are named; more are only counted.
const PROBLEMS_MAX: usize = 100;

/// A number of files and the bytes they take on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Usage {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Usage {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    fn join(&mut self, other: Self) {
        self.files += other.files;
        self.bytes += other.bytes;
    }
}

/// A file that is neither readable under this store's keys nor plaintext.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

/// All files of a store. Field names are stable.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Scan {
    /// With a good header, proven if keys were at hand.
    pub(crate) encrypted: Usage,
    pub(crate) plaintext: Usage,
    /// With a good header, and a key that only the process which wrote it has.
    pub(crate) temporary: Usage,
    /// Of 0 bytes.
    pub(crate) empty: Usage,
    pub(crate) problem: Usage,
    /// The first hundred.
    pub(crate) problems: Vec<Problem>,
    /// Directories with a keyring of their own, in which nothing was looked at.
    pub(crate) nested_stores: Vec<String>,
    /// A file system's `lost+found`, in which nothing was looked at.
    pub(crate) lost_found: Vec<String>,
    /// What killed commands were writing; counted above, too.
    #[serde(skip)]
    pub(crate) leftovers: Vec<PathBuf>,
    #[serde(skip)]
    pub(crate) by_key: BTreeMap<DataKeyId, Usage>,
}

/// Reads the header of every file below `dir`, and proves it if there is a keyring.
/// Links are not followed; the keyring's own files and nested stores are left out.
pub(crate) fn scan(dir: &Path, keyring: Option<&Keyring>, json: bool) -> Result<Scan> {
    let mut scan = Scan::default();
    let progress = progress::files("scanning", json);
    walk(&OsVfs, dir, &mut |met, entry| {
        match met {
            Met::File => {
                scan.file(&entry.path, entry.len, keyring)?;
                progress.inc(1);
            }
            Met::NestedStore => scan.nested_stores.push(shown(&entry.path)),
            Met::LostFound => scan.lost_found.push(shown(&entry.path)),
            _ => {}
        }
        Ok(())
    })?;
    progress.finish_and_clear();
    scan.problems.sort_by(|a, b| a.path.cmp(&b.path));
    scan.nested_stores.sort();
    scan.lost_found.sort();
    scan.leftovers.sort();
    Ok(scan)
}

fn shown(path: &Path) -> String {
    clean(&path.display().to_string())
}

/// What people are told of directories that a look at a store's files left out.
pub(crate) fn passed_by(found: &PassedBy, verb: &str) -> Vec<String> {
    let nested: Vec<_> = found.nested_stores.iter().map(|dir| shown(dir)).collect();
    let lost_found: Vec<_> = found.lost_found.iter().map(|dir| shown(dir)).collect();
    passed_by_lines(&nested, &lost_found, verb)
}

pub(crate) fn passed_by_lines(nested: &[String], lost_found: &[String], verb: &str) -> Vec<String> {
    let line =
        |dir: &String, what: &str| format!("  {} {dir}: {what}, not {verb}", YELLOW.paint("•"));
    let nested = nested.iter().map(|dir| line(dir, "another store"));
    let what = "of the file system, closed to this user";
    nested.chain(lost_found.iter().map(|dir| line(dir, what))).collect()
}

/// The same of every object below a prefix of an object store.
pub(crate) fn scan_bucket(bucket: &Bucket, keyring: Option<&Keyring>, json: bool) -> Result<Scan> {
    let mut scan = Scan::default();
    let progress = progress::files("scanning", json);
    bucket.starts(|name, bytes, start| {
        scan.judge(Path::new(name), bytes, start, keyring);
        progress.inc(1);
        Ok(())
    })?;
    progress.finish_and_clear();
    scan.problems.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(scan)
}

/// Refuses a directory for a new store where encrypted files lie: their keyring is lost,
/// and a new one would hide that.
pub(crate) fn refuse_foreign(found: &Scan, dir: &Path) -> Result<()> {
    if found.encrypted.files == 0 {
        return Ok(());
    }
    let files = units::counted(found.encrypted.files, "encrypted file");
    let what =
        format!("expected a directory without encrypted files, found {files} and no keyring");
    let failure = Failure::from(Error::new(ErrorKind::KeyringExists, what).with_path(dir));
    Err(failure.advise(
        "bring back the keyring of these files (`atrest recover`, a backup), or give another directory",
    ))
}

impl Scan {
    /// Takes in what was found in another directory.
    pub(crate) fn add(&mut self, other: Self) {
        self.encrypted.join(other.encrypted);
        self.plaintext.join(other.plaintext);
        self.temporary.join(other.temporary);
        self.empty.join(other.empty);
        self.problem.join(other.problem);
        for (key, usage) in other.by_key {
            self.by_key.entry(key).or_default().join(usage);
        }
        self.problems.extend(other.problems);
        self.leftovers.extend(other.leftovers);
        self.nested_stores.extend(other.nested_stores);
        self.lost_found.extend(other.lost_found);
    }

    fn file(&mut self, path: &Path, bytes: u64, keyring: Option<&Keyring>) -> Result<(), Error> {
        let start = match first_bytes(path) {
            Ok(start) => start,
            // An engine at work removes files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => {
                let error = Error::io("the file cannot be read", error);
                // Says nothing of this file.
                if error.is_out_of_descriptors() {
                    return Err(error.with_path(path));
                }
                self.problem(path, 0, &error);
                return Ok(());
            }
        };
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        if kind_of(name).is_some() {
            self.leftovers.push(path.to_owned());
        }
        self.judge(path, bytes, &start, keyring);
        Ok(())
    }

    fn judge(&mut self, path: &Path, bytes: u64, start: &[u8], keyring: Option<&Keyring>) {
        // Without a keyring there is no policy: zeros may be an engine's own.
        let allowed = keyring.is_none_or(|it| it.settings().plaintext == PlaintextPolicy::Allow);
        match Contents::of(start).where_plaintext_is(allowed) {
            Contents::Plaintext => self.plaintext.add(bytes),
            Contents::Empty => self.empty.add(bytes),
            Contents::Encrypted(header) if header.kind == FileKind::Temporary => {
                self.temporary.add(bytes);
            }
            Contents::Encrypted(header) => {
                if let Some(Err(error)) = keyring.map(|k| k.decryptor(&header, &Expect::default()))
                {
                    return self.problem(path, bytes, &error);
                }
                self.encrypted.add(bytes);
                self.by_key.entry(header.data_key_id).or_default().add(bytes);
            }
            // Judged already: parsed for what there is to say.
            _ => match Header::parse(start) {
                Err(error) => self.problem(path, bytes, &error),
                Ok(_) => {
                    self.problem(path, bytes, &Error::new(ErrorKind::CorruptHeader, "unknown"))
                }
            },
        }
    }

    fn problem(&mut self, path: &Path, bytes: u64, error: &Error) {
        self.problem.add(bytes);
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem {
                path: shown(path),
                kind: Verdict::of(error.kind()).name,
                message: clean(&error.to_string()),
            });
        }
    }
}

/// Opens a regular file for reading, and waits for nobody: what lies in a store may be a pipe.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "expected a regular file"))
}

/// Up to 4096 bytes from the beginning of a file, and its length.
pub(crate) fn start_of(path: &Path) -> io::Result<(Vec<u8>, u64)> {
    let file = open_regular(path)?;
    let len = file.metadata()?.len();
    Ok((start_in(&file)?, len))
}

/// Up to 4096 bytes from where an open file is read next.
pub(crate) fn start_in(file: &File) -> io::Result<Vec<u8>> {
    let mut start = Vec::with_capacity(HEADER_LEN);
    file.take(HEADER_LEN as u64).read_to_end(&mut start)?;
    Ok(start)
}

/// The same of a file that was met in a walk, and may be something else by now.
fn first_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut start = vec![0; HEADER_LEN];
    let read = OsVfs.open(path, Links::Refuse)?.read_at(&mut start, 0)?;
    start.truncate(read);
    Ok(start)
}
