use std::sync::Arc;

use super::super::object_store::ObjectStore;
use super::super::object_store::local::LocalFileSystem;
use super::super::store::EncryptedStore;
use super::*;
use atrest::keyring::{MemoryStorage, Options};
use atrest::kms::{self, generate_key_file};
use atrest::{Integrity, Keyring};
use futures_executor::block_on;

/// 8 KiB is what a local file's own stream gives at once.
const PIECES: usize = 8 << 10;

#[tokio::test]
async fn a_local_file_is_read_at_once_where_all_of_it_is_wanted() {
    let dir = tempfile::tempdir().unwrap();
    let raw = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let path = Path::from("file");
    let len = COLLECTED_LEN_MAX + 1;
    raw.put_opts(&path, vec![7; len as usize].into(), Default::default()).await.unwrap();
    for (max, expected) in
        [(COLLECTED_LEN_MAX, (len as usize).div_ceil(PIECES)), (COLLECTED_LEN_MAX + 1, 1)]
    {
        let answer = raw.get_opts(&path, Default::default()).await.unwrap();
        let pieces: Vec<Bytes> = chunks(answer, max).await.unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.len(), expected);
        assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>() as u64, len);
    }
}

/// How often this thread has read from a file; `None` where the system does not count.
fn reads() -> Option<u64> {
    let counts = std::fs::read_to_string("/proc/thread-self/io").ok()?;
    counts.lines().find_map(|line| line.strip_prefix("syscr: "))?.parse().ok()
}

#[test]
fn long_ranges_of_a_local_file_are_what_was_written_and_take_few_reads() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    generate_key_file(&key).unwrap();
    let kms = kms::from_uri(&format!("file://{}", key.display())).unwrap();
    let keyring = Keyring::create(MemoryStorage::new(), kms, Options::default()).unwrap();
    let raw = Arc::new(LocalFileSystem::new_with_prefix(dir.path()).unwrap());
    let data: Vec<u8> = (0..9_000_000_u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    for integrity in Integrity::ALL {
        let store = EncryptedStore::new(raw.clone(), keyring.clone()).with_integrity(integrity);
        let path = Path::from(format!("{integrity:?}"));
        // On this thread: a runtime would read on others.
        block_on(store.put_opts(&path, data.clone().into(), Default::default())).unwrap();
        let ranges = [5..4_500_000, 4_500_000..4_500_001, 5_000_000..8_999_999];
        let before = reads();
        let found = block_on(store.get_ranges(&path, &ranges)).unwrap();
        if let (Some(before), Some(after)) = (before, reads()) {
            assert!(after - before < 20, "{} reads", after - before);
        }
        for (range, found) in ranges.iter().zip(found) {
            assert!(found == data[range.start as usize..range.end as usize], "{range:?}");
        }
    }
}
