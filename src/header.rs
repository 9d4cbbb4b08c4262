//! The 4096 bytes in front of every encrypted file. `docs/FORMAT.md` section 2.
//!
//! ```text
//! off  len  field                                off   len  field
//!   0    8  magic 89 41 54 52 46 0D 0A 1A         32    16  store id
//!   8    2  format version = 1                    48    16  data key id
//!  10    2  header length = 4096                  64    16  file id, or zero
//!  12    1  suite 1, 2 or 3                       80    16  zero
//!  13    1  log2 of the chunk (suite 2), or 0     96    32  salt
//!  14    1  file kind 1..=6                      128    32  commitment
//!  15    1  zero                                 160    16  SHA-256(0..160), first half
//!  16    4  incompatible features                176  3920  zero
//!  20    4  compatible features
//!  24    8  created, ns since the Unix epoch     integers are little-endian
//! ```

use std::mem::offset_of;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::derive::{Derived, Purpose, derive};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::{DataKeyId, FileId, StoreId};
use crate::secret::DataKey;
use crate::suite::Suite;
use crate::suite::layout::Layout;

#[cfg(test)]
mod tests;

/// Length of the header in bytes: one page, so that direct I/O and mmap of the body keep
/// their alignment. The body begins at this physical offset.
pub const HEADER_LEN: usize = 4096;
/// The file format version this library writes, and the only one it reads.
pub const FORMAT_VERSION: u16 = 1;

pub(crate) const MAGIC: [u8; 8] = *b"\x89ATRF\r\n\x1a";
/// A keyring's magic: such a file is never a data file.
pub(crate) const KEYRING_MAGIC: [u8; 8] = *b"\x89ATRK\r\n\x1a";
/// Bytes that the commitment covers, salt included.
pub(crate) const PREFIX_LEN: usize = 128;
/// Bytes with a meaning; zeros follow.
const RAW_LEN: usize = 176;
static ZEROS: [u8; HEADER_LEN - RAW_LEN] = [0; HEADER_LEN - RAW_LEN];
/// Bytes that the checksum covers.
const CHECKED_LEN: usize = 160;
/// Incompatible features this version knows: none yet.
const INCOMPATIBLE_KNOWN: u32 = 0;

/// What the engine keeps in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// 1: a sorted table.
    Table,
    /// 2: a write-ahead log.
    Log,
    /// 3: a manifest.
    Manifest,
    /// 4: a blob or value log.
    Blob,
    /// 5: anything else.
    Other,
    /// 6: what no later process needs, such as what a query spills or a cache. Its data key is
    /// in memory alone: it is never in a keyring, and ends with the process, and when access to
    /// the customer's key is withdrawn. What was written before is then unreadable for good
    /// ([`TemporaryEnded`](ErrorKind::TemporaryEnded)). Its integrity is that of
    /// [`Other`](Self::Other). No backup has it; see
    /// [`remove_temporary`](crate::store::Renewal::remove_temporary).
    Temporary,
}

impl FileKind {
    /// All kinds that are kept, by their numbers: those without [`Temporary`](Self::Temporary).
    pub const ALL: [Self; 5] = [Self::Table, Self::Log, Self::Manifest, Self::Blob, Self::Other];

    /// Its name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Log => "log",
            Self::Manifest => "manifest",
            Self::Blob => "blob",
            Self::Other => "other",
            Self::Temporary => "temporary",
        }
    }

    /// Whether such a file is synced and read while it grows.
    pub(crate) const fn grows(self) -> bool {
        match self {
            Self::Log | Self::Manifest => true,
            Self::Table | Self::Blob | Self::Other | Self::Temporary => false,
        }
    }

    /// The number on disk.
    pub const fn number(self) -> u8 {
        match self {
            Self::Table => 1,
            Self::Log => 2,
            Self::Manifest => 3,
            Self::Blob => 4,
            Self::Other => 5,
            Self::Temporary => 6,
        }
    }

    /// One that is kept.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }

    fn of_header(number: u8) -> Option<Self> {
        let mut kinds = Self::ALL.into_iter().chain([Self::Temporary]);
        kinds.find(|kind| kind.number() == number)
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawHeader {
    magic: [u8; 8],
    version: U16,
    header_len: U16,
    suite: u8,
    parameter: u8,
    kind: u8,
    zero_15: u8,
    incompatible: U32,
    compatible: U32,
    created_ns: U64,
    store_id: [u8; 16],
    data_key_id: [u8; 16],
    file_id: [u8; 16],
    zero_80: [u8; 16],
    salt: [u8; 32],
    commitment: [u8; 32],
    checksum: [u8; 16],
}

/// A parsed header: well-formed, not yet proven. Only a key proves it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// How the body is encrypted.
    pub suite: Suite,
    /// Length of a ciphertext chunk in bytes, where the suite has chunks.
    pub chunk_len: Option<u32>,
    /// What the engine keeps in the file.
    pub kind: FileKind,
    /// Compatible feature bits; unknown ones are ignored.
    pub compatible_features: u32,
    /// Creation time, nanoseconds since the Unix epoch.
    pub created_ns: u64,
    /// The store the file belongs to.
    pub store_id: StoreId,
    /// The data key its own key is derived from.
    pub data_key_id: DataKeyId,
    /// The engine's id of the file, zero if it gave none.
    pub file_id: FileId,
    pub(crate) layout: Layout,
    pub(crate) prefix: [u8; PREFIX_LEN],
    /// Names this very file and its key, as [`Sealed::commitment`](crate::fs::Sealed) does.
    pub commitment: [u8; 32],
}

/// What a new header says besides its random salt.
#[derive(Clone, Copy)]
pub(crate) struct NewHeader {
    pub(crate) layout: Layout,
    pub(crate) kind: FileKind,
    pub(crate) created_ns: u64,
    pub(crate) store_id: StoreId,
    pub(crate) data_key_id: DataKeyId,
    pub(crate) file_id: FileId,
}

impl NewHeader {
    /// The header's bytes and the file's key material.
    pub(crate) fn seal(
        &self,
        key: &DataKey,
        salt: [u8; 32],
    ) -> Result<(Box<[u8; HEADER_LEN]>, Derived)> {
        let mut raw = RawHeader {
            magic: MAGIC,
            version: FORMAT_VERSION.into(),
            header_len: (HEADER_LEN as u16).into(),
            suite: self.layout.suite().number(),
            parameter: self.layout.parameter(),
            kind: self.kind.number(),
            zero_15: 0,
            incompatible: 0.into(),
            compatible: 0.into(),
            created_ns: self.created_ns.into(),
            store_id: *self.store_id.as_bytes(),
            data_key_id: *self.data_key_id.as_bytes(),
            file_id: *self.file_id.as_bytes(),
            zero_80: [0; 16],
            salt,
            commitment: [0; 32],
            checksum: [0; 16],
        };
        let derived = derive(key.bytes()?, Purpose::File, &[&raw.as_bytes()[..PREFIX_LEN]]);
        raw.commitment = *derived.commitment();
        raw.checksum = checksum(raw.as_bytes());
        let mut bytes = Box::new([0; HEADER_LEN]);
        bytes[..RAW_LEN].copy_from_slice(raw.as_bytes());
        Ok((bytes, derived))
    }
}

/// Makes commitment and checksum fit a header that somebody changed, for fuzzing.
#[cfg(any(test, feature = "danger-internals"))]
pub(crate) fn reseal(file: &mut [u8], prefix: &[u8; PREFIX_LEN], key: &DataKey) {
    let key = key.bytes().expect("no fork");
    let derived = derive(key, Purpose::File, &[prefix]);
    file[PREFIX_LEN..CHECKED_LEN].copy_from_slice(derived.commitment());
    let checksum = checksum(file);
    file[CHECKED_LEN..RAW_LEN].copy_from_slice(&checksum);
}

fn checksum(raw: &[u8]) -> [u8; 16] {
    let digest = Sha256::digest(&raw[..CHECKED_LEN]);
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}

impl Header {
    /// Parses the first 4096 bytes of a file; more may follow.
    ///
    /// A header that parses is well-formed. It is trustworthy only after
    /// [`Keyring::decryptor`](crate::Keyring::decryptor) accepted it.
    ///
    /// # Errors
    /// In the order of the checks: [`EmptyFile`](ErrorKind::EmptyFile),
    /// [`TruncatedHeader`](ErrorKind::TruncatedHeader) for zeros alone,
    /// [`NotEncrypted`](ErrorKind::NotEncrypted) or
    /// [`ForeignFile`](ErrorKind::ForeignFile),
    /// [`TruncatedHeader`](ErrorKind::TruncatedHeader),
    /// [`UnsupportedVersion`](ErrorKind::UnsupportedVersion),
    /// [`CorruptHeader`](ErrorKind::CorruptHeader),
    /// [`UnsupportedFeature`](ErrorKind::UnsupportedFeature).
    pub fn parse(file: &[u8]) -> Result<Self> {
        let fail = |kind, what: String| Err(Error::new(kind, what));
        if file.is_empty() {
            return fail(ErrorKind::EmptyFile, "the file is empty: it never got a header".into());
        }
        if is_unwritten(file) {
            let what = "the header was never written: expected the magic bytes, found zeros alone";
            return fail(ErrorKind::TruncatedHeader, what.into());
        }
        if !begins_encrypted(file) {
            return match foreign(file) {
                Some(tool) => fail(
                    ErrorKind::ForeignFile,
                    format!("expected an encrypted data file, found {tool}"),
                ),
                None => fail(
                    ErrorKind::NotEncrypted,
                    "the file is not encrypted: it does not begin with the magic bytes".into(),
                ),
            };
        }
        let Some(header) = file.get(..HEADER_LEN) else {
            return fail(
                ErrorKind::TruncatedHeader,
                format!(
                    "the header is truncated: expected {HEADER_LEN} bytes, found {}",
                    file.len()
                ),
            );
        };
        let (bytes, zeros) = header.split_at(RAW_LEN);
        match RawHeader::ref_from_bytes(bytes) {
            Ok(raw) => Self::from_raw(raw, bytes, zeros),
            Err(_) => unreachable!("RawHeader is unaligned and has RAW_LEN bytes"),
        }
    }

    fn from_raw(raw: &RawHeader, bytes: &[u8], zeros: &[u8]) -> Result<Self> {
        let fail = |kind, what: String| Err(Error::new(kind, what));
        let corrupt = |what: &str| Error::new(ErrorKind::CorruptHeader, what);
        let version = raw.version.get();
        if version != FORMAT_VERSION {
            return fail(
                ErrorKind::UnsupportedVersion,
                format!("expected format version {FORMAT_VERSION}, found {version}"),
            );
        }
        if checksum(bytes) != raw.checksum {
            return Err(corrupt("the header's checksum is wrong"));
        }
        if usize::from(raw.header_len.get()) != HEADER_LEN {
            return Err(corrupt("the header length is not 4096"));
        }
        // Compared whole: a look at each byte would take longer than deriving the key.
        if (raw.zero_15, raw.zero_80) != (0, [0; 16]) || zeros != ZEROS {
            return Err(corrupt("a reserved byte of the header is not zero"));
        }
        let unknown = raw.incompatible.get() & !INCOMPATIBLE_KNOWN;
        if unknown != 0 {
            return fail(
                ErrorKind::UnsupportedFeature,
                format!("the file needs unknown features, bits {unknown:#x}"),
            );
        }
        let layout = Layout::parse(raw.suite, raw.parameter)?;
        let Some(kind) = FileKind::of_header(raw.kind) else {
            return fail(
                ErrorKind::UnsupportedFeature,
                format!("expected a file kind from 1 to 6, found {}", raw.kind),
            );
        };
        let mut prefix = [0; PREFIX_LEN];
        prefix.copy_from_slice(&bytes[..PREFIX_LEN]);
        Ok(Self {
            suite: layout.suite(),
            chunk_len: layout.chunk_len(),
            kind,
            compatible_features: raw.compatible.get(),
            created_ns: raw.created_ns.get(),
            store_id: StoreId::from_bytes(raw.store_id),
            data_key_id: DataKeyId::from_bytes(raw.data_key_id),
            file_id: FileId::from_bytes(raw.file_id),
            layout,
            prefix,
            commitment: raw.commitment,
        })
    }

    /// Whether it is a temporary file's, whose data key is in no keyring.
    pub(crate) fn is_temporary(&self) -> bool {
        self.kind == FileKind::Temporary
    }

    /// Derives the file's key and proves the header with it, in constant time.
    pub(crate) fn unseal(&self, key: &DataKey) -> Result<Derived> {
        let derived = derive(key.bytes()?, Purpose::File, &[&self.prefix]);
        if bool::from(derived.commitment().ct_eq(&self.commitment)) {
            return Ok(derived);
        }
        Err(Error::new(
            ErrorKind::WrongKey,
            format!("data key {} does not fit the header", self.data_key_id),
        ))
    }
}

// Single fields, for those who have the bytes of a header and need no whole `Header`.
fn field<const N: usize>(start: &[u8], offset: usize) -> Option<[u8; N]> {
    start.get(offset..)?.first_chunk().copied()
}

/// The suite that a prefix says.
pub(crate) fn suite(prefix: &[u8; PREFIX_LEN]) -> Option<Suite> {
    Suite::from_number(prefix[offset_of!(RawHeader, suite)])
}

/// What the commitment of a whole header covers.
pub(crate) fn prefix(header: &[u8; HEADER_LEN]) -> &[u8; PREFIX_LEN] {
    // OK because a header is longer.
    header.first_chunk().expect("a prefix")
}

/// The data key of a prefix.
pub(crate) fn data_key_id(prefix: &[u8; PREFIX_LEN]) -> DataKeyId {
    DataKeyId::from_bytes(field(prefix, offset_of!(RawHeader, data_key_id)).unwrap_or_default())
}

/// Whether a whole header is a temporary file's.
pub(crate) fn is_temporary(header: &[u8; HEADER_LEN]) -> bool {
    header[offset_of!(RawHeader, kind)] == FileKind::Temporary.number()
}

/// When the file of a whole header was created, and the commitment that names it.
pub(crate) fn created_and_commitment(header: &[u8; HEADER_LEN]) -> (u64, [u8; 32]) {
    let created = field(header, offset_of!(RawHeader, created_ns)).unwrap_or_default();
    let commitment = field(header, offset_of!(RawHeader, commitment)).unwrap_or_default();
    (u64::from_le_bytes(created), commitment)
}

/// The bytes of a header that tell a file's layout.
pub(crate) const LAYOUT_LEN: usize = 16;

/// The layout that the first 16 bytes of a file claim; `None` if they are no header's.
pub(crate) fn claimed_layout(start: &[u8]) -> Option<Layout> {
    let [suite, parameter] = field(start, offset_of!(RawHeader, suite))?;
    begins_encrypted(start).then(|| Layout::parse(suite, parameter).ok()).flatten()
}

/// Whether `file`, as far as it goes, begins like an encrypted file. A short file that
/// ends inside the magic counts: it may be a torn header, never plaintext.
pub(crate) fn begins_encrypted(file: &[u8]) -> bool {
    let seen = file.len().min(MAGIC.len());
    seen > 0 && file[..seen] == MAGIC[..seen]
}

/// Whether `file` is not empty and has zeros where a header would be, as far as it goes: the page
/// that a power cut kept from the disk after the length was there.
pub(crate) fn is_unwritten(file: &[u8]) -> bool {
    !file.is_empty() && file.iter().take(HEADER_LEN).all(|byte| *byte == 0)
}

/// The other tool that wrote the file, by its magic.
fn foreign(file: &[u8]) -> Option<&'static str> {
    const TOOLS: [(&[u8], &str); 6] = [
        (&KEYRING_MAGIC, "a keyring"),
        (b"age-encryption.org/", "a file of age"),
        (b"Salted__", "a file of openssl enc"),
        (b"LUKS\xba\xbe", "a LUKS volume"),
        (b"-----BEGIN PGP MESSAGE", "a file of OpenPGP"),
        (b"-----BEGIN AGE ENCRYPTED FILE", "a file of age"),
    ];
    TOOLS.iter().find(|(magic, _)| file.starts_with(magic)).map(|(_, tool)| *tool)
}
