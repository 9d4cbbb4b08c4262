//! Files in the page cache: plain, through this library, and through the obvious code that
//! reads and then decrypts with the `ctr` crate.

use std::fs::File;
use std::hint::black_box;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use atrest::fs::ReadPath;
use atrest::kms::{KeyFile, generate_key_file};
use atrest::{EncryptedFs, FileKind, FileSpec, Options, Reader, Store, Suite};
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};

use crate::Row;
use crate::measure::{Effort, interleaved};

/// The operations, in the order of the report.
pub const OPERATIONS: [&str; 6] =
    ["pread_4k", "pread_64k", "seq_read", "seq_write", "create", "open"];
/// Against what. `same_len` is a plain file as long on disk as the encrypted one, header and
/// all: what is left then is the library's own work.
pub const PEERS: [&str; 3] = ["plain", "naive", "same_len"];

/// Other ways of this library than suite 1 by `pread`, each against plain files.
pub const WAYS: [&str; 3] = ["suite-2", "suite-1-mapped", "suite-2-mapped"];

const FILE_LEN: usize = 64 << 20;
const PIECE_LEN: usize = 1 << 20;

/// A store and files in a temporary directory.
pub struct Files {
    dir: tempfile::TempDir,
    fs: EncryptedFs,
}

impl Files {
    /// Writes one file of 64 MiB plain and one encrypted.
    ///
    /// # Panics
    /// When the temporary directory cannot be written.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        generate_key_file(dir.path().join("cmek.key")).unwrap();
        let kms = Arc::new(KeyFile::new(dir.path().join("cmek.key")).unwrap());
        let store = Store::create(dir.path(), kms, Options::default()).unwrap();
        let fs = store.files().clone();
        let piece = vec![0x5a; PIECE_LEN];
        let mut plain = File::create(dir.path().join("plain")).unwrap();
        let mut encrypted = fs.create_new(dir.path().join("atrest"), spec("atrest")).unwrap();
        let mut sealed = fs.create_new(dir.path().join("suite-2"), spec("suite-2")).unwrap();
        for _ in 0..FILE_LEN / PIECE_LEN {
            plain.write_all(&piece).unwrap();
            encrypted.append(&piece).unwrap();
            sealed.append(&piece).unwrap();
        }
        encrypted.finish().unwrap();
        sealed.finish().unwrap();
        Self { dir, fs }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One call of an operation in one implementation; `None` for pairs that mean nothing.
    ///
    /// # Panics
    /// For an operation that is not in [`OPERATIONS`].
    pub fn operation<'a>(
        &'a self,
        operation: &str,
        name: &'a str,
    ) -> Option<Box<dyn FnMut() + 'a>> {
        match operation {
            "pread_4k" => self.read(name, 4 << 10, random_offsets(4 << 10)),
            "pread_64k" => self.read(name, 64 << 10, random_offsets(64 << 10)),
            "seq_read" => self.read(name, PIECE_LEN, sequential_offsets()),
            "seq_write" => self.write(name),
            "create" => self.create(name),
            "open" => self.open(name),
            _ => unreachable!("no operation named {operation}"),
        }
    }

    /// Bytes that one call moves; 0 for operations whose time counts, not their rate.
    pub fn bytes(operation: &str) -> usize {
        match operation {
            "pread_4k" => 4 << 10,
            "pread_64k" => 64 << 10,
            "seq_read" => PIECE_LEN,
            "seq_write" => SEQ_WRITE_LEN,
            _ => 0,
        }
    }

    fn read(
        &self,
        name: &str,
        len: usize,
        mut offsets: impl FnMut() -> u64 + 'static,
    ) -> Option<Box<dyn FnMut() + '_>> {
        let mut buf = vec![0; len];
        match name {
            "atrest" | "suite-2" | "suite-1-mapped" | "suite-2-mapped" => {
                let reader = self.opened(name);
                Some(Box::new(move || {
                    reader.read_exact_at(black_box(&mut buf), offsets()).unwrap();
                }))
            }
            "plain" => {
                let file = File::open(self.path("plain")).unwrap();
                Some(Box::new(move || {
                    file.read_exact_at(black_box(&mut buf), offsets()).unwrap();
                }))
            }
            "same_len" => None,
            _ => {
                let file = File::open(self.path("plain")).unwrap();
                Some(Box::new(move || {
                    let offset = offsets();
                    file.read_exact_at(black_box(&mut buf), offset).unwrap();
                    naive(&mut buf, offset);
                }))
            }
        }
    }

    fn write<'a>(&'a self, name: &'a str) -> Option<Box<dyn FnMut() + 'a>> {
        let mut piece = vec![0x5a; PIECE_LEN];
        let path = self.path(&format!("write-{name}"));
        match name {
            "suite-1-mapped" | "suite-2-mapped" => None,
            "atrest" | "suite-2" => Some(Box::new(move || {
                let _ = std::fs::remove_file(&path);
                let mut writer = self.fs.create_new(&path, spec(name)).unwrap();
                for _ in 0..SEQ_WRITE_LEN / PIECE_LEN {
                    writer.append(black_box(&piece)).unwrap();
                }
                writer.finish_unsynced().unwrap();
            })),
            "same_len" => None,
            name => {
                let naive_too = name == "naive";
                Some(Box::new(move || {
                    let _ = std::fs::remove_file(&path);
                    let mut file = File::create_new(&path).unwrap();
                    for index in 0..SEQ_WRITE_LEN / PIECE_LEN {
                        if naive_too {
                            naive(&mut piece, (index * PIECE_LEN) as u64);
                        }
                        file.write_all(black_box(&piece)).unwrap();
                    }
                }))
            }
        }
    }

    fn create<'a>(&'a self, name: &'a str) -> Option<Box<dyn FnMut() + 'a>> {
        let path = self.path(&format!("create-{name}"));
        let bytes = [0x5a; 100];
        match name {
            "suite-1-mapped" | "suite-2-mapped" => None,
            "atrest" | "suite-2" => Some(Box::new(move || {
                let _ = std::fs::remove_file(&path);
                let mut writer = self.fs.create_new(&path, spec(name)).unwrap();
                writer.append(black_box(&bytes)).unwrap();
                writer.finish_unsynced().unwrap();
            })),
            "naive" => None,
            name => {
                let header_len = if name == "same_len" { atrest::HEADER_LEN } else { 0 };
                let bytes = vec![0x5a; header_len + bytes.len()];
                Some(Box::new(move || {
                    let _ = std::fs::remove_file(&path);
                    File::create_new(&path).unwrap().write_all(black_box(&bytes)).unwrap();
                }))
            }
        }
    }

    fn opened(&self, name: &str) -> Reader {
        let mapped = name.ends_with("mapped");
        let read_path = if mapped { ReadPath::Mapped } else { ReadPath::Pread };
        let file = if name.starts_with("suite-2") { "suite-2" } else { "atrest" };
        let reader = self.fs.clone().read_path(read_path).open(self.path(file)).unwrap();
        assert_eq!(reader.is_mapped(), mapped);
        reader
    }

    fn open<'a>(&'a self, name: &'a str) -> Option<Box<dyn FnMut() + 'a>> {
        match name {
            "atrest" | "suite-2" | "suite-1-mapped" | "suite-2-mapped" => {
                Some(Box::new(move || drop(black_box(self.opened(name)))))
            }
            "plain" => {
                let path = self.path("plain");
                Some(Box::new(move || drop(black_box(File::open(&path).unwrap()))))
            }
            _ => None,
        }
    }
}

impl Default for Files {
    fn default() -> Self {
        Self::new()
    }
}

/// The suite that a name says.
fn spec(name: &str) -> FileSpec {
    let suite = if name == "suite-2" { Suite::Aes256GcmChunks } else { Suite::Aes256Ctr };
    FileSpec::new(FileKind::Table).suite(suite)
}

/// Long enough for rates to be those of the page cache, short enough for many pairs.
const SEQ_WRITE_LEN: usize = 16 << 20;

fn naive(buf: &mut [u8], offset: u64) {
    let mut cipher = ctr::Ctr128BE::<aes::Aes256>::new(&[7; 32].into(), &[1; 16].into());
    cipher.seek(offset);
    cipher.apply_keystream(buf);
}

fn random_offsets(len: usize) -> impl FnMut() -> u64 {
    // Marsaglia's xorshift64, so that both sides read the same places.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % (FILE_LEN - len) as u64 / 4096 * 4096
    }
}

fn sequential_offsets() -> impl FnMut() -> u64 {
    let mut next = 0;
    move || {
        let offset = next;
        next = (next + PIECE_LEN as u64) % FILE_LEN as u64;
        offset
    }
}

/// Every operation against plain files and the naive code, and two threads against one.
pub fn rows(effort: Effort, mut progress: impl FnMut(&str)) -> Vec<Row> {
    let files = Files::new();
    let mut rows = Vec::new();
    for operation in OPERATIONS {
        let peers = PEERS.map(|peer| ("atrest", peer, format!("file/{operation}/{peer}")));
        let ways = WAYS.map(|way| (way, "plain", format!("file/{operation}/plain/{way}")));
        for (way, peer, name) in peers.into_iter().chain(ways) {
            let Some(mut theirs) = files.operation(operation, peer) else { continue };
            let Some(mut ours) = files.operation(operation, way) else { continue };
            progress(&name);
            let pair = interleaved(effort, &mut *ours, &mut *theirs);
            let bytes = Files::bytes(operation) as f64;
            rows.push(if bytes > 0.0 {
                let (atrest, peer) = (bytes / pair.a / 1e9, bytes / pair.b / 1e9);
                Row { name, unit: "GB/s", atrest, peer, ratio: pair.b_over_a }
            } else {
                // Times: the ratio stays "how much faster", the difference is what counts.
                Row {
                    name,
                    unit: "us",
                    atrest: pair.a * 1e6,
                    peer: pair.b * 1e6,
                    ratio: pair.b_over_a,
                }
            });
        }
    }
    progress("file/pread_4k/one-thread");
    rows.push(threads(&files, effort));
    rows
}

/// Reads by two threads on one handle, against one thread.
fn threads(files: &Files, effort: Effort) -> Row {
    const READS: u64 = 20_000;
    let reader = files.fs.open(files.path("atrest")).unwrap();
    let read_many = |seed: u64| {
        let mut buf = [0; 4096];
        let mut state = seed;
        for _ in 0..READS {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let offset = state % (FILE_LEN as u64 / 4096 - 1) * 4096;
            reader.read_exact_at(black_box(&mut buf), offset).unwrap();
        }
    };
    let mut two = || {
        std::thread::scope(|scope| {
            scope.spawn(|| read_many(1));
            scope.spawn(|| read_many(2));
        });
    };
    let mut one = || {
        std::thread::scope(|scope| {
            scope.spawn(|| read_many(1));
        });
    };
    let effort = Effort { pairs: effort.pairs.min(15), ..effort };
    let pair = interleaved(effort, &mut two, &mut one);
    let rate = |seconds: f64, threads: f64| threads * READS as f64 / seconds / 1e6;
    Row {
        name: "file/pread_4k/one-thread".into(),
        unit: "M reads/s",
        atrest: rate(pair.a, 2.0),
        peer: rate(pair.b, 1.0),
        ratio: 2.0 * pair.b_over_a,
    }
}
