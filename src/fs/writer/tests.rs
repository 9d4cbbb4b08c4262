#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::FileKind;
use crate::keyring::{Keyring, MemoryStorage, Options};
use crate::kms::{KeyFile, generate_key_file};
use crate::process::tests::in_forked_child;

#[derive(Debug, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl WriteFile for Sink {
    fn append(&mut self, buf: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Each write by itself.
#[derive(Debug)]
struct Writes(Arc<Mutex<Vec<usize>>>);

impl WriteFile for Writes {
    fn append(&mut self, buf: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().push(buf.len());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Files whose keyring is in memory, and has no thread of its own: one might hold a lock at the
/// moment of a fork.
fn files() -> crate::EncryptedFs {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    generate_key_file(&key).unwrap();
    let kms = Arc::new(KeyFile::new(&key).unwrap());
    let options = Options { background: false, ..Options::default() };
    let keyring = Keyring::create(MemoryStorage::new(), kms, options).unwrap();
    crate::Store::over(keyring).unwrap().files().clone()
}

#[test]
fn a_group_of_appends_is_never_in_two_writes() {
    let fs = files();
    let spec = crate::FileSpec::new(FileKind::Log).suite(crate::Suite::Aes256GcmLog);
    let writes = Arc::new(Mutex::new(Vec::new()));
    let encryptor = fs.keyring().encryptor(spec).unwrap();
    let file = Box::new(Writes(writes.clone()));
    let mut writer = Writer::new("log".into(), file, encryptor, 8192, fs.places.clone(), None);
    let (short, long) = ([7; 980], vec![8; 9980]);
    // 3,000 bytes a group: with the header, one fits into the buffer.
    for _ in 0..3 {
        writer.append_many(&[&short, &short, &short]).unwrap();
    }
    writer.append_many(&[&short, &long, &[], &short]).unwrap();
    writer.append_many(&[]).unwrap();
    writer.append_many(&[&[], &[]]).unwrap();
    assert_eq!(writer.position(), 12 * 980 - 980 + 9980);
    // None of a group that is refused.
    let too_long = vec![0; crate::FRAME_LEN_MAX + 1];
    let error = writer.append_many(&[&short, &too_long]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(writer.position(), 11 * 980 + 9980);
    writer.flush().unwrap();
    assert_eq!(*writes.lock().unwrap(), [4096 + 3000, 6000, 12_000]);
}

#[test]
fn a_forked_child_writes_nothing() {
    let fs = files();
    let written = Arc::new(Mutex::new(Vec::new()));
    let encryptor = fs.keyring().encryptor(FileKind::Log).unwrap();
    let file = Box::new(Sink(written.clone()));
    let mut writer = Writer::new("file".into(), file, encryptor, 8192, fs.places.clone(), None);
    writer.append(b"the parent's").unwrap();
    let mut encryptor = fs.keyring().encryptor(FileKind::Log).unwrap();
    let mut buf = *b"plain";
    let poisoned = |result: Result<()>| result.is_err_and(|e| e.kind() == ErrorKind::Poisoned);
    assert!(in_forked_child(|| {
        let refused = poisoned(writer.append(b"the child's"))
            && poisoned(writer.append(&[1; 9000]))
            && poisoned(writer.flush())
            && poisoned(writer.sync())
            && poisoned(writer.finish().map(drop));
        let untouched = poisoned(encryptor.encrypt_in_place(&mut buf)) && buf == *b"plain";
        // With its parent's keyring, whose keys the parent retires, not its own either.
        let own = poisoned(fs.keyring().encryptor(FileKind::Log).map(drop));
        refused && untouched && own && written.lock().unwrap().is_empty()
    }));
}
