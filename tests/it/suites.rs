//! Suites 2 and 3 through `EncryptedFs`: what they give back, and what they refuse.

mod chunks;
mod log;
mod random;
mod room;
mod settings;
mod unwritten;

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use atrest::{EncryptedFs, Error, ErrorKind, FileKind, FileSpec, Reader, Suite};

use crate::support::{TestStore, refused};

const HEADER: u64 = 4096;

fn chunked(chunk_len: u32) -> FileSpec {
    FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmChunks).chunk_len(chunk_len)
}

fn framed() -> FileSpec {
    FileSpec::new(FileKind::Log).suite(Suite::Aes256GcmLog)
}

fn data(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 131 + i / 251 + 7) as u8).collect()
}

/// A file written whole, open for damage.
struct Damaged {
    _store: TestStore,
    fs: EncryptedFs,
    path: PathBuf,
    good: Vec<u8>,
    file: File,
}

impl Damaged {
    fn new(spec: FileSpec, appends: &[&[u8]]) -> Self {
        let store = TestStore::new();
        let fs = store.fs();
        let path = store.data().join("file");
        write(&fs, &path, spec, appends);
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        Self { good: std::fs::read(&path).unwrap(), _store: store, fs, path, file }
    }

    fn body(&self) -> &[u8] {
        &self.good[HEADER as usize..]
    }

    /// Puts another body behind the same header.
    fn set_body(&self, body: &[u8]) {
        self.file.set_len(HEADER + body.len() as u64).unwrap();
        self.file.write_all_at(body, HEADER).unwrap();
    }

    fn open(&self) -> Result<Reader, Error> {
        self.fs.open(&self.path)
    }

    /// With one bit of the body flipped.
    fn with_flip<T>(&self, place: usize, bit: u32, look: impl FnOnce() -> T) -> T {
        let at = HEADER + place as u64;
        let byte = self.body()[place];
        self.file.write_all_at(&[byte ^ 1 << bit], at).unwrap();
        let seen = look();
        self.file.write_all_at(&[byte], at).unwrap();
        seen
    }
}

fn write(fs: &EncryptedFs, path: &Path, spec: FileSpec, appends: &[&[u8]]) {
    let mut writer = fs.create_new(path, spec).unwrap();
    let mut len = 0;
    for append in appends {
        writer.append(append).unwrap();
        len += append.len() as u64;
        assert_eq!(writer.position(), len);
    }
    let sealed = writer.finish().unwrap();
    assert_eq!((sealed.len, sealed.physical_len), (len, std::fs::metadata(path).unwrap().len()));
}

fn read_all(reader: &Reader) -> Result<Vec<u8>, Error> {
    let mut all = vec![0; reader.len()? as usize];
    reader.read_exact_at(&mut all, 0)?;
    Ok(all)
}

/// FORMAT.md section 10: what decrypts suite 1 can forge it, and what decrypts the others
/// cannot.
#[test]
fn a_decryptor_forges_suite_1_alone() {
    let forged = data(100_000);
    let spec = FileSpec::new(FileKind::Table).suite(Suite::Aes256Ctr);
    let file = Damaged::new(spec, &[&vec![1; forged.len()]]);
    let header = atrest::Header::parse(&file.good[..HEADER as usize]).unwrap();
    let decryptor = file.fs.keyring().decryptor(&header, &Default::default()).unwrap();
    let mut body = vec![0; forged.len()];
    decryptor.decrypt(0, &forged, &mut body).unwrap();
    file.set_body(&body);
    let mut read = vec![0; forged.len()];
    file.open().unwrap().read_exact_at(&mut read, 0).unwrap();
    assert!(read == forged, "the holder of a key of suite 1 writes what he likes");

    for spec in [chunked(4096), framed()] {
        let file = Damaged::new(spec, &[&vec![1; 3000]]);
        let header = atrest::Header::parse(&file.good[..HEADER as usize]).unwrap();
        let decryptor = file.fs.keyring().decryptor(&header, &Default::default()).unwrap();
        let mut body = forged[..3000].to_vec();
        let refused = decryptor.decrypt_in_place(0, &mut body).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::UnsupportedFeature);
        assert!(body == forged[..3000], "nothing of the keystream comes out");
        let mut plaintext = vec![0; 3000 - 16];
        let (chunk, tag) = body.split_at(plaintext.len());
        assert!(decryptor.decrypt_chunks(0, chunk, tag, 0, &mut plaintext).is_err());
        assert!(plaintext.iter().all(|byte| *byte == 0));
    }
}
