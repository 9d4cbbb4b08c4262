#![allow(clippy::unwrap_used)]

use super::*;
use crate::suite::chunks::chunk_index;

fn lengths(chunk: ChunkLen) -> Vec<u64> {
    let (len, section) = (chunk.bytes() as u64, SECTION_CHUNKS * chunk.bytes() as u64);
    let near = |len: u64| len.saturating_sub(40)..len + 40;
    let around = [0, len, 2 * len, 255 * len, 256 * len, section, section + len, 3 * section];
    let max = chunk.file_len_max();
    around.into_iter().flat_map(near).chain(max - 40..=max).collect()
}

#[test]
fn the_lengths_of_body_and_plaintext_tell_each_other() {
    for log2 in LOG2_RANGE {
        let chunk = ChunkLen::from_log2(log2).unwrap();
        for len in lengths(chunk) {
            let body_len = chunk.body_len(len);
            assert_eq!(chunk.file_len(body_len), Some(len));
            let map = ChunkMap::claimed(chunk, body_len).unwrap();
            assert_eq!((map.plaintext_len(), map.body_len()), (len, body_len));
            assert_eq!(ChunkMap::of_plaintext(1 << log2, len).unwrap(), map);
        }
        // No other length is one of a body: all up to the third chunk.
        let mut possible = vec![false; 3 * chunk.bytes()];
        for len in 0..3 * chunk.bytes() as u64 {
            if let Some(place) = possible.get_mut(chunk.body_len(len) as usize) {
                *place = true;
            }
        }
        for (body_len, possible) in (0..).zip(possible) {
            assert_eq!(chunk.file_len(body_len).is_some(), possible, "{body_len}");
        }
        let max = chunk.file_len_max();
        assert!(chunk.body_len(max) <= BODY_LEN_MAX && chunk.body_len(max + 1) > BODY_LEN_MAX);
        assert_eq!(chunk.file_len(chunk.body_len(max + 1)), None);
        assert!(chunk_index(max >> log2).is_ok());
        let tags = chunk.body_len(max) - max;
        assert!(tags as f64 / max as f64 <= 0.005, "half a percent at most");
    }
    assert!(ChunkLen::from_log2(11).is_none() && ChunkLen::from_log2(17).is_none());
    assert!(chunk_index(u64::from(u32::MAX) - 1).is_ok());
    assert!(chunk_index(u64::from(u32::MAX)).is_err(), "the end's number is no chunk's");
    assert!(ChunkMap::of_plaintext(4096, BODY_LEN_MAX).is_err());
    assert!(ChunkMap::of_plaintext(4096, u64::MAX).is_err());
    assert!(ChunkMap::of_body(4096, u64::MAX).is_err() && ChunkMap::of_body(4095, 16).is_err());
}

/// Every byte of a body has one place: chunks, then their tags, section by section, the end.
#[test]
fn runs_cover_the_body_without_a_gap() {
    for log2 in LOG2_RANGE {
        let chunk = ChunkLen::from_log2(log2).unwrap();
        for len in lengths(chunk) {
            let map = ChunkMap::claimed(chunk, chunk.body_len(len)).unwrap();
            let count = map.chunk_count();
            let (mut at, mut next) = (0, 0);
            for run in map.runs(0..count.min(4 * SECTION_CHUNKS)) {
                assert_eq!((run.chunks.start, run.bytes.start), (next, at));
                assert_eq!(run.bytes.start % 4096, 0, "chunks stand at pages");
                assert_eq!(run.tags.start, run.bytes.end);
                let chunks = run.chunks.end - run.chunks.start;
                assert_eq!(run.tags.end - run.tags.start, chunks * 16);
                assert!(chunks == SECTION_CHUNKS || run.chunks.end == count);
                (at, next) = (run.tags.end, run.chunks.end);
            }
            if count <= 4 * SECTION_CHUNKS {
                assert_eq!((map.end(), next), (at..map.body_len(), count));
            }
        }
    }
}

#[test]
fn a_range_of_plaintext_needs_the_chunks_that_hold_it() {
    let map = ChunkMap::of_plaintext(4096, (SECTION_CHUNKS + 3) * 4096 - 1).unwrap();
    assert_eq!(map.chunks_of(0..1), 0..1);
    assert_eq!(map.chunks_of(4095..4097), 0..2);
    assert_eq!(map.chunks_of(4096..8192), 1..2);
    assert_eq!(map.chunks_of(0..u64::MAX), 0..SECTION_CHUNKS + 3);
    for nothing in [5..5, u64::MAX - 1..u64::MAX, map.plaintext_len()..u64::MAX] {
        assert!(map.chunks_of(nothing).is_empty());
    }
    let section = SECTION_CHUNKS * 4096;
    let runs: Vec<_> = map.runs(SECTION_CHUNKS - 1..SECTION_CHUNKS + 3).collect();
    let [first, second] = &runs[..] else { panic!("{runs:?}") };
    assert_eq!(first.chunks, SECTION_CHUNKS - 1..SECTION_CHUNKS);
    assert_eq!(first.bytes, section - 4096..section);
    assert_eq!(first.tags, section + SECTION_TAGS_LEN - 16..section + SECTION_TAGS_LEN);
    assert_eq!(second.chunks, SECTION_CHUNKS..SECTION_CHUNKS + 3);
    let start = section + SECTION_TAGS_LEN;
    assert_eq!(second.bytes, start..start + 3 * 4096 - 1);
    assert_eq!(second.tags, second.bytes.end..second.bytes.end + 48);
    assert_eq!(map.runs(7..7).count(), 0);
    assert_eq!((map.place(5), map.place(section)), (5, start));
    assert_eq!(map.place(u64::MAX), u64::MAX);
}
