//! The same answers as a plain index, and nothing to read on the disk.

use atrest::Integrity;
use tantivy::directory::RamDirectory;
use tantivy::{Directory, Index};

use crate::support::{Place, Texts, header, texts};

/// Built in steps, with deletions, then merged.
fn build(directory: impl Into<Box<dyn Directory>>) -> Texts {
    let index = Texts::create(directory);
    let mut writer = index.writer();
    for (step, texts) in texts().chunks(60).enumerate() {
        for (i, text) in texts.iter().enumerate() {
            index.add(&writer, (step * 60 + i) as u64, text).unwrap();
        }
        writer.commit().unwrap();
    }
    index.merge(&mut writer);
    writer.wait_merging_threads().unwrap();
    index
}

#[test]
fn has_the_answers_of_a_plain_one() {
    let plain = build(RamDirectory::create());
    for integrity in Integrity::ALL {
        let place = Place::new(integrity);
        let store = place.store();
        build(place.directory(&store));
        let encrypted = Texts::of(Index::open(place.directory(&store)).unwrap());
        let mut found = 0;
        for words in ["keyring", "\"data key\"", "header AND salt", "nonce OR revoked", "zzz"] {
            let answer = encrypted.search(words).unwrap();
            assert_eq!(answer, plain.search(words).unwrap(), "{words}");
            found += answer.0;
        }
        assert!(found > 50, "{found}");

        let files = place.files();
        assert!(files.len() > 6, "{files:?}");
        for path in files {
            let authenticated = integrity == Integrity::Authenticated;
            assert_eq!(header(&path).suite.is_authenticated(), authenticated, "{path:?}");
            let bytes = std::fs::read(&path).unwrap();
            for word in ["keyring", "revoked", "segment", "number"] {
                let at = bytes.windows(word.len()).position(|window| window == word.as_bytes());
                assert_eq!(at, None, "{word} in {path:?}");
            }
        }
    }
}
