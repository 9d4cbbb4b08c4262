//! Which objects a store writes and reads, and what their lengths say.

use atrest::{
    ChunkMap, Error, ErrorKind, FileKind, FileSpec, HEADER_LEN, Header, Integrity, Suite,
};

/// Bytes of a chunk in an authenticated object: the smallest there are, so that a read of one
/// record verifies little. All objects have chunks of one length: so a listing tells lengths.
const CHUNK_LEN: u32 = 4096;

/// What is promised of objects, and whether there are others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ObjectPolicy {
    /// Of new objects; and of all, unless there are `both`.
    pub(crate) integrity: Integrity,
    pub(crate) both: bool,
}

impl ObjectPolicy {
    /// A new object of this kind.
    pub(crate) fn spec(self, kind: FileKind) -> FileSpec {
        FileSpec::new(kind).suite(Suite::for_objects(self.integrity)).chunk_len(CHUNK_LEN)
    }

    fn keeps_lengths(self) -> bool {
        Suite::for_objects(self.integrity).keeps_lengths()
    }

    /// Whether an object that is not known yet may have tags, which are read before its data.
    pub(crate) fn expects_tags(self) -> bool {
        self.both || !self.keeps_lengths()
    }

    /// Bytes in the store below of a new object of `len` bytes.
    pub(crate) fn physical_len(self, len: u64) -> u64 {
        let map =
            if self.keeps_lengths() { None } else { ChunkMap::of_plaintext(CHUNK_LEN, len).ok() };
        HEADER_LEN as u64 + map.map_or(len, |map| map.body_len())
    }

    /// The length that an object claims which was not looked at.
    pub(crate) fn claimed_len(self, physical_len: u64) -> u64 {
        claimed_len((!self.keeps_lengths()).then_some(CHUNK_LEN), physical_len)
    }

    /// Refuses an object whose length listings would tell wrongly, or that is weaker than
    /// new ones are.
    pub(crate) fn check(self, header: &Header) -> Result<(), Error> {
        let of = |integrity| Suite::for_objects(integrity);
        let Some(integrity) = Integrity::ALL.into_iter().find(|one| of(*one) == header.suite)
        else {
            let what = format!("expected a suite of objects, found {:?}", header.suite);
            return Err(Error::new(ErrorKind::UnsupportedFeature, what));
        };
        if header.chunk_len.is_some_and(|len| len != CHUNK_LEN) {
            let what = format!("expected chunks of {CHUNK_LEN} bytes in an object, found others");
            return Err(Error::new(ErrorKind::UnsupportedFeature, what));
        }
        if self.both || integrity == self.integrity {
            return Ok(());
        }
        let (expected, found) = (self.integrity.name(), integrity.name());
        let kind = match integrity {
            Integrity::Confidential => ErrorKind::SuiteTooWeak,
            Integrity::Authenticated => ErrorKind::UnsupportedFeature,
        };
        let what = format!("expected {expected} objects alone, found a {found} one");
        Err(Error::new(kind, what))
    }
}

/// The length that an object with such chunks, or none, claims.
fn claimed_len(chunk_len: Option<u32>, physical_len: u64) -> u64 {
    let body_len = physical_len.saturating_sub(HEADER_LEN as u64);
    // A length that no object has: reading it says so.
    let map = chunk_len.and_then(|chunk_len| ChunkMap::of_body(chunk_len, body_len).ok());
    map.map_or(body_len, |map| map.plaintext_len())
}

/// The length that an object with this header claims.
pub(crate) fn claimed_len_of(header: &Header, physical_len: u64) -> u64 {
    claimed_len(header.chunk_len, physical_len)
}
