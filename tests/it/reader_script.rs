//! `tests/reader.py`, which knows `docs/FORMAT.md` and nothing else, reads our stores.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use atrest::{FileKind, FileSpec, Suite};

use crate::support::{TestStore, key_file};

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader.py")
}

/// Whether the script can run. Where everything has to be there, its absence fails.
pub fn available() -> bool {
    let import = Command::new("python3").args(["-c", "import cryptography"]).output();
    let available = import.is_ok_and(|output| output.status.success());
    let required = std::env::var_os("ATREST_REQUIRE_SERVERS").is_some_and(|value| value == "1");
    assert!(available || !required, "python3 with the package cryptography is missing");
    if !available {
        eprintln!("SKIPPED: python3 with the package cryptography is missing");
    }
    available
}

fn run(dir: &Path, key: &Path, files: &[PathBuf]) -> Output {
    let mut command = Command::new("python3");
    command.arg(script()).arg(dir).arg("--key-file").arg(key).args(files).output().unwrap()
}

/// What it says of a keyring.
pub fn list(dir: &Path, key: &Path) -> serde_json::Value {
    let output = run(dir, key, &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The plaintext of files one after the other, or why one is refused.
pub fn decrypt(dir: &Path, key: &Path, files: &[PathBuf]) -> Result<Vec<u8>, String> {
    let output = run(dir, key, files);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(output.stdout) } else { Err(said) }
}

fn read(store: &TestStore, key: &str, files: &[&str]) -> Output {
    let files: Vec<_> = files.iter().map(|file| store.data().join(file)).collect();
    run(&store.data(), &store.dir.path().join(key), &files)
}

#[test]
fn an_independent_reader_decrypts_a_store() {
    if !available() {
        return;
    }
    let store = TestStore::new();
    let fs = store.fs();
    let mut expected = Vec::new();
    let write = |name: &str, suite, len: usize| {
        let spec = FileSpec::new(FileKind::Table).suite(suite).file_id(len as u64);
        let mut writer = fs.create_new(store.data().join(name), spec).unwrap();
        let plain: Vec<u8> = (0..len).map(|i| (i * 131 + 7) as u8).collect();
        plain.chunks(10_007).for_each(|piece| writer.append(piece).unwrap());
        writer.finish().unwrap();
        plain
    };
    let mut names = Vec::new();
    for (suite, letter) in
        [(Suite::Aes256Ctr, 'c'), (Suite::Aes256GcmChunks, 'g'), (Suite::Aes256GcmLog, 'l')]
    {
        for len in [0, 1, 4096, 4097, 100_000] {
            names.push(format!("{letter}{len}"));
            expected.extend(write(names.last().unwrap(), suite, len));
            fs.keyring().keys().rotate().unwrap();
        }
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    // Under each hierarchy the store goes through.
    let check = |key: &str| {
        let output = read(&store, key, &names);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout == expected, "other plaintext under {key}");
    };
    check("cmek.key");
    fs.keyring().keys().rotate_store_key().unwrap();
    check("cmek.key");
    let new = store.dir.path().join("new.key");
    atrest::kms::generate_key_file(&new).unwrap();
    fs.keyring().slots().rotate(key_file(&new)).unwrap();
    check("new.key");
    // What it is told about the keys is what the library says.
    let listed = list(&store.data(), &store.dir.path().join("new.key"));
    let status = fs.keyring().status();
    assert_eq!(listed["generation"], status.info.generation);
    assert_eq!(listed["store_id"], status.info.store_id.to_string());
    let ids: Vec<_> = status.data_keys.iter().map(|key| key.id.to_string()).collect();
    let listed: Vec<_> = listed["keys"].as_array().unwrap().iter().map(|key| &key["id"]).collect();
    assert_eq!(listed, ids.iter().collect::<Vec<_>>());

    // And it refuses what has to be refused.
    let refuses = |key: &str, file: &str, what: &str| {
        let output = read(&store, key, &[file]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(what), "expected {what:?}, found {said}");
    };
    refuses("cmek.key", "c1", "another key wrapped this slot key");
    let edited = |name: &str, edit: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = std::fs::read(store.data().join(name)).unwrap();
        edit(&mut bytes);
        std::fs::write(store.data().join("edited"), bytes).unwrap();
    };
    edited("c100000", &|bytes| bytes[20] ^= 1);
    refuses("new.key", "edited", "corrupt header");
    edited("c100000", &|bytes| bytes.truncate(4095));
    refuses("new.key", "edited", "truncated header");
    edited("g100000", &|bytes| bytes[50_000] ^= 1);
    refuses("new.key", "edited", "authentication failed");
    edited("g100000", &|bytes| bytes.truncate(4096 + 16_384));
    refuses("new.key", "edited", "authentication failed");
    // A log ends where it is torn: its frames have 10,007 bytes each.
    let frame = 4096 + 10_027;
    type Edit<'a> = (&'a dyn Fn(&mut Vec<u8>), &'a str);
    let torn: [Edit<'_>; 4] = [
        (&|bytes| bytes[frame + 9] ^= 1, "authentication"),
        (&|bytes| bytes[frame] ^= 1 << 7, "length"),
        (&|bytes| bytes.truncate(frame + 3), "cut"),
        (&|bytes| bytes[frame..].fill(0), "zeros"),
    ];
    let whole = read(&store, "new.key", &["l100000"]).stdout;
    for (edit, reason) in torn {
        edited("l100000", edit);
        let output = read(&store, "new.key", &["edited"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && output.stdout == whole[..10_007], "{reason}: {said}");
        assert!(said.contains(&format!("torn at frame 1, offset 10007: {reason}")), "{said}");
    }
    edited("c1", &|bytes| bytes.clear());
    refuses("new.key", "edited", "empty file");
    edited("c1", &|bytes| bytes[0] = b'x');
    refuses("new.key", "edited", "not encrypted");
}
