//! `pkcs11:` against SoftHSM.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use atrest::kms::{KeyUri, Kms, KmsErrorKind};
use atrest_kms::{Environment, from_uri_with};
use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism as CkMechanism;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use crate::conformance::{
    Denial, Limits, Service, assert_hides, assert_opens, check, check_denial, context, key, kind,
    soon,
};
use crate::servers::require;
use crate::servers::softhsm::{
    DIR_VARIABLE, MODULE, PIN, SoftHsm, init_token, make_key_without_decrypt, tool,
};

/// The token's directory, in a child; in the parent `None`, after the test ran in a child.
fn in_child(test: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE) {
        return Some(dir.into());
    }
    let name = format!("pkcs11::{test}");
    let hsm = require(&name, SoftHsm::new())?;
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env("SOFTHSM2_CONF", hsm.dir.path().join("softhsm2.conf"))
        .env(DIR_VARIABLE, hsm.dir.path())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    None
}

struct Hsm {
    dir: PathBuf,
    next: AtomicU32,
    mechanism: &'static str,
}

impl Hsm {
    fn new(dir: PathBuf, mechanism: &'static str) -> Self {
        Self { dir, next: AtomicU32::new(0), mechanism }
    }

    /// A new key of this label, that may do what the flags of `pkcs11-tool` say.
    fn make(&self, label: &str, usages: &[&str]) {
        let arguments = ["--keygen", "--key-type", "AES:32", "--sensitive", "--label", label];
        tool(&self.dir, &[&arguments, usages].concat());
    }

    fn uri(&self, label: &str) -> String {
        let mechanism = self.mechanism;
        format!("pkcs11:token=kms;object={label}?module-path={MODULE}{mechanism}")
    }
}

fn environment(pin: &str) -> Environment {
    Environment::fixed([("ATREST_PKCS11_PIN", pin)])
}

fn open(uri: &str) -> Arc<dyn Kms> {
    from_uri_with(uri, &environment(PIN)).unwrap_or_else(|e| panic!("{e}"))
}

const ALL: [&str; 2] = ["--usage-decrypt", "--usage-wrap"];

impl Service for Hsm {
    fn new_key(&self) -> KeyUri {
        let label = format!("key-{}", self.next.fetch_add(1, Ordering::SeqCst));
        self.make(&label, &ALL);
        self.uri(&label).parse().expect("a URI")
    }

    fn open(&self, uri: &KeyUri) -> Arc<dyn Kms> {
        open(uri.as_str())
    }

    fn secrets(&self) -> Vec<String> {
        vec![PIN.to_owned()]
    }

    fn limits(&self) -> Limits {
        Limits { deterministic: self.mechanism.contains("wrap-pad"), ..Limits::default() }
    }
}

#[test]
fn conforms_with_aes_gcm() {
    let Some(dir) = in_child("conforms_with_aes_gcm") else { return };
    let hsm = Hsm::new(dir, "");
    check(&hsm);
    let wrapped = hsm.open(&hsm.new_key()).wrap(&key(1), &context(1), soon()).expect("wrapped");
    assert_eq!(wrapped.blob[..2], [1, 1], "AES-GCM is chosen where there is a choice");
}

#[test]
fn conforms_with_key_wrap_pad() {
    let Some(dir) = in_child("conforms_with_key_wrap_pad") else { return };
    check(&Hsm::new(dir, "&mechanism=aes-key-wrap-pad"));
}

#[test]
fn losing_the_key_or_its_rights() {
    let Some(dir) = in_child("losing_the_key_or_its_rights") else { return };
    let hsm = Hsm::new(dir, "");
    hsm.make("k", &ALL);
    let kms = open(&hsm.uri("k"));
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");

    make_key_without_decrypt("no-decrypt");
    let weak = open(&hsm.uri("no-decrypt"));
    let refused = kind(weak.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::KeyDisabled), "CKA_DECRYPT is false");

    let destroy =
        |label: &str| tool(&hsm.dir, &["--delete-object", "--type", "secrkey", "--label", label]);
    check_denial(
        &*kms,
        &[PIN.to_owned()],
        &Denial {
            name: "destroyed by another process",
            deny: &|| destroy("k"),
            expected: KmsErrorKind::NotFound,
            restore: None,
        },
    );
    hsm.make("k", &ALL);
    let refused = kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::Integrity), "created again, it is another key");
    hsm.make("k", &ALL);
    let refused = kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::Misconfigured), "two keys of one name");
}

#[test]
fn a_refused_pin_is_not_tried_again() {
    let Some(dir) = in_child("a_refused_pin_is_not_tried_again") else { return };
    let hsm = Hsm::new(dir.clone(), "");
    hsm.make("k", &ALL);
    let wrapped = open(&hsm.uri("k")).wrap(&key(1), &context(1), soon()).expect("wrapped");
    let pin_file = dir.join("pin");
    std::fs::write(&pin_file, "a-wrong-pin").unwrap();
    let uri = format!("{}&pin-source=file:{}", hsm.uri("k"), pin_file.display());
    let kms = from_uri_with(&uri, &environment("not used")).expect("a provider");
    for turn in 0..12 {
        let error = kms.unwrap(&wrapped, &context(1), soon()).err().expect("a wrong PIN");
        assert_eq!(error.kind(), KmsErrorKind::Unauthenticated, "{error:?}");
        assert_eq!(error.to_string().contains("refused this PIN before"), turn > 0, "{error}");
        assert_hides(&error, &["a-wrong-pin".to_owned()]);
    }
    std::fs::write(&pin_file, PIN).unwrap();
    assert_opens(&*kms, &wrapped, &key(1));
    std::fs::remove_file(&pin_file).unwrap();
    let missing = kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(missing, Some(KmsErrorKind::Unauthenticated));
}

/// SoftHSM with a log-in that counts, and does what files in the directory say.
struct Shim {
    dir: PathBuf,
    uri: String,
}

impl Shim {
    fn new(dir: PathBuf) -> Self {
        let library = dir.join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/login_shim.c");
        let module = format!("-DMODULE=\"{MODULE}\"");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-Wall", "-Werror", &module, "-o"]).arg(&library);
        assert!(cc.arg(source).arg("-ldl").status().expect("a C compiler").success());
        // Whatever the umask: a library that others may write is refused.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&library, mode).unwrap();
        Hsm::new(dir.clone(), "").make("k", &ALL);
        let uri = format!("pkcs11:token=kms;object=k?module-path={}", library.display());
        Self { dir, uri }
    }

    fn logins(&self) -> usize {
        std::fs::read(self.dir.join("logins")).map_or(0, |calls| calls.len())
    }
}

#[test]
fn a_pin_that_is_refused_late_is_not_tried_again() {
    let Some(dir) = in_child("a_pin_that_is_refused_late_is_not_tried_again") else { return };
    let shim = Shim::new(dir);
    let wrapped = open(&shim.uri).wrap(&key(1), &context(1), soon()).expect("wrapped");
    let before = shim.logins();
    // Longer than one try waits, so that the next one is there before its answer.
    std::fs::write(shim.dir.join("slow"), "").unwrap();
    let kms = from_uri_with(&shim.uri, &environment("a-wrong-pin")).expect("a provider");
    for _ in 0..2 {
        let error = kms.unwrap(&wrapped, &context(1), soon()).err().expect("a wrong PIN");
        assert_eq!(error.kind(), KmsErrorKind::Unauthenticated, "{error:?}");
        assert!(error.to_string().contains("refused this PIN before"), "{error}");
    }
    assert_eq!(shim.logins() - before, 1);
}

#[test]
fn a_pin_is_tried_again_when_its_token_was_locked() {
    let Some(dir) = in_child("a_pin_is_tried_again_when_its_token_was_locked") else { return };
    let shim = Shim::new(dir);
    let kms = open(&shim.uri);
    let wrapped = kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
    let locked = shim.dir.join("locked");
    std::fs::write(&locked, "").unwrap();
    let refused = kind(kms.unwrap(&wrapped, &context(1), soon()));
    assert_eq!(refused, Some(KmsErrorKind::Unauthenticated));
    std::fs::remove_file(&locked).unwrap();
    assert_opens(&*kms, &wrapped, &key(1));
}

#[test]
fn names_that_lead_nowhere() {
    let Some(dir) = in_child("names_that_lead_nowhere") else { return };
    let hsm = Hsm::new(dir.clone(), "");
    hsm.make("k", &ALL);
    let try_uri = |uri: &str| {
        from_uri_with(uri, &environment(PIN))
            .and_then(|kms| kms.wrap(&key(1), &context(1), soon()).map(drop))
            .map_err(|e| e.kind())
    };
    let uri = hsm.uri("k");
    assert_eq!(try_uri(&uri), Ok(()));
    use KmsErrorKind as K;
    assert_eq!(try_uri(&uri.replace("token=kms", "token=other")), Err(K::Unreachable));
    assert_eq!(try_uri(&uri.replace("object=k", "object=other")), Err(K::NotFound));
    assert_eq!(try_uri(&uri.replace(MODULE, "/nonexistent.so")), Err(K::Misconfigured));
    assert_eq!(try_uri(&uri.replace(MODULE, "libsofthsm2.so")), Err(K::Misconfigured));
    assert_eq!(try_uri("pkcs11:token=kms;object=k"), Err(K::Misconfigured));

    // No library, and one that others may write.
    let library = dir.join("library.so");
    std::fs::write(&library, "text").unwrap();
    let named = uri.replace(MODULE, library.to_str().expect("UTF-8"));
    assert_eq!(try_uri(&named), Err(K::Misconfigured));
    let writable = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::copy(MODULE, &library).unwrap();
    std::fs::set_permissions(&library, writable).unwrap();
    assert_eq!(try_uri(&named), Err(K::Misconfigured));

    // The operator's variable wins over the URI's path.
    let fixed = Environment::fixed([("ATREST_PKCS11_PIN", PIN), ("ATREST_PKCS11_MODULE", MODULE)]);
    let kms = from_uri_with(&uri.replace(MODULE, "/nonexistent.so"), &fixed).expect("a provider");
    kms.wrap(&key(1), &context(1), soon()).expect("wrapped");
}

/// A host program that uses the module itself, in the same process.
struct Host {
    library: Pkcs11,
}

impl Host {
    fn start() -> Self {
        let library = Pkcs11::new(MODULE).expect("a library");
        let arguments = CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK);
        library.initialize(arguments).expect("nobody uses the library yet");
        Self { library }
    }

    /// A session with a token, logged in.
    fn session(&self, token: &str) -> Session {
        let slots = self.library.get_slots_with_initialized_token().expect("slots");
        let named = |slot: &&Slot| {
            self.library.get_token_info(**slot).is_ok_and(|info| info.label().trim_end() == token)
        };
        let slot = slots.iter().find(named).expect("the token");
        let session = self.library.open_rw_session(*slot).expect("a session");
        session.login(UserType::User, Some(&AuthPin::from(PIN))).expect("a log-in");
        session
    }
}

fn generate(session: &Session, label: &str) -> ObjectHandle {
    let template = [
        Attribute::Token(true),
        Attribute::ValueLen(32.into()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
    ];
    session.generate_key(&CkMechanism::AesKeyGen, &template).expect("a key")
}

#[test]
fn a_host_of_the_same_module_keeps_its_sessions_and_its_log_in() {
    let test = "a_host_of_the_same_module_keeps_its_sessions_and_its_log_in";
    let Some(dir) = in_child(test) else { return };
    init_token(&dir, "second").expect("another token");
    let host = Host::start();
    let sessions = ["kms", "second"].map(|token| host.session(token));
    let keys = sessions.each_ref().map(|session| generate(session, "shared"));
    let works = |when: &str| {
        for (session, key) in sessions.iter().zip(keys) {
            let info = session.get_session_info().unwrap_or_else(|e| panic!("{when}: {e}"));
            assert_eq!(info.session_state(), SessionState::RwUser, "{when}");
            let sealed = session.encrypt(&CkMechanism::AesCbcPad([0; 16]), key, b"the host's own");
            assert!(sealed.is_ok(), "{when}: {sealed:?}");
        }
    };
    works("before");
    // Eight threads on two tokens.
    let services = ["kms", "second"]
        .map(|token| open(&format!("pkcs11:token={token};object=shared?module-path={MODULE}")));
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let kms = &services[usize::from(thread % 2)];
            scope.spawn(move || {
                for _ in 0..10 {
                    let wrapped = kms.wrap(&key(thread), &context(1), soon()).expect("wrapped");
                    assert_opens(&**kms, &wrapped, &key(thread));
                }
            });
        }
    });
    works("after 160 calls");
    let wrapped = services[0].wrap(&key(1), &context(1), soon()).expect("wrapped");
    // A key of one token is not that of the other.
    let other = kind(services[1].unwrap(&wrapped, &context(1), soon()));
    assert_eq!(other, Some(KmsErrorKind::Integrity));
    drop(services);
    works("after the last one was dropped");
    // The host ends its own use, and with it all sessions of the process; ours begins anew.
    let kms = open(&format!("pkcs11:token=kms;object=shared?module-path={MODULE}"));
    assert_opens(&*kms, &wrapped, &key(1));
    drop(sessions);
    host.library.finalize().expect("finalized");
    assert_opens(&*kms, &wrapped, &key(1));
    let again = Pkcs11::new(MODULE).expect("a library");
    assert_eq!(again.get_slots_with_initialized_token().expect("slots").len(), 2);
}
