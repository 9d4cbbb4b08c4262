//! No keystream covers two plaintexts, however a store was copied. Every test of this binary runs
//! under the oracle of `src/cipher/oracle.rs`; these look without it too, and show that it speaks.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use atrest::simulation::seed_randomness;
use atrest::store::StorePlace;
use atrest::{EncryptedFs, FileKind, FileSpec, HEADER_LEN, Store, Suite};
use atrest_testkit::{MemFs, ScriptedKms};

use crate::support::{
    DIR, ManualClock, TestStore, killed, manual, mem_create, mem_open, mem_storage, options,
};

/// Set in the process whose randomness repeats.
const REPEATS: &str = "ATREST_KEYSTREAM_REPEATS";
const LEN: usize = 10_000;

/// Writes one file of each suite, whose plaintext follows from `seed`.
fn write(fs: &EncryptedFs, dir: &Path, seed: u8) -> Vec<(Suite, std::path::PathBuf, Vec<u8>)> {
    let file = |suite: Suite| {
        let path = dir.join(format!("{seed}-{suite:?}"));
        let plain: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8 ^ seed).collect();
        let spec = FileSpec::new(FileKind::Log).suite(suite);
        let mut writer = fs.create_new(&path, spec).unwrap();
        plain.chunks(3_001).for_each(|piece| writer.append(piece).unwrap());
        writer.finish().unwrap();
        (suite, path, plain)
    };
    Suite::ALL.into_iter().map(file).collect()
}

/// Adds what a file was covered with, block by block. Says which block was seen before.
fn add(seen: &mut HashSet<[u8; 16]>, suite: Suite, file: &[u8], plain: &[u8]) -> Option<usize> {
    let body = &file[HEADER_LEN..];
    // Of a log the pieces; of chunks the ciphertexts, which stand in one run.
    let covered: Vec<(&[u8], &[u8])> = match suite {
        Suite::Aes256GcmLog => {
            let pieces = plain.chunks(3_001).enumerate();
            pieces.map(|(n, piece)| (&body[4 + n * 3_021..][..piece.len()], piece)).collect()
        }
        _ => vec![(&body[..plain.len()], plain)],
    };
    let mut blocks = covered.iter().flat_map(|(sealed, plain)| {
        let blocks = sealed.chunks_exact(16).zip(plain.chunks_exact(16));
        blocks.map(|(sealed, plain)| std::array::from_fn(|at| sealed[at] ^ plain[at]))
    });
    blocks.position(|block: [u8; 16]| !seen.insert(block))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

#[test]
fn copies_of_a_directory_that_are_written_beside_each_other_share_no_keystream() {
    let original = TestStore::new();
    let fs = original.fs();
    let mut seen = HashSet::new();
    let mut look = |written: Vec<(Suite, std::path::PathBuf, Vec<u8>)>| {
        for (suite, path, plain) in written {
            let again = add(&mut seen, suite, &std::fs::read(&path).unwrap(), &plain);
            assert_eq!(again, None, "{path:?}");
        }
    };
    look(write(&fs, &original.data(), 1));
    let active = fs.keyring().keys().active_id().unwrap();
    // One of them while the original is in use, and one of that one.
    let copies = ["copy", "copy of the copy"].map(|name| original.dir.path().join(name));
    copy(&original.data(), &copies[0]);
    copy(&copies[0], &copies[1]);
    let stores = copies.map(|dir| {
        let store = Store::open(&dir, original.kms(), manual()).unwrap();
        assert_ne!(store.keys().active_id().unwrap(), active, "a copy goes on with its own key");
        (dir, store)
    });
    // The same names, lengths and moments in all three, with other bytes.
    for round in 0..4 {
        look(write(&fs, &original.data(), 10 + round));
        for (number, (dir, store)) in stores.iter().enumerate() {
            look(write(store.files(), dir, 20 + 100 * number as u8 + round));
            store.keys().rotate().unwrap();
        }
        fs.keyring().keys().rotate().unwrap();
    }
    assert_eq!(seen.len(), 3 * (1 + 3 * 4) * (LEN / 16) - 13 * 2, "blocks looked at");
}

/// As of a machine whose disk was copied: nothing on it tells.
#[test]
fn copies_that_cannot_know_it_share_no_keystream() {
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new("customer"));
    let fs = mem_create(&mem, &kms).unwrap();
    write(&fs, Path::new(DIR), 1);
    let active = fs.keyring().keys().active_id().unwrap();
    let one = killed(&mem, fs);
    let other = one.fork();
    let mut seen = HashSet::new();
    for (mem, seed) in [(&one, 2), (&other, 3)] {
        let fs = mem_open(mem, &kms).unwrap();
        assert_eq!(fs.keyring().keys().active_id().unwrap(), active, "they go on under one key");
        for (suite, path, plain) in write(&fs, Path::new(DIR), seed) {
            assert_eq!(add(&mut seen, suite, &mem.read(&path).unwrap(), &plain), None, "{path:?}");
        }
    }
}

/// What no machine should do: both copies draw the same salts. The bytes that meet under one
/// counter are seen by the oracle, in each suite, and by nothing else here.
#[test]
fn the_oracle_stops_copies_whose_randomness_repeats() {
    if std::env::var_os(REPEATS).is_none() {
        // Whatever is drawn meanwhile in this process would repeat too.
        let mut child = Command::new(std::env::current_exe().unwrap());
        let test = "keystream::the_oracle_stops_copies_whose_randomness_repeats";
        let output = child.args(["--exact", test, "--nocapture"]).env(REPEATS, "1").output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.contains("1 passed"), "{said}{errors}");
        return;
    }
    let (mem, kms) = (MemFs::new(DIR), ScriptedKms::new("customer"));
    let fs = mem_create(&mem, &kms).unwrap();
    let one = killed(&mem, fs);
    // A file's key follows from its time of creation, too.
    let clock = Arc::new(ManualClock::new());
    let copies = [one.fork(), one].map(|mem| {
        let place = StorePlace::new(mem_storage(&mem), Arc::new(mem.clone()));
        Store::open(place, kms.clone(), options(&clock)).unwrap().files().clone()
    });
    for suite in Suite::ALL {
        let write = |fs: &EncryptedFs, byte: u8| {
            seed_randomness(Some(&[suite as u8]));
            let spec = FileSpec::new(FileKind::Log).suite(suite);
            let mut writer = fs.create_new(Path::new(DIR).join(format!("{suite:?}")), spec)?;
            writer.append(&[byte; LEN])?;
            writer.finish()
        };
        write(&copies[0], 1).unwrap();
        let told = catch_unwind(AssertUnwindSafe(|| write(&copies[1], 2))).unwrap_err();
        let told = told.downcast_ref::<String>().expect("a message");
        assert!(told.contains("encrypt a second time"), "{suite:?}: {told}");
    }
}
