//! Files through `EncryptedFs`.

use atrest::{ErrorKind, FileKind};

use crate::support::TestStore;

#[test]
fn a_file_reads_back_after_rotations_and_reopening() {
    let store = TestStore::new();
    let data: Vec<u8> = (0..1_000_003_u32).map(|i| (i * 131 + 7) as u8).collect();
    let path = store.data().join("000001.sst");
    let first_key;
    {
        let fs = store.fs();
        let mut writer = fs.create_new(&path, FileKind::Table).unwrap();
        for piece in data.chunks(70_001) {
            writer.append(piece).unwrap();
        }
        first_key = writer.finish().unwrap().data_key_id;
        let keyring = fs.keyring();
        assert_ne!(keyring.rotate_data_key().unwrap(), first_key);
        keyring.rotate_store_key().unwrap();
    }
    let fs = store.fs();
    assert_ne!(fs.keyring().active_data_key_id().unwrap(), first_key);
    let reader = fs.open(&path).unwrap();
    assert_eq!(reader.len().unwrap(), data.len() as u64);
    let mut back = vec![0; data.len()];
    reader.read_exact_at(&mut back, 0).unwrap();
    assert_eq!(back, data);
    let mut piece = [0; 100];
    reader.read_exact_at(&mut piece, 4097).unwrap();
    assert_eq!(piece[..], data[4097..4197]);
    let on_disk = std::fs::read(&path).unwrap();
    assert_eq!(on_disk.len(), data.len() + 4096);
    assert!(!on_disk.windows(32).any(|window| window == &data[..32]));
}

#[test]
fn revoking_stops_open_files_and_restoring_resumes_them() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = store.data().join("a.log");
    let mut writer = fs.create_new(&path, FileKind::Log).unwrap();
    writer.append(b"before ").unwrap();
    writer.flush().unwrap();
    let reader = fs.open(&path).unwrap();
    fs.keyring().revoke();
    let mut buf = [0; 7];
    assert_eq!(reader.read_exact_at(&mut buf, 0).unwrap_err().kind(), ErrorKind::CmekRevoked);
    assert_eq!(buf, [0; 7]);
    assert_eq!(writer.append(b"x").unwrap_err().kind(), ErrorKind::CmekRevoked);
    assert_eq!(fs.open(&path).unwrap_err().kind(), ErrorKind::CmekRevoked);
    fs.keyring().restore().unwrap();
    writer.append(b"after").unwrap();
    writer.finish().unwrap();
    let mut buf = [0; 12];
    reader.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"before after");
}
