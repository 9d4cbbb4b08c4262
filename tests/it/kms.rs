//! The local key providers.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use atrest::error::KmsErrorKind;
use atrest::keyring::{KeyringStorage, MemoryStorage};
use atrest::kms::{self, Deadline, Kms, KmsError, SlotKey, WrapContext, generate_key_file};
use atrest::{ErrorKind, Keyring, SlotKeyId, StoreId};

use crate::support::{key_file, kind, left_out, manual};

fn context() -> WrapContext {
    WrapContext {
        store_id: StoreId::from_bytes([1; 16]),
        slot_key_id: SlotKeyId::from_bytes([2; 16]),
        version: 1,
    }
}

fn deadline() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

fn slot_key() -> SlotKey {
    SlotKey::from_slice(&[0x33; 32]).unwrap()
}

fn refused<T>(result: Result<T, KmsError>) -> KmsErrorKind {
    match result {
        Ok(_) => panic!("expected an error"),
        Err(error) => error.kind(),
    }
}

fn write_key(path: &Path, bytes: &[u8], mode: u32) {
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Wraps, unwraps, and refuses every change of blob and context.
fn check_provider(kms: &dyn Kms) {
    let wrapped = kms.wrap(&slot_key(), &context(), deadline()).unwrap();
    let key = kms.unwrap(&wrapped, &context(), deadline()).unwrap();
    assert_eq!(key.expose(), slot_key().expose());
    let again = kms.wrap(&slot_key(), &context(), deadline()).unwrap();
    assert_ne!(again.blob, wrapped.blob, "a fresh salt each time");
    assert!(!wrapped.blob.windows(8).any(|window| window == &slot_key().expose()[..8]));
    let mut other = [context(); 3];
    other[0].store_id = StoreId::from_bytes([9; 16]);
    other[1].slot_key_id = SlotKeyId::from_bytes([9; 16]);
    other[2].version = 2;
    for context in other {
        let answer = kms.unwrap(&wrapped, &context, deadline());
        assert_eq!(refused(answer), KmsErrorKind::Integrity);
    }
    let len = wrapped.blob.len();
    for at in [len - 80, len - 49, len - 48, len - 17, len - 16, len - 1] {
        let mut bad = wrapped.clone();
        bad.blob[at] ^= 1;
        let answer = kms.unwrap(&bad, &context(), deadline());
        assert_eq!(refused(answer), KmsErrorKind::Integrity, "byte {at}");
    }
    for cut in [0, 1, len - 1] {
        let mut bad = wrapped.clone();
        bad.blob.truncate(cut);
        let answer = kms.unwrap(&bad, &context(), deadline());
        assert_eq!(refused(answer), KmsErrorKind::Integrity);
    }
    let mut bad = wrapped.clone();
    bad.blob.push(0);
    assert_eq!(refused(kms.unwrap(&bad, &context(), deadline())), KmsErrorKind::Integrity);
}

#[test]
fn key_files_of_cockroachdb_are_read() {
    let dir = tempfile::tempdir().unwrap();
    for len in [48, 56, 64] {
        let path = dir.path().join(format!("aes-{len}.key"));
        let bytes: Vec<u8> = (0..len).collect();
        write_key(&path, &bytes, 0o600);
        let kms = key_file(&path);
        check_provider(&*kms);
        let wrapped = kms.wrap(&slot_key(), &context(), deadline()).unwrap();
        // Id and key both count.
        for at in [0, 31, 32, len - 1] {
            let mut other = bytes.clone();
            other[usize::from(at)] ^= 1;
            write_key(&path, &other, 0o600);
            let answer = kms.unwrap(&wrapped, &context(), deadline());
            assert_eq!(refused(answer), KmsErrorKind::Integrity, "byte {at} of {len}");
        }
    }
    for len in [0, 1, 31, 32, 47, 49, 63, 65, 66, 5000] {
        let path = dir.path().join("bad.key");
        write_key(&path, &vec![7; len], 0o600);
        let answer = key_file(&path).wrap(&slot_key(), &context(), deadline());
        assert_eq!(refused(answer), KmsErrorKind::Misconfigured, "{len} bytes");
    }
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cmek.key");
    generate_key_file(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 64);
    // A file of root's may be read by its group: see below.
    let ours = std::fs::metadata(&path).unwrap().uid() == 0;
    let others = [0o604, 0o660, 0o620, 0o602, 0o610, 0o601].map(|mode| (mode, false));
    for (mode, good) in [(0o400, true), (0o600, true), (0o640, ours)].into_iter().chain(others) {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        match key_file(&path).wrap(&slot_key(), &context(), deadline()) {
            Ok(_) => assert!(good, "{mode:o}"),
            Err(error) => {
                assert!(!good, "{mode:o}");
                assert_eq!(error.kind(), KmsErrorKind::Misconfigured);
                assert!(error.to_string().contains(&format!("{mode:04o}")), "{error}");
            }
        }
    }
    // Other lengths, and what is no file: never waited for, never cut or filled up.
    let other = dir.path().join("other.key");
    for len in [0, 1, 31, 32, 47, 49, 55, 57, 63, 65, 100_000] {
        write_key(&other, &vec![7; len], 0o600);
        let answer = key_file(&other).wrap(&slot_key(), &context(), deadline());
        assert_eq!(refused(answer), KmsErrorKind::Misconfigured, "{len} bytes");
    }
    let answer = key_file(dir.path()).wrap(&slot_key(), &context(), deadline());
    assert_eq!(refused(answer), KmsErrorKind::Misconfigured, "a directory");
    // A key that may be in use is never overwritten.
    let before = std::fs::read(&path).unwrap();
    let again = generate_key_file(&path);
    assert_eq!(kind(again), ErrorKind::Io(std::io::ErrorKind::AlreadyExists));
    assert_eq!(std::fs::read(&path).unwrap(), before);
    std::fs::remove_file(&path).unwrap();
    let gone = key_file(&path).unwrap(&wrapped_by_nobody(), &context(), deadline());
    assert_eq!(refused(gone), KmsErrorKind::NotFound);
}

/// What Kubernetes mounts for a pod that is not root: files of root's, for the group of
/// `fsGroup`, behind two links of which the second is exchanged when the secret changes.
#[test]
fn a_secret_of_a_pod_is_read_through_its_links() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for (version, byte) in [("..1", 1), ("..2", 2)] {
        std::fs::create_dir(path(version)).unwrap();
        write_key(&path(version).join("cmek.key"), &[byte; 64], 0o440);
    }
    let as_root = std::fs::metadata(path("..1/cmek.key")).unwrap().uid() == 0;
    symlink("..1", path("..data")).unwrap();
    symlink("..data/cmek.key", path("cmek.key")).unwrap();
    let kms = key_file(&path("cmek.key"));
    if !as_root {
        // Then the files are this user's, and only a group of root's file is let in.
        let refusal = kms.wrap(&slot_key(), &context(), deadline());
        assert_eq!(refused(refusal), KmsErrorKind::Misconfigured);
        return left_out("only root gives a group what it owns: not what the links lead to");
    }
    let wrapped = kms.wrap(&slot_key(), &context(), deadline()).unwrap();
    symlink("..2", path("..new")).unwrap();
    std::fs::rename(path("..new"), path("..data")).unwrap();
    let exchanged = kms.unwrap(&wrapped, &context(), deadline());
    assert_eq!(refused(exchanged), KmsErrorKind::Integrity, "it is another key now");
    // Of another owner's file the group is refused, as before.
    chown(path("..1/cmek.key"), Some(999), None).unwrap();
    let foreign = key_file(&path("..1/cmek.key")).wrap(&slot_key(), &context(), deadline());
    assert_eq!(refused(foreign), KmsErrorKind::Misconfigured);
}

/// The mode that is looked at is the one of the bytes that are read, whatever the name leads
/// to in between: a private file and one that all may read take turns under one name.
#[test]
fn a_link_that_is_exchanged_between_two_looks_gains_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    write_key(&path("private"), &[1; 64], 0o600);
    write_key(&path("public"), &[2; 64], 0o644);
    let private = key_file(&path("private"));
    let wrapped = private.wrap(&slot_key(), &context(), deadline()).unwrap();
    symlink("private", path("link")).unwrap();
    let kms = key_file(&path("link"));
    let over = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for target in ["public", "private"].into_iter().cycle() {
                if over.load(order) {
                    return;
                }
                symlink(target, path("next")).unwrap();
                std::fs::rename(path("next"), path("link")).unwrap();
            }
        });
        for _ in 0..2000 {
            match kms.unwrap(&wrapped, &context(), deadline()) {
                Ok(key) => assert_eq!(key.expose(), slot_key().expose()),
                Err(error) => assert_eq!(error.kind(), KmsErrorKind::Misconfigured, "{error}"),
            }
        }
        over.store(true, order);
    });
}

#[test]
fn text_where_a_key_is_expected_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text.key");
    let hex = "0123456789abcdef".repeat(4);
    let base64 = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWZnaGlq";
    let words = "correct horse battery staple, which is no key but a passphrase!!";
    let binary_id = [&[0x80; 32][..], b"00112233445566778899aabbccddeeff"].concat();
    for text in [
        hex.as_bytes(),
        format!("{hex}\n").as_bytes(),
        &hex.as_bytes()[..56],
        base64.as_bytes(),
        format!("{}\r\n", &base64[..46]).as_bytes(),
        words.as_bytes(),
        &binary_id,
        &binary_id[..48],
    ] {
        write_key(&path, text, 0o600);
        let error = key_file(&path).wrap(&slot_key(), &context(), deadline()).unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Misconfigured);
        let said = error.to_string();
        assert!(said.contains(&format!("found {} characters of text", text.len())), "{said}");
        assert!(!said.contains("0011") && !said.contains("QUJ"), "{said}");
    }
    for _ in 0..200 {
        drop(std::fs::remove_file(&path));
        generate_key_file(&path).unwrap();
        key_file(&path).wrap(&slot_key(), &context(), deadline()).expect("random bytes");
    }
}

#[test]
fn what_is_no_key_file_is_refused_without_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let socket = dir.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let sparse = dir.path().join("sparse");
    write_key(&sparse, b"", 0o600);
    let file = std::fs::OpenOptions::new().write(true).open(&sparse).unwrap();
    file.set_len(10 << 30).unwrap();
    for path in [&*pipe, dir.path(), Path::new("/dev/zero"), Path::new("/dev/tty"), &sparse] {
        // Whatever happens, it ends: a call that waits would outlast the test's own time.
        let error = key_file(path).wrap(&slot_key(), &context(), deadline()).unwrap_err();
        let expected = [KmsErrorKind::Misconfigured, KmsErrorKind::Unreachable];
        assert!(expected.contains(&error.kind()), "{}: {error}", path.display());
    }
    let error = key_file(&socket).wrap(&slot_key(), &context(), deadline()).unwrap_err();
    assert!(!error.kind().denies_access(), "{error}");
}

fn wrapped_by_nobody() -> kms::WrappedKey {
    kms::WrappedKey { key_version: String::new(), blob: vec![0; 80] }
}

#[test]
fn malformed_uris_are_refused() {
    for uri in [
        "",
        "file",
        ":x",
        "1a:x",
        "file:relative",
        "file://host/path",
        "env:",
        "env:a b",
        "env:A-B",
        "gopher:x",
        "file:///a\nb",
        "file:///a b",
        "passphrase:in-the-uri",
    ] {
        let answer = kms::from_uri(uri);
        assert_eq!(refused(answer), KmsErrorKind::Misconfigured, "{uri:?}");
    }
    assert_eq!(
        refused(kms::from_uri(&format!("file:///{}", "a".repeat(2048)))),
        KmsErrorKind::Misconfigured
    );
    assert_eq!(kms::from_uri("FILE:///a").unwrap().key_uri().as_str(), "file:///a");
}

/// Whoever mistakes the place of a key for that of its name does not find it in a log.
#[test]
fn what_may_be_the_key_itself_is_not_shown() {
    let (key, key_of_letters) = ("0123456789abcdef".repeat(4), "abcdefab".repeat(8));
    for (uri, scheme) in [
        ("passphrase:correct horse".to_owned(), "passphrase:"),
        ("passphrase:correcthorse".to_owned(), "passphrase:"),
        ("correct horse".to_owned(), ""),
        ("correcthorse".to_owned(), ""),
        (key.clone(), ""),
        (format!("env:{key}"), ""),
        (format!("env:{key_of_letters}"), ""),
        (format!("env:{key}+"), ""),
        (format!("env:{key} "), "env:"),
        (format!("password:{key}"), "password"),
        (format!("{key_of_letters}: "), ""),
    ] {
        let error = kms::from_uri(&uri).map(drop).unwrap_err();
        assert_eq!(error.kind(), KmsErrorKind::Misconfigured, "{uri}");
        for said in [error.to_string(), format!("{error:?}")] {
            let kept =
                [&key[..8], &key_of_letters[..8], "horse"].iter().all(|it| !said.contains(it));
            assert!(kept && said.contains(scheme), "{said}");
        }
    }
}

/// Environment variables are the process's: this test runs itself in another one.
#[test]
fn a_key_in_the_environment() {
    const NAME: &str = "ATREST_TEST_CMEK";
    if std::env::var_os(NAME).is_some() {
        check_provider(&*kms::from_uri(&format!("env:{NAME}")).unwrap());
        return;
    }
    let answer =
        kms::from_uri(&format!("env:{NAME}")).unwrap().wrap(&slot_key(), &context(), deadline());
    assert_eq!(refused(answer), KmsErrorKind::NotFound);
    let child = |value: &str| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "kms::a_key_in_the_environment"])
            .env(NAME, value)
            .output()
            .unwrap()
            .status
            .success()
    };
    assert!(child(&"0f".repeat(32)));
    assert!(child(&format!(" {}\n", "0F".repeat(32))));
    assert!(!child(&"0f".repeat(31)));
    assert!(!child(&"0g".repeat(32)));
}

#[cfg(feature = "passphrase")]
#[test]
fn a_passphrase() {
    use atrest::kms::Passphrase;
    let kms = Passphrase::new("correct horse".into()).unwrap();
    let wrapped = kms.wrap(&slot_key(), &context(), deadline()).unwrap();
    assert_eq!(wrapped.blob.len(), 108);
    let key = kms.unwrap(&wrapped, &context(), deadline()).unwrap();
    assert_eq!(key.expose(), slot_key().expose());
    let other = Passphrase::new("correct horsf".into()).unwrap();
    let answer = other.unwrap(&wrapped, &context(), deadline());
    assert_eq!(refused(answer), KmsErrorKind::Integrity);
    assert_eq!(refused(Passphrase::new(String::new())), KmsErrorKind::Misconfigured);
    assert!(!format!("{kms:?}").contains("horse"));
    // No text is made another: composed and decomposed, with and without what ends a line.
    let words = |words: &str| Passphrase::new(words.to_owned()).unwrap();
    let composed = words("caf\u{e9}").wrap(&slot_key(), &context(), deadline()).unwrap();
    for other in [
        "cafe\u{301}",
        "caf\u{e9}\n",
        "caf\u{e9}\r",
        " caf\u{e9}",
        "\u{feff}caf\u{e9}",
        "Caf\u{e9}",
    ] {
        let answer = words(other).unwrap(&composed, &context(), deadline());
        assert_eq!(refused(answer), KmsErrorKind::Integrity, "{other:?}");
    }
    // Costs are bounded before anything is computed; lower ones do not help.
    for (at, value) in [(0, u32::MAX), (4, 17), (8, 17), (0, 0), (4, 0), (8, 0), (0, 1024)] {
        let mut bad = wrapped.clone();
        bad.blob[at..at + 4].copy_from_slice(&value.to_le_bytes());
        let answer = kms.unwrap(&bad, &context(), deadline());
        assert_eq!(refused(answer), KmsErrorKind::Integrity, "{value} at {at}");
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digits).collect()
}

/// The keyring that `tests/vectors/make.py` wrote from the format's text alone.
#[test]
fn a_keyring_made_by_another_program_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cmek.key");
    write_key(&path, &[[1; 32], [2; 32]].concat(), 0o600);
    let storage = MemoryStorage::new();
    storage.commit(include_bytes!("../vectors/keyring-v2.bin"), 3, None).unwrap();
    let keyring = Keyring::open_read_only(storage, key_file(&path), manual()).unwrap();
    let status = keyring.status();
    assert_eq!(status.info.generation, 3);
    assert_eq!(status.info.slots[1].key_version, "7");
    assert_eq!(status.data_keys.len(), 3);
    assert_eq!(status.settings.rotation_bytes, Some(1 << 40));
    assert_eq!(status.history.len(), 2);
    // A file of the known answers opens under it.
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../vectors/format-v1.json")).unwrap();
    let mut header: Vec<u8> = ["header_prefix", "commitment", "checksum"]
        .iter()
        .flat_map(|part| hex(vectors["ctr"][part].as_str().unwrap()))
        .collect();
    header.resize(4096, 0);
    let header = atrest::Header::parse(&header).unwrap();
    let decryptor = keyring.decryptor(&header, &atrest::Expect::default()).unwrap();
    let mut body = [0; 4];
    decryptor.decrypt_in_place(0, &mut body).unwrap();
    assert_eq!(body, [0x1c, 0x4b, 0x2c, 0x95]);
}
