#![allow(clippy::unwrap_used)]

use atrest::keyring::{MemoryStorage, Options};
use atrest::kms::{self, generate_key_file};
use atrest::{FileKind, Header, Keyring};

use super::*;

fn keyring() -> Keyring {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    generate_key_file(&key).unwrap();
    let kms = kms::from_uri(&format!("file://{}", key.display())).unwrap();
    Keyring::create(MemoryStorage::new(), kms, Options::default()).unwrap()
}

fn kept(buffers: &Buffers) -> usize {
    buffers.0.lock().unwrap().len()
}

#[test]
fn every_byte_comes_out_once_however_it_goes_in_and_is_cut() {
    let (keyring, buffers) = (keyring(), Buffers::default());
    let data: Vec<u8> = (0..900_000_u32).map(|i| (i * 7 + (i >> 9)) as u8).collect();
    for chunk_len in [1000, 70_000, BUFFER_LEN, 900_000] {
        for cut in [4096, 5000, BUFFER_LEN, 300_000, 2_000_000] {
            let mut encryptor = keyring.encryptor(FileKind::Table).unwrap();
            let mut ciphertext = Ciphertext::new(buffers.clone(), encryptor.header(), data.len());
            let mut out = Vec::new();
            for half in data.chunks(data.len() / 2) {
                let payload = half.chunks(chunk_len).map(Bytes::copy_from_slice).collect();
                ciphertext.append(&mut encryptor, &payload).unwrap();
                while ciphertext.len() >= cut {
                    let part = ciphertext.take(cut);
                    assert_eq!(part.content_length(), cut);
                    out.extend(part.iter().flatten());
                }
            }
            out.extend(ciphertext.take(usize::MAX).iter().flatten());
            assert_eq!((ciphertext.len(), out.len()), (0, HEADER_LEN + data.len()));
            let header = Header::parse(&out).unwrap();
            let decryptor = keyring.decryptor(&header, &atrest::Expect::default()).unwrap();
            decryptor.decrypt_in_place(0, &mut out[HEADER_LEN..]).unwrap();
            assert!(out[HEADER_LEN..] == data, "chunks of {chunk_len}, cuts of {cut}");
        }
    }
}

#[test]
fn buffers_come_back_when_the_store_lets_go_and_no_more_than_are_wanted() {
    let (keyring, buffers) = (keyring(), Buffers::default());
    let put = |len: usize| {
        let mut encryptor = keyring.encryptor(FileKind::Table).unwrap();
        let mut ciphertext = Ciphertext::new(buffers.clone(), encryptor.header(), len);
        ciphertext.append(&mut encryptor, &vec![7; len].into()).unwrap();
        ciphertext.take(usize::MAX)
    };
    let payload = put(BUFFER_LEN);
    assert_eq!((payload.iter().count(), kept(&buffers)), (2, 0));
    drop(payload);
    assert_eq!(kept(&buffers), 1, "what is left of the second has memory of its own");
    let again = put(BUFFER_LEN - HEADER_LEN);
    assert_eq!(kept(&buffers), 0);
    drop(again);
    // A short object takes no buffer.
    let short = put(100);
    assert_eq!((short.iter().count(), short.content_length(), kept(&buffers)), (1, 4196, 1));
    drop(put((KEPT_MAX + 9) * BUFFER_LEN));
    assert_eq!(kept(&buffers), KEPT_MAX);
    assert!(buffers.0.lock().unwrap().iter().all(|buffer| buffer.len() == BUFFER_LEN));
}
