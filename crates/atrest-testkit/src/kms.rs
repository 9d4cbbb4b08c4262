//! What every key service has to do, whichever service is behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use atrest::error::KmsErrorKind;
use atrest::kms::{Deadline, KeyUri, Kms, KmsError, SlotKey, WrapContext, WrappedKey};
use atrest::{SlotKeyId, StoreId};

/// A key service with the means to make keys in it and to take them away.
pub trait Service: Sync {
    /// Makes a new usable key.
    fn new_key(&self) -> KeyUri;

    /// The provider for a key, with working credentials.
    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms>;

    /// Texts that must never show: tokens, passwords, PINs.
    fn secrets(&self) -> Vec<String>;

    /// What this service cannot do.
    fn limits(&self) -> Limits {
        Limits::default()
    }

    /// Makes a new version of the key, where the service has versions.
    fn rotate(&self, _uri: &KeyUri) -> bool {
        false
    }
}

/// What a service, or the emulator of it that can run here, lacks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// The context is not bound by the service; the keyring's HMAC is what binds it.
    pub no_context: bool,
    /// A changed blob is unwrapped to garbage, or not noticed. Emulators only.
    pub no_authentication: bool,
    /// Two wraps of one key are equal.
    pub deterministic: bool,
    /// The kind given for a blob that names another key, if not `Integrity`. Emulators only.
    pub another_key: Option<KmsErrorKind>,
}

/// Loose on purpose: no test is about speed, and the machine may be busy.
pub fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(60))
}

/// A context of one of the stores that a test tells apart.
pub fn context(store: u8) -> WrapContext {
    WrapContext {
        store_id: StoreId::from_bytes([store; 16]),
        slot_key_id: SlotKeyId::from_bytes([0xb2; 16]),
        version: 1,
    }
}

/// A key that is known by its byte.
pub fn key(byte: u8) -> SlotKey {
    let bytes: Vec<u8> = (0..32).map(|at| byte ^ (at * 7)).collect();
    SlotKey::from_slice(&bytes).expect("32 bytes")
}

/// Whether two keys are one.
pub fn same(one: &SlotKey, other: &SlotKey) -> bool {
    one.expose() == other.expose()
}

/// The kind of the error, if there is one.
pub fn kind<T>(result: Result<T, KmsError>) -> Option<KmsErrorKind> {
    result.err().map(|error| error.kind())
}

/// Checks that the blob still opens to the key.
pub fn assert_opens(kms: &dyn Kms, wrapped: &WrappedKey, expected: &SlotKey) {
    match kms.unwrap(wrapped, &context(1), soon()) {
        Ok(found) => assert!(same(&found, expected), "another key came back"),
        Err(error) => panic!("{error}: {error:?}"),
    }
}

/// Holds a key service to the contract of [`Kms`].
///
/// # Panics
/// If it breaks the contract, or an error or a `Debug` shows a secret.
pub fn kms_conformance(service: &dyn Service) {
    let uri = service.new_key();
    let kms = service.open(&uri);
    type Check = fn(&Bench<'_>);
    let checks: [(&str, Check); 9] = [
        ("round trip", round_trip),
        ("blobs are self-contained", self_contained),
        ("context", wrong_context),
        ("changed blobs", changed_blobs),
        ("truncated and extended blobs", wrong_lengths),
        ("blob of another key", another_key),
        ("rewrap and rotation", rotation),
        ("deadline", passed_deadline),
        ("several threads", threads),
    ];
    let bench = Bench { service, kms: &*kms, uri: &uri };
    for (name, check) in checks {
        println!("conformance: {uri}: {name}");
        check(&bench);
    }
}

struct Bench<'a> {
    service: &'a dyn Service,
    kms: &'a dyn Kms,
    uri: &'a KeyUri,
}

impl Bench<'_> {
    fn wrap(&self, key: &SlotKey) -> WrappedKey {
        self.kms.wrap(key, &context(1), soon()).unwrap_or_else(|e| panic!("{e}: {e:?}"))
    }

    /// That a blob which must not open gives `Integrity`, without a secret in the error.
    fn assert_refused(&self, blob: Vec<u8>, context: &WrapContext, why: &str) {
        let wrapped = WrappedKey { key_version: String::new(), blob };
        let error = match self.kms.unwrap(&wrapped, context, soon()) {
            Ok(_) => panic!("{why}: unwrapped"),
            Err(error) => error,
        };
        let expected = [Some(KmsErrorKind::Integrity), self.service.limits().another_key];
        assert!(expected.contains(&Some(error.kind())), "{why}: {error}: {error:?}");
        assert_hides(&error, &self.service.secrets());
    }
}

fn round_trip(bench: &Bench<'_>) {
    assert_eq!(bench.kms.key_uri(), bench.uri);
    for byte in [0, 1, 0xff] {
        let key = key(byte);
        let wrapped = bench.wrap(&key);
        assert!((33..=16 * 1024).contains(&wrapped.blob.len()), "{} bytes", wrapped.blob.len());
        assert!(wrapped.key_version.len() <= 64, "{:?}", wrapped.key_version);
        let shown = |part: &[u8]| wrapped.blob.windows(part.len()).any(|window| window == part);
        assert!(!shown(&key.expose()[..8]), "the blob shows the key");
        assert_opens(bench.kms, &wrapped, &key);
    }
    let once_more = bench.wrap(&key(1));
    if !bench.service.limits().deterministic {
        assert_ne!(once_more.blob, bench.wrap(&key(1)).blob);
    }
    let shown = format!("{:?}", bench.kms);
    for secret in bench.service.secrets() {
        assert!(!shown.contains(&secret), "Debug of the provider shows a secret: {shown}");
        assert!(!bench.uri.as_str().contains(&secret), "the URI holds a secret: {}", bench.uri);
    }
}

/// The blob and the URI are all that is stored: another provider of the same URI opens it,
/// without the version beside it.
fn self_contained(bench: &Bench<'_>) {
    let wrapped = bench.wrap(&key(2));
    let other = bench.service.open(&bench.uri.as_str().parse().expect("a URI"));
    assert_opens(&*other, &WrappedKey { key_version: String::new(), ..wrapped }, &key(2));
}

fn wrong_context(bench: &Bench<'_>) {
    if bench.service.limits().no_context {
        return;
    }
    let wrapped = bench.wrap(&key(3));
    let right = context(1);
    let wrong = [
        WrapContext { store_id: StoreId::from_bytes([9; 16]), ..right },
        WrapContext { slot_key_id: SlotKeyId::from_bytes([9; 16]), ..right },
        WrapContext { version: 2, ..right },
    ];
    for context in wrong {
        bench.assert_refused(wrapped.blob.clone(), &context, &format!("{context:?}"));
    }
}

fn changed_blobs(bench: &Bench<'_>) {
    let blob = bench.wrap(&key(4)).blob;
    for part in 0..8 {
        let mut changed = blob.clone();
        let at = part * (blob.len() - 1) / 7;
        changed[at] ^= 1;
        let why = format!("bit 0 of byte {at} flipped in {} bytes", blob.len());
        if bench.service.limits().no_authentication {
            // The caller's check value catches what this emulator lets pass.
            let wrapped = WrappedKey { key_version: String::new(), blob: changed };
            drop(bench.kms.unwrap(&wrapped, &context(1), soon()));
        } else {
            bench.assert_refused(changed, &context(1), &why);
        }
    }
}

fn wrong_lengths(bench: &Bench<'_>) {
    let blob = bench.wrap(&key(5)).blob;
    for len in [0, 1, 2, blob.len() / 2, blob.len() - 1] {
        if bench.service.limits().no_authentication && len == blob.len() - 1 {
            continue;
        }
        bench.assert_refused(blob[..len].to_vec(), &context(1), &format!("cut to {len} bytes"));
    }
    let mut long = blob;
    long.resize(16 * 1024, 0);
    if !bench.service.limits().no_authentication {
        bench.assert_refused(long, &context(1), "extended to 16 KiB");
    }
}

fn another_key(bench: &Bench<'_>) {
    let other = bench.service.open(&bench.service.new_key());
    let foreign = other.wrap(&key(6), &context(1), soon()).unwrap_or_else(|e| panic!("{e}"));
    assert_opens(&*other, &foreign, &key(6));
    if !bench.service.limits().no_authentication {
        bench.assert_refused(foreign.blob, &context(1), "a blob of another key");
    }
}

fn rotation(bench: &Bench<'_>) {
    let old = bench.wrap(&key(7));
    let rotated = bench.service.rotate(bench.uri);
    let new = bench.kms.rewrap(&old, &context(1), soon()).unwrap_or_else(|e| panic!("{e}: {e:?}"));
    if rotated && !old.key_version.is_empty() {
        assert_ne!(new.key_version, old.key_version);
    }
    assert_opens(bench.kms, &old, &key(7));
    assert_opens(bench.kms, &new, &key(7));
    if !bench.service.limits().no_context {
        let refused = kind(bench.kms.rewrap(&old, &context(9), soon()));
        assert_eq!(refused, Some(KmsErrorKind::Integrity), "rewrap in another context");
    }
}

fn passed_deadline(bench: &Bench<'_>) {
    if matches!(bench.uri.scheme(), "file" | "env" | "passphrase" | "scripted") {
        return; // They wait for nobody.
    }
    let start = Instant::now();
    let passed = Deadline::after(Duration::ZERO);
    let wrapped = bench.wrap(&key(8));
    let refused = kind(bench.kms.wrap(&key(8), &context(1), passed));
    assert_eq!(refused, Some(KmsErrorKind::Unreachable));
    let refused = kind(bench.kms.unwrap(&wrapped, &context(1), passed));
    assert_eq!(refused, Some(KmsErrorKind::Unreachable));
    assert!(start.elapsed() < Duration::from_secs(60));
}

fn threads(bench: &Bench<'_>) {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for turn in 0..3 {
                    let key = key(thread * 16 + turn);
                    let wrapped = bench.wrap(&key);
                    assert_opens(bench.kms, &wrapped, &key);
                }
            });
        }
    });
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

/// That neither the error nor any of its causes shows one of these texts.
pub fn assert_hides(error: &KmsError, secrets: &[String]) {
    let mut shown = format!("{error} {error:?} {error:#?}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        shown += &format!(" {cause} {cause:?}");
        source = cause.source();
    }
    for secret in secrets {
        assert!(!shown.contains(secret.as_str()), "an error shows a secret: {shown}");
    }
    // The keys of these tests, in no form.
    for byte in [0, 1, 2, 3, 4, 5, 6, 7, 8, 0xff] {
        let key = key(byte);
        let bytes = &key.expose()[..12];
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{bytes:?}");
        let list = list.trim_matches(['[', ']']);
        for form in [&hex, &hex.to_uppercase(), &base64(bytes), list] {
            assert!(!shown.contains(form), "an error shows key bytes: {shown}");
        }
    }
}

/// One way to lose access: what to do, the kind that unwrap then gives, how to undo it.
pub struct Denial<'a> {
    /// What the test calls it.
    pub name: &'a str,
    /// Takes the access away.
    pub deny: &'a dyn Fn(),
    /// What unwrap then says.
    pub expected: KmsErrorKind,
    /// Gives it back, where that can be done.
    pub restore: Option<&'a dyn Fn()>,
}

/// Provokes a denial: unwrap works, is refused with the expected kind, and works again.
pub fn check_denial(kms: &dyn Kms, secrets: &[String], denial: &Denial<'_>) {
    println!("denial: {}: {}", kms.key_uri(), denial.name);
    let wrapped = kms
        .wrap(&key(1), &context(1), soon())
        .unwrap_or_else(|e| panic!("{}: {e}: {e:?}", denial.name));
    assert_opens(kms, &wrapped, &key(1));
    (denial.deny)();
    let error = match kms.unwrap(&wrapped, &context(1), soon()) {
        Ok(_) => panic!("{}: still unwraps", denial.name),
        Err(error) => error,
    };
    println!("    {error}");
    assert_eq!(error.kind(), denial.expected, "{}: {error}: {error:?}", denial.name);
    assert!(error.to_string().starts_with(kms.key_uri().as_str()), "the URI is missing: {error}");
    assert_hides(&error, secrets);
    if let Some(restore) = denial.restore {
        restore();
        assert_opens(kms, &wrapped, &key(1));
    }
}
