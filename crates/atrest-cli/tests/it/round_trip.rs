//! What goes in comes out.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Bench, contains};

fn sample(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 131 + i / 251) as u8).collect()
}

#[test]
fn files_and_standard_input_come_back() {
    let bench = Bench::new();
    for (index, len) in [0, 1, 4095, 4096, 300_001].into_iter().enumerate() {
        let data = sample(len);
        let (file, piped) = (format!("f{index}"), format!("p{index}"));
        bench.write("src", &data);
        bench.good(&["encrypt", "data", "src", &file, "--kind", "table"]);
        let run = bench.run_with(&["encrypt", "data", "-", &piped], &[], &data);
        assert_eq!(run.code, 0, "{}", run.stderr);
        for name in [&file, &piped] {
            assert!(bench.good(&["decrypt", "data", name]) == data);
            assert!(bench.good(&["decrypt", "data", name, "-o", "-"]) == data);
            let stored = bench.read(&format!("data/{name}"));
            assert_eq!(stored.len(), len + 4096);
            assert!(len < 32 || !contains(&stored, &data[..32]));
        }
    }
    // Encrypting the same twice gives nothing in common but the header's public part.
    assert_ne!(bench.read("data/f4")[4096..], bench.read("data/p4")[4096..]);
}

#[test]
fn an_output_file_is_whole_private_and_not_overwritten() {
    let bench = Bench::new();
    bench.write("src", &sample(70_000));
    bench.good(&["encrypt", "data", "src", "f"]);
    bench.good(&["decrypt", "data", "f", "-o", "out"]);
    assert!(bench.read("out") == sample(70_000));
    let mode = fs::metadata(bench.path("out")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    bench.write("out", b"precious");
    bench.bad(8, "io-already-exists", &["decrypt", "data", "f", "-o", "out"]);
    assert_eq!(bench.read("out"), b"precious");
    bench.good(&["decrypt", "data", "f", "-o", "out", "--force"]);
    assert!(bench.read("out") == sample(70_000));
    assert_eq!(bench.good(&["decrypt", "data", "f", "-o", "/dev/stdout"])[..50], sample(50));
    assert_eq!(bench.names("."), ["cmek.key", "data", "out", "src"]);
}

#[test]
fn a_name_is_replaced_only_by_force_and_under_a_new_key() {
    let bench = Bench::new();
    bench.write("src", b"one");
    bench.good(&["encrypt", "data", "src", "f"]);
    let first = bench.read("data/f");
    bench.write("src", b"two");
    bench.bad(8, "io-already-exists", &["encrypt", "data", "src", "f"]);
    assert_eq!(bench.read("data/f"), first);
    bench.good(&["encrypt", "data", "src", "f", "--force"]);
    assert_eq!(bench.good(&["decrypt", "data", "f"]), b"two");
    // Another salt: never the same keystream twice.
    assert_ne!(bench.read("data/f")[96..128], first[96..128]);
    // Each of the two that encrypted kept its count.
    let names = ["KEYRING", "KEYRING.1", "KEYRING.2", "KEYRING.lock", "f"];
    assert_eq!(bench.names("data"), names);
}

#[test]
fn every_rotation_keeps_old_files_readable() {
    let mut bench = Bench::new();
    bench.write("src", b"words of old");
    bench.good(&["encrypt", "data", "src", "0"]);
    bench.good(&["rotate", "data-key", "data"]);
    bench.good(&["encrypt", "data", "src", "1"]);
    bench.good(&["rotate", "store-key", "data"]);
    bench.good(&["encrypt", "data", "src", "2"]);
    bench.keygen("new.key");
    let new = bench.uri("new.key");
    bench.good(&["rotate", "cmek", "data", "--new-cmek", &new]);
    for name in ["0", "1", "2"] {
        let plain = bench.good(&["decrypt", "data", name, "--cmek", &new]);
        assert_eq!(plain, b"words of old");
    }
    bench.bad(5, "kms-integrity", &["decrypt", "data", "0"]);
    let status = bench.json(&["status", "data", "--cmek", &new]);
    let keys = status["data_keys"].as_array().unwrap();
    let used = keys.iter().filter(|key| key["files"] == 1).count();
    assert_eq!((keys.len(), used), (3, 3));
}

#[test]
fn a_key_made_once_is_never_overwritten() {
    let bench = Bench::new();
    let path = bench.path("cmek.key");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = bench.read("cmek.key");
    bench.bad(8, "io-already-exists", &["keygen", "cmek.key"]);
    assert_eq!(bench.read("cmek.key"), before);
    bench.bad(7, "io-not-found", &["keygen", "no/such/dir.key"]);
}
