//! The body of one response: from the bytes of the store below to the plaintext asked for.

use std::ops::Range;

use super::object_store::path::Path;
use super::object_store::{Error, GetResult, GetResultPayload, Result};
use atrest::keyring::AccessFlag;
use atrest::{Decryptor, HEADER_LEN};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream, StreamExt, TryStreamExt};

use super::error::{fault, refused};

/// Responses that are not a stream (a local file) up to this length are read at once, not
/// in the 8 KiB pieces of their stream: one task for each would cost more than the read.
/// Longer ones are not, but where the caller wants all of it in memory.
pub(crate) const COLLECTED_LEN_MAX: u64 = 4 << 20;

pub(crate) type Chunks = BoxStream<'static, Result<Bytes>>;

/// The bytes of a response, whatever it is. A local file is read here and never handed
/// on: it holds ciphertext.
pub(crate) async fn chunks(result: GetResult, collected_len_max: u64) -> Result<Chunks> {
    let len = result.range.end.saturating_sub(result.range.start);
    let streamed = matches!(&result.payload, GetResultPayload::Stream(_));
    if streamed || len > collected_len_max {
        return Ok(result.into_stream());
    }
    let bytes = result.bytes().await?;
    Ok(stream::once(async { Ok(bytes) }).boxed())
}

/// The first `len` bytes of a response, fewer if it ends before. Takes no more memory than that
/// and one piece of the stream, whatever range and size the store claims, and however much it
/// sends.
pub(crate) async fn first_of(result: GetResult, len: usize) -> Result<Bytes> {
    Ok(peek(chunks(result, len as u64).await?, len).await?.0)
}

/// Takes the first `len` bytes off a stream, fewer if it ends before. Returns them, and a
/// stream of all bytes, these first.
pub(crate) async fn peek(mut chunks: Chunks, len: usize) -> Result<(Bytes, Chunks)> {
    let mut taken = Vec::new();
    let mut taken_len = 0;
    while taken_len < len {
        match chunks.try_next().await? {
            Some(chunk) => {
                taken_len += chunk.len();
                taken.push(chunk);
            }
            None => break,
        }
    }
    let first = match taken.as_slice() {
        [only] => only.slice(..only.len().min(len)),
        several => {
            let mut first = BytesMut::with_capacity(len.min(taken_len));
            for chunk in several {
                let missing = len - first.len();
                first.extend_from_slice(&chunk[..chunk.len().min(missing)]);
            }
            first.freeze()
        }
    };
    Ok((first, stream::iter(taken.into_iter().map(Ok)).chain(chunks).boxed()))
}

/// How the bytes of a stream become plaintext.
#[derive(Debug)]
pub(crate) enum By {
    Key(Decryptor),
    /// They are, and stop with what is encrypted.
    Access(AccessFlag),
}

/// Where the wanted plaintext lies in a stream of physical bytes.
#[derive(Debug)]
pub(crate) struct Plaintext {
    location: Path,
    by: By,
    /// Bytes of the stream still to be passed over.
    skip: u64,
    /// Logical offset of the next byte.
    offset: u64,
    /// Bytes still wanted.
    remaining: u64,
}

impl Plaintext {
    /// The plaintext `range` out of a stream that begins `skip` bytes before it.
    pub(crate) fn new(location: Path, by: By, range: &Range<u64>, skip: u64) -> Self {
        let remaining = range.end - range.start;
        Self { location, by, skip, offset: range.start, remaining }
    }

    /// Decrypts chunk for chunk. A stream that ends before the range does is an error.
    pub(crate) fn stream(self, chunks: Chunks) -> Chunks {
        stream::try_unfold((chunks, self), |(mut chunks, mut plaintext)| async move {
            while plaintext.remaining > 0 {
                let Some(chunk) = chunks.try_next().await? else {
                    return Err(cut_short(&plaintext.location, plaintext.remaining));
                };
                let chunk = plaintext.take(chunk)?;
                if !chunk.is_empty() {
                    return Ok(Some((chunk, (chunks, plaintext))));
                }
            }
            Ok(None)
        })
        .boxed()
    }

    fn take(&mut self, mut chunk: Bytes) -> Result<Bytes> {
        let skipped = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
        self.skip -= skipped as u64;
        let mut chunk = chunk.split_off(skipped);
        chunk.truncate(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        let offset = self.offset;
        self.offset += chunk.len() as u64;
        self.remaining -= chunk.len() as u64;
        let plain = match &self.by {
            By::Access(access) => access.check().map(|()| chunk),
            By::Key(_) if chunk.is_empty() => Ok(chunk),
            By::Key(decryptor) => match chunk.try_into_mut() {
                Ok(mut own) => decryptor.decrypt_in_place(offset, &mut own).map(|()| own.freeze()),
                // Somebody else has the bytes too, as with a store in memory.
                Err(shared) => {
                    let mut plain = vec![0; shared.len()];
                    decryptor.decrypt(offset, &shared, &mut plain).map(|()| plain.into())
                }
            },
        };
        plain.map_err(|error| refused(&self.location, error))
    }
}

/// An answer that begins with an object's first byte has to have its header, or all of it: what
/// ended before looks like another object, or an empty one.
pub(crate) fn check_start(location: &Path, start: &[u8], physical_len: u64) -> Result<()> {
    let missing = physical_len.min(HEADER_LEN as u64).saturating_sub(start.len() as u64);
    if missing > 0 { Err(cut_short(location, missing)) } else { Ok(()) }
}

pub(crate) fn cut_short(location: &Path, missing: u64) -> Error {
    fault(format!("{location}: the response ended {missing} bytes too early"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
