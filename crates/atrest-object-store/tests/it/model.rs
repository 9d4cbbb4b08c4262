//! Random operations, held against a plain store in memory.

use std::sync::Arc;

use atrest::Integrity;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, MultipartUpload, ObjectStore, ObjectStoreExt};
use proptest::prelude::*;

use crate::support::{Keys, pattern, read, read_range};

/// What every object's plaintext begins with, to be looked for in the raw bytes.
const MARK: &[u8] = b"plaintext-plaintext!";

#[derive(Debug, Clone)]
enum Op {
    Put(u8, u32, u32),
    Multipart(u8, Vec<u32>),
    Get(u8, Option<GetRange>),
    Ranges(u8, Vec<(u32, u32)>),
    Copy(u8, u8),
    Rename(u8, u8),
    Delete(u8),
    Head(u8),
    List,
    Rotate,
    Forget,
}

fn op() -> impl Strategy<Value = Op> {
    let path = 0u8..4;
    // Around the header's length, the joined reads' limit, and cipher blocks.
    let len = prop_oneof![0u32..100, 4090u32..4110, 60_000u32..80_000, Just(200_000)];
    let at = prop_oneof![0u32..200, 4000u32..4200, 65_000u32..70_000, 0u32..210_000];
    let range = prop_oneof![
        Just(None),
        (at.clone(), 0u32..9000).prop_map(|(from, len)| {
            Some(GetRange::Bounded(from.into()..u64::from(from) + u64::from(len)))
        }),
        at.clone().prop_map(|from| Some(GetRange::Offset(from.into()))),
        at.clone().prop_map(|len| Some(GetRange::Suffix(len.into()))),
    ];
    prop_oneof![
        4 => (path.clone(), len.clone(), any::<u32>()).prop_map(|(p, l, s)| Op::Put(p, l, s)),
        1 => (path.clone(), prop::collection::vec(len, 0..4)).prop_map(|(p, l)| Op::Multipart(p, l)),
        8 => (path.clone(), range).prop_map(|(p, r)| Op::Get(p, r)),
        2 => (path.clone(), prop::collection::vec((at, 1u32..5000), 0..4))
            .prop_map(|(p, r)| Op::Ranges(p, r)),
        1 => (path.clone(), path.clone()).prop_map(|(a, b)| Op::Copy(a, b)),
        1 => (path.clone(), path.clone()).prop_map(|(a, b)| Op::Rename(a, b)),
        1 => path.clone().prop_map(Op::Delete),
        1 => path.prop_map(Op::Head),
        1 => Just(Op::List),
        1 => Just(Op::Rotate),
        1 => Just(Op::Forget),
    ]
}

fn at(n: u8) -> Path {
    Path::from(format!("dir/{n}"))
}

fn content(len: u32, seed: u32) -> bytes::Bytes {
    let mut data = MARK.to_vec();
    data.extend_from_slice(&pattern(len as usize, seed));
    data.truncate(len as usize);
    data.into()
}

async fn get(
    store: &dyn ObjectStore,
    path: &Path,
    range: Option<GetRange>,
) -> Option<(Vec<u8>, u64)> {
    let options = GetOptions { range, ..GetOptions::default() };
    let result = store.get_opts(path, options).await.ok()?;
    let size = result.meta.size;
    Some((result.bytes().await.unwrap().to_vec(), size))
}

async fn list(store: &dyn ObjectStore) -> Vec<(Path, u64)> {
    let metas = store.list_with_delimiter(Some(&Path::from("dir"))).await.unwrap().objects;
    metas.into_iter().map(|meta| (meta.location, meta.size)).collect()
}

async fn run(keys: &Keys, ops: Vec<Op>) {
    let (raw, model) = (Arc::new(InMemory::new()), InMemory::new());
    let mut store = keys.store(raw.clone());
    for op in ops {
        match op {
            Op::Put(path, len, seed) => {
                let data = content(len, seed);
                store.put(&at(path), data.clone().into()).await.unwrap();
                model.put(&at(path), data.into()).await.unwrap();
            }
            Op::Multipart(path, lens) => {
                let mut upload = store.put_multipart(&at(path)).await.unwrap();
                let mut data = Vec::new();
                for len in lens {
                    data.extend_from_slice(&content(len, 5));
                    upload.put_part(content(len, 5).into()).await.unwrap();
                }
                upload.complete().await.unwrap();
                model.put(&at(path), data.into()).await.unwrap();
            }
            Op::Get(path, range) => assert_eq!(
                get(&store, &at(path), range.clone()).await,
                get(&model, &at(path), range.clone()).await,
                "{path} {range:?}"
            ),
            Op::Ranges(path, ranges) => {
                let ranges: Vec<_> =
                    ranges.iter().map(|(a, len)| u64::from(*a)..u64::from(a + len)).collect();
                let found = store.get_ranges(&at(path), &ranges).await;
                // The model clamps each range alone; ours may refuse one past the end.
                if let Ok(found) = found {
                    for (found, range) in found.iter().zip(&ranges) {
                        let expected = read_range(&model, &at(path), range.clone()).await.unwrap();
                        assert_eq!(*found, expected);
                    }
                } else {
                    let size = model.head(&at(path)).await.map_or(0, |meta| meta.size);
                    assert!(ranges.iter().any(|range| range.start >= size));
                }
            }
            Op::Copy(from, to) => assert_eq!(
                store.copy(&at(from), &at(to)).await.is_ok(),
                model.copy(&at(from), &at(to)).await.is_ok()
            ),
            Op::Rename(from, to) if from != to => assert_eq!(
                store.rename(&at(from), &at(to)).await.is_ok(),
                model.rename(&at(from), &at(to)).await.is_ok()
            ),
            Op::Rename(..) => {}
            Op::Delete(path) => {
                store.delete(&at(path)).await.unwrap();
                model.delete(&at(path)).await.unwrap();
            }
            Op::Head(path) => assert_eq!(
                store.head(&at(path)).await.ok().map(|meta| meta.size),
                model.head(&at(path)).await.ok().map(|meta| meta.size)
            ),
            Op::List => assert_eq!(list(&store).await, list(&model).await),
            Op::Rotate => drop(keys.keyring.keys().rotate().unwrap()),
            Op::Forget => store = keys.store(raw.clone()),
        }
    }
    for (path, size) in list(&model).await {
        assert_eq!(read(&store, &path).await.unwrap(), read(&model, &path).await.unwrap());
        let raw = read(&*raw, &path).await.unwrap();
        let tags = match keys.integrity {
            Integrity::Confidential => 0,
            Integrity::Authenticated => 16 * size.div_ceil(4096) + 16,
        };
        assert_eq!(raw.len() as u64, 4096 + size + tags);
        assert!(!raw.windows(MARK.len()).any(|window| window == MARK), "plaintext in {path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    #[test]
    fn it_behaves_like_a_plain_store(ops in prop::collection::vec(op(), 1..40)) {
        // Making a keyring is slower than the rest; a rotated one serves as well.
        static KEYS: std::sync::LazyLock<[Keys; 2]> = std::sync::LazyLock::new(Keys::both);
        for keys in &*KEYS {
            futures_executor::block_on(run(keys, ops.clone()));
        }
    }
}
