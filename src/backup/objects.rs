//! Copied files: each a file of suite 2 under the chain's data key.
//!
//! Its file id is its name, so that one put in another's place is refused. Its plaintext
//! is the stream of the source file, and then a footer of 88 bytes: magic 8, length of
//! the stream 8, plaintext length 8, identity of the source 32, SHA-256 of the stream 32. So a copy that a
//! killed backup left behind tells by itself, authenticated, what it is a copy of.
//!
//! The stream is the file's plaintext; for a log of suite 3 each frame with its length
//! (little-endian, 4 bytes) in front, so that a restored log has the same frames.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::Chain;
use super::object::{Object, ObjectId, broken};
use super::target::{FILES, PutFile};
use crate::cipher::Encryptor;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::pieces::Copied;
use crate::fs::{ReadPath, Reader};
use crate::header::{FileKind, HEADER_LEN, Header};
use crate::ids::FileId;
use crate::keyring::{Expect, FileSpec};
use crate::suite::Suite;
use crate::suite::layout::Layout;
use crate::vfs::ReadFile;

const FOOTER_MAGIC: [u8; 8] = *b"ATRCOPY\x01";
const FOOTER_LEN: usize = 88;
/// Chunks of copies: they are read from front to back, never here and there.
const CHUNK_LEN: u32 = 64 << 10;
/// Bytes read and encrypted at once.
pub(super) const PIECE_LEN: usize = 256 << 10;

pub(super) fn name(id: &ObjectId) -> String {
    format!("{FILES}/{}", crate::hex::encode(id))
}

/// Bytes in the target of a copy with a stream of this length, which is less than 2^63.
pub(super) fn physical_len(stream_len: u64) -> u64 {
    // OK because the length is one of those that chunks have.
    let layout = Layout::choose(Suite::FOR_BACKUPS, CHUNK_LEN).expect("a length of chunks");
    HEADER_LEN as u64 + layout.body_len(stream_len + FOOTER_LEN as u64, 0)
}

/// A copy being written.
pub(super) struct ObjectWriter {
    id: ObjectId,
    encryptor: Encryptor,
    ciphertext: Vec<u8>,
    put: Box<dyn PutFile>,
    hash: Sha256,
    stream_len: u64,
}

impl ObjectWriter {
    /// Begins a copy with a stream of about this length.
    pub(super) fn create(chain: &Chain, stream_len: u64) -> Result<Self> {
        let mut id = [0; 16];
        crate::random::fill(&mut id)?;
        let spec = FileSpec::new(FileKind::Other);
        let spec = spec.file_id(FileId::from_bytes(id)).suite(Suite::FOR_BACKUPS);
        let encryptor = chain.keyring.encryptor(spec.chunk_len(CHUNK_LEN))?;
        let mut put = chain.target.put(&name(&id))?;
        put.will_append(physical_len(stream_len));
        put.append(encryptor.header())?;
        let ciphertext = Vec::new();
        Ok(Self { id, encryptor, ciphertext, put, hash: Sha256::new(), stream_len: 0 })
    }

    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.stream_len += bytes.len() as u64;
        self.put(bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.ciphertext.clear();
        self.encryptor.append(bytes, &mut self.ciphertext)?;
        self.put.append(&self.ciphertext)
    }

    pub(super) fn finish(mut self, len: u64, identity: [u8; 32], held_by: u64) -> Result<Object> {
        let sha256: [u8; 32] = self.hash.clone().finalize().into();
        let mut footer = [0; FOOTER_LEN];
        footer[..8].copy_from_slice(&FOOTER_MAGIC);
        footer[8..16].copy_from_slice(&self.stream_len.to_le_bytes());
        footer[16..24].copy_from_slice(&len.to_le_bytes());
        footer[24..56].copy_from_slice(&identity);
        footer[56..].copy_from_slice(&sha256);
        self.put(&footer)?;
        self.ciphertext.clear();
        self.encryptor.end(&mut self.ciphertext)?;
        self.put.append(&self.ciphertext)?;
        let physical_len = self.encryptor.physical_len();
        self.put.finish()?;
        let Self { id, stream_len, .. } = self;
        Ok(Object { id, physical_len, len, stream_len, sha256, identity, held_by })
    }
}

/// Writes a whole manifest.
pub(super) fn write_whole(chain: &Chain, name: &str, number: u64, bytes: &[u8]) -> Result<u64> {
    let spec = FileSpec::new(FileKind::Manifest).file_id(number).suite(Suite::FOR_BACKUPS);
    let mut encryptor = chain.keyring.encryptor(spec)?;
    let mut put = chain.target.put(name)?;
    put.append(encryptor.header())?;
    let mut ciphertext = Vec::new();
    for piece in bytes.chunks(PIECE_LEN) {
        ciphertext.clear();
        encryptor.append(piece, &mut ciphertext)?;
        put.append(&ciphertext)?;
    }
    ciphertext.clear();
    encryptor.end(&mut ciphertext)?;
    put.append(&ciphertext)?;
    put.finish()?;
    Ok(encryptor.physical_len())
}

/// Opens a file of the chain that must have this id and kind.
pub(super) fn open_as(
    chain: &Chain,
    name: &str,
    file: Box<dyn ReadFile>,
    id: ObjectId,
    kind: FileKind,
) -> Result<Reader> {
    let mut start = [0; HEADER_LEN];
    let read = file.read_at(&mut start, 0);
    let read = read.map_err(|e| Error::io("the header cannot be read", e))?;
    let header = Header::parse(&start[..read])?;
    let expect = Expect { kind: Some(kind), file_id: Some(FileId::from_bytes(id)) };
    let decryptor = chain.keyring.decryptor(&header, &expect)?;
    if header.suite != Suite::FOR_BACKUPS {
        let expected = Suite::FOR_BACKUPS;
        let what = format!("expected {expected:?} in a backup, found {:?}", header.suite);
        return Err(Error::new(ErrorKind::SuiteTooWeak, what));
    }
    Reader::encrypted(Path::new(name).into(), file, decryptor, ReadPath::Pread)
}

/// An open copy.
pub(super) struct ObjectReader {
    reader: Reader,
    pub(super) footer: Object,
}

impl ObjectReader {
    /// Opens a copy and reads its footer.
    pub(super) fn open(chain: &Chain, id: ObjectId) -> Result<Self> {
        let name = name(&id);
        let open = || {
            let file = chain.target.open(&name)?;
            let physical_len = file.len().map_err(|e| Error::io("the length is unknown", e))?;
            let reader = open_as(chain, &name, file, id, FileKind::Other)?;
            let mut footer = [0; FOOTER_LEN];
            let stream_len = reader.len()?.checked_sub(FOOTER_LEN as u64);
            let stream_len = stream_len.ok_or_else(|| broken("the copy has no footer"))?;
            reader.read_exact_at(&mut footer, stream_len)?;
            if footer[..8] != FOOTER_MAGIC || footer[8..16] != stream_len.to_le_bytes() {
                return Err(broken("the copy's footer is wrong"));
            }
            let mut told = Object { id, physical_len, stream_len, ..Object::default() };
            let mut len = [0; 8];
            len.copy_from_slice(&footer[16..24]);
            told.len = u64::from_le_bytes(len);
            told.identity.copy_from_slice(&footer[24..56]);
            told.sha256.copy_from_slice(&footer[56..]);
            Ok(Self { reader, footer: told })
        };
        open().map_err(|error: Error| error.with_path(&name))
    }

    /// Opens the copy that a manifest names, which must be the one it describes.
    pub(super) fn open_expecting(chain: &Chain, object: &Object) -> Result<Self> {
        let opened = Self::open(chain, object.id).map_err(|error| match error.kind() {
            ErrorKind::Io(std::io::ErrorKind::NotFound) => {
                broken("a copied file is missing").with_path(name(&object.id)).with_source(error)
            }
            _ => error,
        })?;
        let expected = Object { held_by: 0, ..*object };
        if opened.footer != expected {
            return Err(broken("the copy is not the one that the manifest describes")
                .with_path(name(&object.id)));
        }
        Ok(opened)
    }

    /// Gives the stream to `each` in pieces, and proves its hash at the end.
    pub(super) fn stream(&self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut piece = vec![0; PIECE_LEN];
        let mut hash = Sha256::new();
        let mut at = 0;
        while at < self.footer.stream_len {
            let len = (self.footer.stream_len - at).min(PIECE_LEN as u64) as usize;
            self.reader.read_exact_at(&mut piece[..len], at)?;
            hash.update(&piece[..len]);
            each(&piece[..len])?;
            at += len as u64;
        }
        if hash.finalize()[..] != self.footer.sha256 {
            return Err(broken("the copy's hash is wrong").with_path(self.reader.path()));
        }
        Ok(())
    }
}

/// Gives the stream of a store's file to `each` in pieces.
pub(super) fn stream_of(
    reader: &Reader,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<Copied> {
    let with_lengths = reader.keeps_appends();
    reader.pieces(true, &mut |piece| {
        if with_lengths {
            // OK because an append to such a file has at most 2^24 bytes.
            each(&u32::try_from(piece.len()).expect("a short append").to_le_bytes())?;
        }
        each(piece)
    })
}
