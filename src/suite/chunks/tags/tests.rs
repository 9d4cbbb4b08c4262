#![allow(clippy::unwrap_used)]

use super::*;

fn page(id: PageId) -> Vec<u8> {
    let byte = id.file.wrapping_mul(31).wrapping_add(id.page) as u8;
    (0..PAGE_LEN).map(|i| byte ^ (i / TAG_LEN) as u8).collect()
}

fn looks(cache: &TagCache, id: PageId, first: u64, count: usize) -> bool {
    let mut tags = vec![[0; TAG_LEN]; count];
    let found = cache.get(id, first, &mut tags);
    if found {
        let page = page(id);
        let expected = &page[first as usize * TAG_LEN..][..count * TAG_LEN];
        assert_eq!(tags.as_flattened(), expected, "another page's tags");
    }
    found
}

#[test]
fn a_page_is_found_until_it_is_forgotten() {
    let cache = TagCache::new(64);
    for file in [0, 7, u64::MAX] {
        for number in 0..3 {
            let id = PageId { file, page: number };
            assert!(!looks(&cache, id, 0, 1));
            cache.put(id, &page(id));
            for (first, count) in [(0, 256), (0, 1), (255, 1), (17, 40)] {
                assert!(looks(&cache, id, first, count));
            }
        }
    }
    let id = PageId { file: 7, page: 1 };
    cache.forget(id);
    assert!(!looks(&cache, id, 0, 1) && looks(&cache, PageId { file: 7, page: 2 }, 0, 1));
    cache.put(id, &page(id)[..48]);
    assert!(looks(&cache, id, 1, 2));
}

#[test]
fn the_number_of_pages_is_bounded() {
    let cache = TagCache::new(64);
    let ids = || (0..1000).map(|page| PageId { file: 3, page });
    ids().for_each(|id| cache.put(id, &page(id)));
    let kept = ids().filter(|id| looks(&cache, *id, 5, 1)).count();
    assert_eq!(kept, 64);
    // The same page again takes no second place.
    for _ in 0..100 {
        cache.put(PageId { file: 3, page: 999 }, &page(PageId { file: 3, page: 999 }));
    }
    assert_eq!(ids().filter(|id| looks(&cache, *id, 5, 1)).count(), kept);
}

#[test]
fn who_reads_while_others_write_never_sees_parts_of_two_pages() {
    let cache = TagCache::new(4);
    let ids: Vec<_> = (0..16).map(|page| PageId { file: 9, page }).collect();
    std::thread::scope(|scope| {
        for thread in 0..4_usize {
            let (cache, ids) = (&cache, &ids);
            scope.spawn(move || {
                for i in 0..3000 {
                    let id = ids[(i * 7 + thread * 5) % ids.len()];
                    if !looks(cache, id, 0, 256) {
                        cache.put(id, &page(id));
                    }
                }
            });
        }
    });
}
