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

#[test]
fn a_forked_child_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    generate_key_file(&key).unwrap();
    let kms = Arc::new(KeyFile::new(&key).unwrap());
    // A background thread might hold a lock at the moment of the fork.
    let options = Options { background: false, ..Options::default() };
    let keyring = Keyring::create(MemoryStorage::new(), kms, options).unwrap();
    let fs = crate::Store::over(keyring).unwrap().files().clone();
    let written = Arc::new(Mutex::new(Vec::new()));
    let encryptor = fs.keyring().encryptor(FileKind::Log).unwrap();
    let file = Box::new(Sink(written.clone()));
    let mut writer = Writer::new("file".into(), file, encryptor, 8192, fs.places.clone());
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
