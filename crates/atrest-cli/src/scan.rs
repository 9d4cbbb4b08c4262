//! What lies in a store's directory, by the first 4096 bytes of each file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use atrest::names::is_keyring_name;
use atrest::{DataKeyId, Error, ErrorKind, Expect, HEADER_LEN, Header, Keyring};
use serde::Serialize;

use crate::advice::Verdict;
use crate::failure::{Failure, Result};
use crate::paint::clean;
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
    /// Of 0 bytes.
    pub(crate) empty: Usage,
    pub(crate) problem: Usage,
    /// The first hundred.
    pub(crate) problems: Vec<Problem>,
    #[serde(skip)]
    pub(crate) by_key: BTreeMap<DataKeyId, Usage>,
}

/// Reads the header of every file below `dir`, and proves it if there is a keyring.
/// Links are not followed; the keyring's own files are left out.
pub(crate) fn scan(dir: &Path, keyring: Option<&Keyring>, json: bool) -> Result<Scan> {
    let mut scan = Scan::default();
    let progress = progress::files("scanning", json);
    let mut directories = vec![dir.to_owned()];
    while let Some(directory) = directories.pop() {
        let fail = |source| Failure::io("the directory cannot be listed", &directory, source);
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound && directory != dir => continue,
            Err(error) => return Err(fail(error)),
        };
        for entry in entries {
            let entry = entry.map_err(fail)?;
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => directories.push(path),
                Ok(kind)
                    if kind.is_file() && !is_keyring_name(entry.file_name().as_encoded_bytes()) =>
                {
                    scan.file(&path, keyring);
                    progress.inc(1);
                }
                _ => {}
            }
        }
    }
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
    fn file(&mut self, path: &Path, keyring: Option<&Keyring>) {
        let (start, bytes) = match start_of(path) {
            Ok(read) => read,
            // An engine at work removes files.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                return self.problem(path, 0, &Error::io("the file cannot be read", error));
            }
        };
        let header = match Header::parse(&start) {
            Ok(header) => header,
            Err(error) => match error.kind() {
                ErrorKind::NotEncrypted => return self.plaintext.add(bytes),
                ErrorKind::EmptyFile => return self.empty.add(bytes),
                _ => return self.problem(path, bytes, &error),
            },
        };
        if let Some(Err(error)) = keyring.map(|k| k.decryptor(&header, &Expect::default())) {
            return self.problem(path, bytes, &error);
        }
        self.encrypted.add(bytes);
        self.by_key.entry(header.data_key_id).or_default().add(bytes);
    }

    fn problem(&mut self, path: &Path, bytes: u64, error: &Error) {
        self.problem.add(bytes);
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(Problem {
                path: clean(&path.display().to_string()),
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
    let mut start = Vec::with_capacity(HEADER_LEN);
    file.take(HEADER_LEN as u64).read_to_end(&mut start)?;
    Ok((start, len))
}
