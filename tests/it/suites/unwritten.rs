//! What a power cut leaves behind the last sync: allocated space that nobody wrote.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use atrest::{EncryptedFs, FileKind, FileSpec, HEADER_LEN, PlaintextPolicy, Settings, Suite};

use crate::support::TestStore;

/// Bytes of a log's records, each of one byte of length and so many more.
fn records(count: u8) -> Vec<u8> {
    (1..=count).flat_map(|len| std::iter::repeat_n(len, usize::from(len) + 1)).collect()
}

/// What an engine without checksums takes for records of a log that is `len` bytes long.
fn recover(fs: &EncryptedFs, path: &Path, len: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(len).unwrap()];
    fs.open(path).unwrap().read_exact_at(&mut bytes, 0).unwrap();
    let (mut rest, mut found) = (&bytes[..], Vec::new());
    while let Some((len, more)) = rest.split_first() {
        if *len == 0 || more.len() < usize::from(*len) {
            break;
        }
        found.extend_from_slice(&rest[..=usize::from(*len)]);
        rest = &more[usize::from(*len)..];
    }
    found
}

fn written(fs: &EncryptedFs, path: &Path, spec: impl Into<FileSpec>, bytes: &[u8]) -> PathBuf {
    let mut writer = fs.create_new(path, spec).unwrap();
    writer.append(bytes).unwrap();
    writer.finish().unwrap();
    path.to_owned()
}

/// Leaves `kept` bytes of the body, and behind them so many that nobody wrote.
fn cut(path: &Path, kept: u64, unwritten: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(HEADER_LEN as u64 + kept).unwrap();
    file.set_len(HEADER_LEN as u64 + kept + unwritten).unwrap();
}

#[test]
fn a_tail_that_nobody_wrote_is_told_from_data() {
    let store = TestStore::new();
    let fs = store.fs();
    let whole = records(120);
    let len = whole.len() as u64;
    let path = written(&fs, &store.data().join("log"), FileKind::Log, &whole);
    let on_disk = std::fs::read(&path).unwrap();
    assert_eq!(fs.open(&path).unwrap().written_len().unwrap(), len);
    for kept in (0..100).chain((4000..4130).step_by(3)).chain([len - 1, len]) {
        for unwritten in [0, 1, 15, 16, 31, 32, 512, 4096, 300_000] {
            std::fs::write(&path, &on_disk).unwrap();
            cut(&path, kept, unwritten);
            // What was written may end with zeros by chance.
            let body = &on_disk[HEADER_LEN..][..kept as usize];
            let last = body.iter().rposition(|byte| *byte != 0).map_or(0, |at| at as u64 + 1);
            let first_block = last.next_multiple_of(16);
            let expected =
                if first_block + 16 <= kept + unwritten { first_block } else { kept + unwritten };
            let reader = fs.open(&path).unwrap();
            assert_eq!(reader.written_len().unwrap(), expected, "{kept} and {unwritten}");
            assert_eq!(reader.len().unwrap(), kept + unwritten);
        }
    }
}

#[test]
fn a_recovery_that_reads_no_further_takes_no_noise_for_records() {
    let store = TestStore::new();
    let fs = store.fs();
    let whole = records(120);
    let (mut misled, mut rounds) = (0, 0);
    // At blocks' borders, so that nothing unwritten stands in front of what is returned.
    for kept in (64..whole.len() as u64).step_by(16 * 7) {
        let path = store.data().join(format!("log{kept}"));
        written(&fs, &path, FileKind::Log, &whole);
        cut(&path, kept, 8192);
        let len = fs.open(&path).unwrap().written_len().unwrap();
        assert_eq!(len, kept);
        let found = recover(&fs, &path, len);
        assert!(whole.starts_with(&found) && kept - found.len() as u64 <= 121);
        rounds += 1;
        misled += u32::from(!whole.starts_with(&recover(&fs, &path, kept + 8192)));
    }
    // The whole length leads it into the noise.
    assert!(misled > rounds / 2, "{misled} of {rounds}");
}

#[test]
fn a_hole_in_the_middle_ends_what_is_known_to_be_written() {
    let store = TestStore::new();
    let fs = store.fs();
    let path = written(&fs, &store.data().join("log"), FileKind::Log, &[7; 1 << 20]);
    let file: File = OpenOptions::new().write(true).open(&path).unwrap();
    // Pages are of the file, whose header is one.
    for page in [200_u64, 128, 64, 63, 1] {
        file.write_all_at(&[0; 4096], page * 4096).unwrap();
        let reader = fs.open(&path).unwrap();
        assert_eq!(reader.written_len().unwrap(), page * 4096 - HEADER_LEN as u64);
    }
}

#[test]
fn other_files_are_written_up_to_their_ends() {
    let store = TestStore::new();
    let fs = store.fs();
    let mut settings = Settings::default();
    settings.plaintext = PlaintextPolicy::Allow;
    fs.keyring().keys().configure(&settings).unwrap();
    let bytes = [0; 20_000];
    let plain = store.data().join("plain");
    std::fs::write(&plain, bytes).unwrap();
    assert_eq!(fs.open(&plain).unwrap().written_len().unwrap(), 20_000);
    for suite in [Suite::Aes256GcmChunks, Suite::Aes256GcmLog] {
        let path = store.data().join(format!("{suite:?}"));
        let spec = FileSpec::new(FileKind::Log).suite(suite);
        written(&fs, &path, spec, &bytes);
        assert_eq!(fs.open(&path).unwrap().written_len().unwrap(), 20_000);
    }
}
