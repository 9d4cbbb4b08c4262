//! What the fuzz targets call, under fixed keys; the seeds in `fuzz/seeds` are replayed
//! by a unit test.
//!
//! Each function panics when an invariant is broken and returns normally otherwise.
//! `unwrap`s of things that cannot fail are such invariants.

// `danger-internals` exports these functions; without it only the tests use them.
#![cfg_attr(not(feature = "danger-internals"), allow(unreachable_pub, dead_code))]

use crate::cipher::ctr::{CtrKey, Width};
use crate::cipher::{ByteCount, Decryptor, Encryptor, KeySlot};
use crate::header::{FileKind, HEADER_LEN, Header, NewHeader, PREFIX_LEN};
use crate::ids::{DataKeyId, FileId, StoreId};
use crate::process::Process;
use crate::secret::DataKey;
use crate::suite::Suite;
use crate::suite::layout::Layout;

#[cfg(test)]
mod tests;

/// A header parses or fails, and only the key it names proves it.
///
/// # Panics
/// When a header that is not ours parses, or another key proves one.
pub fn header(data: &[u8]) {
    if let Ok(header) = Header::parse(data) {
        assert!(data.len() >= HEADER_LEN && data[..8] == *b"\x89ATRF\r\n\x1a");
        assert_eq!(header.chunk_len, header.layout.chunk_len());
        drop(header.unseal(&data_key(0)));
        assert!(header.unseal(&data_key(1)).is_err());
    }
}

/// Slots, which are read before any key is known.
pub fn keyring_slots(data: &[u8]) {
    drop(crate::keyring::fuzz::slots(data));
}

/// A keyring image: as it is, and cut at its first two bytes into slots and body under a
/// right MAC.
pub fn keyring_image(data: &[u8]) {
    drop(crate::keyring::fuzz::open(data));
    let Some((cut, rest)) = data.split_first_chunk() else { return };
    let Some((slots, body)) = rest.split_at_checked(u16::from_le_bytes(*cut).into()) else {
        return;
    };
    if let Ok(image) = crate::keyring::fuzz::seal(slots, body) {
        drop(crate::keyring::fuzz::open(&image));
    }
}

/// A real keyring with changed numbers, opened and used.
pub fn keyring_changed(data: &[u8]) {
    drop(crate::keyring::fuzz::changed(data));
}

/// A manifest of a backup: as it is, and with the magic and version before it.
pub fn manifest(data: &[u8]) {
    drop(crate::backup::fuzz::manifest(data));
    drop(crate::backup::fuzz::manifest(&[&b"ATRBACK\x02"[..], data].concat()));
}

/// An archive of the audit trail: as it is, and with the magic and store before it.
pub fn audit(data: &[u8]) {
    drop(crate::keyring::fuzz::audit(data));
    let store_id = crate::keyring::fuzz::fixed().store_id;
    let archive = [&b"\x89ATRA\r\n\x1a"[..], store_id.as_bytes(), data].concat();
    drop(crate::keyring::fuzz::audit(&archive));
}

/// A whole file: as it is, and with its checksum and commitment made right.
pub fn file(data: &[u8]) {
    read_file(data);
    if let Some(prefix) = data.first_chunk::<PREFIX_LEN>() {
        let mut sealed = data.to_vec();
        sealed.resize(data.len().max(HEADER_LEN), 0);
        crate::header::reseal(&mut sealed, prefix, &data_key(0));
        read_file(&sealed);
    }
}

fn read_file(data: &[u8]) {
    let Ok(header) = Header::parse(data) else { return };
    let Ok(derived) = header.unseal(&data_key(0)) else { return };
    let decryptor = Decryptor::new(&header, KeySlot::new(&header.prefix, &derived));
    let mut body = data[HEADER_LEN..].to_vec();
    if decryptor.decrypt_in_place(0, &mut body).is_ok() {
        assert!(header.suite.keeps_lengths());
        assert!(body.is_empty() || decryptor.decrypt_in_place(u64::MAX, &mut body).is_err());
    }
    let Ok(reader) = crate::fs::fuzz::reader(data, decryptor) else { return };
    let len = reader.len().expect("an open file has a length");
    assert!(len <= body.len() as u64);
    let mut whole = vec![0; body.len()];
    let Ok(read) = reader.read_at(&mut whole, 0) else {
        assert_eq!(whole, vec![0; body.len()], "a failed read leaves zeros");
        return;
    };
    assert_eq!(read as u64, len);
    for start in [1, read / 2, read.saturating_sub(1), read] {
        let start = start.min(read);
        let mut part = vec![0; read - start];
        assert_eq!(reader.read_at(&mut part, start as u64).expect("verified before"), part.len());
        assert_eq!(part, whole[start..read]);
    }
}

/// Appends, then range reads, against a plain copy, in the suite that the first byte says.
/// Each command is 5 bytes: kind and length of an append, or of a read with its offset.
///
/// # Panics
/// When a read gives other bytes than were appended.
pub fn ranges(data: &[u8]) {
    let Some((suite, commands)) = data.split_first() else { return };
    let suite = Suite::ALL[usize::from(*suite) % Suite::ALL.len()];
    let (mut encryptor, decryptor) = new_file(suite);
    let (mut plain, mut file) = (Vec::new(), encryptor.header().to_vec());
    let commands = || {
        commands.chunks_exact(5).take(64).map(|command| {
            let len = usize::from(u16::from_le_bytes([command[1], command[2]])) % 5000;
            (command[0] % 2 == 0, len, u16::from_le_bytes([command[3], command[4]]))
        })
    };
    for (_, len, offset) in commands().filter(|(append, ..)| *append) {
        let start = plain.len();
        plain.extend((0..len).map(|i| (i as u8).wrapping_mul(131).wrapping_add(offset as u8)));
        encryptor.append(&plain[start..], &mut file).expect("a short file");
        assert_eq!(encryptor.position(), plain.len() as u64);
    }
    encryptor.finish(&mut file).expect("a short file");
    let reader = crate::fs::fuzz::reader(&file, decryptor).expect("a file of ours");
    assert_eq!(reader.len().expect("an open file"), plain.len() as u64);
    for (_, len, offset) in commands().filter(|(append, ..)| !*append) {
        let start = usize::from(offset).min(plain.len());
        let end = (start + len).min(plain.len());
        let mut read = vec![0; len];
        let count = reader.read_at(&mut read, start as u64).expect("a file of ours");
        assert_eq!(read[..count], plain[start..end]);
    }
}

/// All widths give the bytes of the portable one: 8 bytes of offset, the rest is data.
///
/// # Panics
/// When two differ.
pub fn ctr(data: &[u8]) {
    let Some((offset, data)) = data.split_first_chunk() else { return };
    let offset = u64::from_le_bytes(*offset) >> 20;
    let outputs: Vec<_> = Width::available()
        .filter_map(|width| CtrKey::with_width(&[9; 32], [7; 8], width))
        .map(|key| {
            let (mut copied, mut in_place) = (vec![0; data.len()], data.to_vec());
            key.apply(offset, data, &mut copied);
            key.apply_in_place(offset, &mut in_place);
            assert_eq!(copied, in_place);
            copied
        })
        .collect();
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]));
}

/// The data key of the known answers, or another one.
fn data_key(change: u8) -> DataKey {
    let mut key = DataKey::zeroed();
    *key.bytes_mut() = std::array::from_fn(|i| i as u8 ^ change);
    key
}

fn new_file(suite: Suite) -> (Encryptor, Decryptor) {
    let layout = Layout::choose(suite, 4096).expect("a chunk length");
    let new = NewHeader {
        layout,
        kind: FileKind::Table,
        created_ns: 1_700_000_000_000_000_000,
        store_id: StoreId::from_bytes(std::array::from_fn(|i| 0xa0 + i as u8)),
        data_key_id: DataKeyId::from_bytes(std::array::from_fn(|i| 0xb0 + i as u8)),
        file_id: FileId::from(7),
    };
    let (bytes, derived) =
        new.seal(&data_key(0), std::array::from_fn(|i| 0xc0 + i as u8)).expect("no fork");
    let header = Header::parse(&bytes[..]).expect("a header of ours");
    let slot = KeySlot::new(&header.prefix, &derived);
    let decryptor = Decryptor::new(&header, KeySlot::new(&header.prefix, &derived));
    (Encryptor::new(bytes, layout, slot, ByteCount::new(0), Process::current()), decryptor)
}
