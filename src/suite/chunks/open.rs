//! Reading a file of suite 2: any offset, whole chunks verified.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::geometry::{PAGE_LEN, PAGE_TAGS};
use super::tags::{PageId, Tag, TagCache};
use super::{ChunkLen, ChunkMap, ChunkRun, END_LEN, open_in_place, open_part, verify_end};
use crate::cipher::KeySlot;
use crate::cipher::gcm::{TAG_LEN, will_read};
use crate::error::{ErrorKind, Result};
use crate::suite::source::{Scratch, Source, mapped_part, read_exact, will_read_mapped};

/// Ciphertext bytes that one call to the file system reads: they stay in the second-level cache
/// until they are decrypted.
const BATCH_LEN: u64 = 256 << 10;
/// Chunks of a batch, at most.
const BATCH_TAGS: usize = (BATCH_LEN >> 12) as usize;

/// Bytes of tags that are read together with the end: many cost more than a read of their own.
const TAGS_ALONG_LEN: usize = 1 << 10;

/// A file whose length was verified.
pub(crate) struct Chunks {
    slot: Arc<KeySlot>,
    chunk: ChunkLen,
    map: ChunkMap,
    /// Names this opening of the file among those whose tags are kept.
    file: u64,
}

/// The plaintext length that a body claims: true once its end is verified.
pub(in crate::suite) fn claimed_len(chunk: ChunkLen, body_len: u64) -> Result<u64> {
    Ok(ChunkMap::claimed(chunk, body_len)?.plaintext_len())
}

impl Chunks {
    /// Reads and verifies the end, and with it the file's length. The tags in front of it come
    /// along if they are few.
    pub(in crate::suite) fn open(
        chunk: ChunkLen,
        slot: Arc<KeySlot>,
        source: &impl Source,
    ) -> Result<Self> {
        let map = ChunkMap::claimed(chunk, source.opened_len()?)?;
        static OPENED: AtomicU64 = AtomicU64::new(0);
        let file = OPENED.fetch_add(1, Ordering::Relaxed);
        let chunks = Self { slot, chunk, map, file };
        let mut bytes = [0; TAGS_ALONG_LEN + END_LEN];
        let last = map.chunk_count().saturating_sub(1) / PAGE_TAGS;
        let tags_len = (map.chunk_count() - last * PAGE_TAGS) as usize * TAG_LEN;
        let tags_len = if tags_len > TAGS_ALONG_LEN { 0 } else { tags_len };
        let bytes = &mut bytes[..tags_len + END_LEN];
        read_exact(source, bytes, map.end().end - bytes.len() as u64)?;
        let (tags, end) = bytes.split_at(tags_len);
        chunks.slot.with_gcm(|key| verify_end(key, map.plaintext_len(), end))?;
        if !tags.is_empty() {
            TagCache::shared().put(chunks.page(last), tags);
        }
        Ok(chunks)
    }

    pub(in crate::suite) fn len(&self) -> u64 {
        self.map.plaintext_len()
    }

    /// Where in the body the bytes at a logical offset are, roughly: for hints.
    pub(in crate::suite) fn physical(&self, offset_bytes: u64) -> u64 {
        self.map.place(offset_bytes)
    }

    /// Fills `buf` as far as the file goes. After an error anything may be in `buf` but
    /// unverified plaintext.
    pub(in crate::suite) fn read_at(
        &self,
        source: &impl Source,
        buf: &mut [u8],
        offset_bytes: u64,
    ) -> Result<usize> {
        let rest = self.len().saturating_sub(offset_bytes);
        let wanted = usize::try_from(rest).map_or(buf.len(), |rest| rest.min(buf.len()));
        let mut left = &mut buf[..wanted];
        let mut at = offset_bytes;
        while !left.is_empty() {
            let chunks = self.map.chunks_of(at..at + left.len() as u64);
            let len = match self.read_mapped(source, &chunks, left, at)? {
                Some(len) => len,
                // Room for many tags takes time to make.
                None if chunks.end - chunks.start == 1 => {
                    self.read_batch::<1>(source, chunks, left, at)?
                }
                None => self.read_batch::<BATCH_TAGS>(source, chunks, left, at)?,
            };
            (left, at) = (&mut left[len..], at + len as u64);
        }
        Ok(wanted)
    }

    /// Decrypts from a map what one section has of `chunks`; `None` if that is not mapped.
    fn read_mapped(
        &self,
        source: &impl Source,
        chunks: &Range<u64>,
        buf: &mut [u8],
        offset_bytes: u64,
    ) -> Result<Option<usize>> {
        if source.mapped().is_empty() {
            return Ok(None);
        }
        let run = self.map.run(chunks.clone());
        let parts = (mapped_part(source, run.bytes.clone()), mapped_part(source, run.tags));
        let (Some(ciphertext), Some(tags)) = parts else { return Ok(None) };
        let (chunk, first) = (self.chunk, run.chunks.start);
        let skip = (offset_bytes - (first << chunk.log2())) as usize;
        let len = (ciphertext.len() - skip).min(buf.len());
        let (buf, tags) = (&mut buf[..len], tags.as_chunks().0);
        will_read(&tags[0]);
        will_read_mapped(ciphertext);
        self.slot.with_gcm(|key| open_part(key, chunk, first, ciphertext, tags, skip, buf))?;
        Ok(Some(len))
    }

    /// Reads and decrypts as many of `chunks` as are in one section and one batch, and have at most
    /// `TAGS` tags.
    fn read_batch<const TAGS: usize>(
        &self,
        source: &impl Source,
        chunks: Range<u64>,
        buf: &mut [u8],
        offset_bytes: u64,
    ) -> Result<usize> {
        let batch = (BATCH_LEN >> self.chunk.log2()).min(TAGS as u64);
        let run = self.map.run(chunks.start..chunks.end.min(chunks.start + batch));
        let skip = (offset_bytes - (chunks.start << self.chunk.log2())) as usize;
        let len = ((run.bytes.end - run.bytes.start) as usize - skip).min(buf.len());
        let buf = &mut buf[..len];
        let mut tags = [[0; TAG_LEN]; TAGS];
        let tags = &mut tags[..(run.chunks.end - run.chunks.start) as usize];
        let mut kept = false;
        match self.read_run(source, &run, tags, skip, buf, &mut kept) {
            Err(error) if kept && error.kind() == ErrorKind::Authentication => {
                // Was it the tags that were wrong when they were read?
                self.forget(&run.chunks);
                self.read_run(source, &run, tags, skip, buf, &mut kept)?;
            }
            other => other?,
        }
        Ok(len)
    }

    /// Whole chunks are read into the caller's buffer and decrypted there, others by way of the
    /// thread's. The tags come last: they are on their way from memory while the system reads.
    fn read_run(
        &self,
        source: &impl Source,
        run: &ChunkRun,
        tags: &mut [Tag],
        skip: usize,
        buf: &mut [u8],
        kept: &mut bool,
    ) -> Result<()> {
        let (chunk, first) = (self.chunk, run.chunks.start);
        let len = (run.bytes.end - run.bytes.start) as usize;
        let (page, number) = (first / PAGE_TAGS, first % PAGE_TAGS);
        let in_page = tags.len().min((PAGE_TAGS - number) as usize);
        TagCache::shared().will_get(self.page(page), number, in_page);
        if buf.len() == len {
            read_exact(source, buf, run.bytes.start)?;
            *kept = self.tags(source, &run.chunks, tags)?;
            return self.slot.with_gcm(|key| open_in_place(key, chunk, first, buf, tags));
        }
        let mut scratch = Scratch::take();
        let ciphertext = scratch.bytes(len);
        read_exact(source, ciphertext, run.bytes.start)?;
        *kept = self.tags(source, &run.chunks, tags)?;
        self.slot.with_gcm(|key| open_part(key, chunk, first, ciphertext, tags, skip, buf))
    }

    /// Fills `tags` for adjacent chunks; says whether some were kept from an earlier read.
    fn tags(&self, source: &impl Source, chunks: &Range<u64>, tags: &mut [Tag]) -> Result<bool> {
        let (mut next, mut left, mut kept) = (chunks.start, tags, false);
        while next < chunks.end {
            let page = next / PAGE_TAGS;
            let page_end = ((page + 1) * PAGE_TAGS).min(self.map.chunk_count());
            let count = (page_end.min(chunks.end) - next) as usize;
            let (now, later) = left.split_at_mut(count);
            let first = next - page * PAGE_TAGS;
            if TagCache::shared().get(self.page(page), first, now) {
                kept = true;
            } else {
                self.read_tags(source, page, page_end, first as usize, now)?;
            }
            (left, next) = (later, next + count as u64);
        }
        Ok(kept)
    }

    /// Reads and keeps the tags of a page up to that of chunk `page_end`, and fills `tags` from its
    /// number `first` on.
    #[cold]
    #[inline(never)]
    fn read_tags(
        &self,
        source: &impl Source,
        page: u64,
        page_end: u64,
        first: usize,
        tags: &mut [Tag],
    ) -> Result<()> {
        let place = self.map.run(page * PAGE_TAGS..page_end).tags;
        let mut bytes = [0; PAGE_LEN];
        let bytes = &mut bytes[..(place.end - place.start) as usize];
        read_exact(source, bytes, place.start)?;
        TagCache::shared().put(self.page(page), bytes);
        let read = bytes[first * TAG_LEN..].chunks_exact(TAG_LEN);
        tags.iter_mut().zip(read).for_each(|(tag, read)| tag.copy_from_slice(read));
        Ok(())
    }

    fn forget(&self, chunks: &Range<u64>) {
        for page in chunks.start / PAGE_TAGS..=(chunks.end - 1) / PAGE_TAGS {
            TagCache::shared().forget(self.page(page));
        }
    }

    fn page(&self, page: u64) -> PageId {
        PageId { file: self.file, page }
    }
}

#[cfg(test)]
mod tests;
