#![allow(clippy::unwrap_used)]

use std::io;
use std::sync::{Arc, Mutex};

use super::*;
use crate::keyring::{Keyring, MemoryStorage, Options};
use crate::kms::{KeyFile, generate_key_file};
use crate::{EncryptedFs, FileKind};

#[derive(Debug, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl WriteFile for Sink {
    fn append(&mut self, buf: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().extend_from_slice(buf);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_forked_child_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    generate_key_file(&key).unwrap();
    let kms = Arc::new(KeyFile::new(&key).unwrap());
    let keyring = Keyring::create(MemoryStorage::new(), kms, Options::default()).unwrap();
    let fs = EncryptedFs::new(keyring);
    let written = Arc::new(Mutex::new(Vec::new()));
    let encryptor = fs.keyring().encryptor(FileKind::Log).unwrap();
    let file = Box::new(Sink(written.clone()));
    let mut writer = Writer::new("file".into(), file, encryptor, 8192, fs.places.clone());
    writer.append(b"the parent's").unwrap();
    writer.encryptor.pretend_forked();
    // It may fill its own copy of the buffer, which then goes nowhere.
    writer.append(b"the child's").unwrap();
    for refused in [writer.append(&[1; 9000]), writer.flush(), writer.sync()] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Poisoned);
    }
    assert_eq!(writer.finish().unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(written.lock().unwrap().is_empty());
    let mut encryptor = fs.keyring().encryptor(FileKind::Log).unwrap();
    encryptor.pretend_forked();
    let mut buf = *b"plain";
    let refused = encryptor.encrypt_in_place(&mut buf).unwrap_err();
    assert_eq!((refused.kind(), &buf), (ErrorKind::Poisoned, b"plain"));
}
