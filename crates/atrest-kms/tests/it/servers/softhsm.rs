//! SoftHSM: no process of its own, but a library with tokens in a directory.

use std::path::Path;
use std::process::Command;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::Attribute;
use cryptoki::session::UserType;
use cryptoki::types::AuthPin;
use tempfile::TempDir;

pub(crate) const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub(crate) const PIN: &str = "pin-of-the-tests";
/// Names the directory to a child process of the tests.
pub(crate) const DIR_VARIABLE: &str = "ATREST_TEST_SOFTHSM_DIR";

/// A directory with a token `kms`. `SOFTHSM2_CONF` must name its `softhsm2.conf` before
/// the library is loaded, so the tests that use it run in a child process.
#[derive(Debug)]
pub(crate) struct SoftHsm {
    pub(crate) dir: TempDir,
}

impl SoftHsm {
    pub(crate) fn new() -> Result<Self, String> {
        if !Path::new(MODULE).exists() {
            return Err(format!("{MODULE} is missing"));
        }
        let dir = TempDir::new().map_err(|e| e.to_string())?;
        let tokens = dir.path().join("tokens");
        std::fs::create_dir(&tokens).map_err(|e| e.to_string())?;
        let text = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        std::fs::write(dir.path().join("softhsm2.conf"), text).map_err(|e| e.to_string())?;
        init_token(dir.path(), "kms")?;
        Ok(Self { dir })
    }
}

/// One more token in the directory.
pub(crate) fn init_token(dir: &Path, label: &str) -> Result<(), String> {
    run(
        Command::new("softhsm2-util")
            .args(["--init-token", "--free", "--label", label, "--so-pin", "so-pin"])
            .args(["--pin", PIN]),
        dir,
    )
}

/// Runs `pkcs11-tool` on the token: another process than the one under test.
pub(crate) fn tool(dir: &Path, arguments: &[&str]) {
    let mut command = Command::new("pkcs11-tool");
    command.args(["--module", MODULE, "--token-label", "kms", "--login", "--pin", PIN]);
    command.args(arguments);
    run(&mut command, dir).unwrap_or_else(|why| panic!("pkcs11-tool {arguments:?}: {why}"));
}

/// Makes an AES key that may encrypt and not decrypt, which `pkcs11-tool` cannot.
pub(crate) fn make_key_without_decrypt(label: &str) {
    let library = Pkcs11::new(MODULE).expect("a library");
    // The provider may have initialized it already.
    drop(library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)));
    let slot = library.get_slots_with_initialized_token().expect("slots")[0];
    let session = library.open_rw_session(slot).expect("a session");
    session.login(UserType::User, Some(&AuthPin::from(PIN))).expect("a login");
    let template = [
        Attribute::Token(true),
        Attribute::ValueLen(32.into()),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Encrypt(true),
        Attribute::Decrypt(false),
    ];
    session.generate_key(&Mechanism::AesKeyGen, &template).expect("a key");
}

fn run(command: &mut Command, dir: &Path) -> Result<(), String> {
    let output = command
        .env("SOFTHSM2_CONF", dir.join("softhsm2.conf"))
        .output()
        .map_err(|e| format!("{command:?}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&said)))
}
