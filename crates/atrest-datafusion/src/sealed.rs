//! The key metadata of Parquet: a key of one file, sealed under a data key of the store.
//!
//! ```text
//! header[0..176] || LE32(n) || frame n      n = 0, 1, ...; 232 bytes
//! ```
//!
//! Header and frame are those of a log of atrest (`docs/FORMAT.md` sections 2 and 5), the header
//! without the zeros that it ends with; the frame holds a random key of 32 bytes. The keys of one
//! file that are under the same data key have the same header.

use atrest::{
    DataKeyId, Encryptor, Error, ErrorKind, Expect, FileKind, FileSpec, HEADER_LEN, Header,
    Keyring, KeyspaceId, Result, Suite,
};
use zeroize::Zeroizing;

/// Bytes of a header in front of its zeros.
const PREFIX_LEN: usize = 176;
const KEY_LEN: usize = 32;
/// A frame has a length of 4 bytes and a tag of 16.
const METADATA_LEN: usize = PREFIX_LEN + 4 + 4 + KEY_LEN + 16;

/// A key, and what names it in the file.
pub(crate) struct Sealed {
    /// Parquet takes it as it is, and does not erase it.
    pub(crate) key: Vec<u8>,
    pub(crate) metadata: Vec<u8>,
}

/// Makes the keys of one file that are under one data key.
pub(crate) struct Sealer {
    encryptor: Encryptor,
    pub(crate) data_key: DataKeyId,
    next: u32,
}

impl Sealer {
    pub(crate) fn new(keyring: &Keyring, keyspace: KeyspaceId) -> Result<Self> {
        let spec = FileSpec::new(FileKind::Table).suite(Suite::Aes256GcmLog).keyspace(keyspace);
        let encryptor = keyring.encryptor(spec)?;
        let data_key = Header::parse(encryptor.header())?.data_key_id;
        Ok(Self { encryptor, data_key, next: 0 })
    }

    pub(crate) fn seal(&mut self) -> Result<Sealed> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        getrandom::fill(&mut *key)
            .map_err(|e| Error::io("no randomness", std::io::Error::other(e.to_string())))?;
        let mut metadata = self.encryptor.header()[..PREFIX_LEN].to_vec();
        metadata.extend(self.next.to_le_bytes());
        self.encryptor.append(&*key, &mut metadata)?;
        self.next += 1;
        Ok(Sealed { key: key.to_vec(), metadata })
    }
}

/// The header that key metadata begin with: what they say, proven only by [`open`].
pub(crate) fn header(metadata: &[u8]) -> Result<Header> {
    if metadata.len() != METADATA_LEN {
        let what = format!(
            "expected {METADATA_LEN} bytes that name a key, found {}: not of this library",
            metadata.len()
        );
        return Err(Error::new(ErrorKind::NotEncrypted, what));
    }
    let mut header = [0; HEADER_LEN];
    header[..PREFIX_LEN].copy_from_slice(&metadata[..PREFIX_LEN]);
    Header::parse(&header)
}

/// The key that is named. Reads the keyring anew if the data key is not in memory.
pub(crate) fn open(keyring: &Keyring, metadata: &[u8]) -> Result<Vec<u8>> {
    let expect = Expect { kind: Some(FileKind::Table), ..Expect::default() };
    let decryptor = keyring.decryptor(&header(metadata)?, &expect)?;
    let (mut number, frame) = ([0; 4], &metadata[PREFIX_LEN + 4..]);
    number.copy_from_slice(&metadata[PREFIX_LEN..PREFIX_LEN + 4]);
    let mut key = Vec::with_capacity(KEY_LEN);
    match decryptor.decrypt_frame(u32::from_le_bytes(number).into(), frame, &mut key)? {
        Some(len) if len == frame.len() && key.len() == KEY_LEN => Ok(key),
        _ => {
            let what = "expected one sealed key, found something else";
            Err(Error::new(ErrorKind::Authentication, what))
        }
    }
}
