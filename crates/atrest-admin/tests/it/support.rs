//! Stores under key services that obey the test, and requests to a router.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};

use atrest::keyring::DirectoryStorage;
use atrest::kms::SlotKey;
use atrest::kms::{
    Credential, Deadline, KeyFile, KeyUri, Kms, KmsError, KmsErrorKind, WrapContext, WrappedKey,
    generate_key_file,
};
use atrest::{Keyring, Options};
use atrest_admin::{AdminState, Keys, Store, Token, router};
use axum::Router;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

/// Says what this test leaves out, past the harness, which hides what a passing one prints.
/// `atrest_testkit` has the same, but links the core as it is simulated.
pub(crate) fn left_out(why: &str) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    drop(writeln!(std::io::stderr(), "\nNOT TESTED by {test}: {why}"));
}

pub(crate) const TOKEN: &str = "a-token-of-the-tests";
pub(crate) const PATH: &str = "/api/v1/clusters/orders/cmek";

/// A key file that can be taken away, and whose calls can be held back.
#[derive(Debug)]
pub(crate) struct Scripted {
    inner: KeyFile,
    script: Mutex<Script>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Script {
    fails: Option<KmsErrorKind>,
    credential: Option<Credential>,
    held: bool,
    credential_held: bool,
    waiting: usize,
    asking: usize,
}

impl Scripted {
    pub(crate) fn fail(&self, kind: Option<KmsErrorKind>) {
        self.script.lock().unwrap().fails = kind;
    }

    /// Says this of the credential it is asked with.
    pub(crate) fn tell(&self, credential: Option<Credential>) {
        self.script.lock().unwrap().credential = credential;
    }

    /// Holds every call back until the result is dropped, be it by a panic: a runtime ends
    /// after its blocking threads.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        self.script.lock().unwrap().credential_held = true;
        self.hold_calls()
    }

    /// The same, but for what it says of the credential, as a status shows it.
    pub(crate) fn hold_calls(self: &Arc<Self>) -> Held {
        self.script.lock().unwrap().held = true;
        Held(self.clone())
    }

    /// Returns once a call is being held back.
    pub(crate) fn wait_for_call(&self) {
        let script = self.script.lock().unwrap();
        drop(self.changed.wait_while(script, |script| script.waiting == 0).unwrap());
    }

    /// Threads that ask for the credential, and are held back.
    pub(crate) fn asking(&self) -> usize {
        self.script.lock().unwrap().asking
    }

    fn obey(&self) -> Result<(), KmsError> {
        let mut script = self.script.lock().unwrap();
        script.waiting += 1;
        self.changed.notify_all();
        let mut script = self.changed.wait_while(script, |script| script.held).unwrap();
        script.waiting -= 1;
        match script.fails {
            Some(kind) => Err(KmsError::new(kind, "as the test told")),
            None => Ok(()),
        }
    }
}

/// Calls are held back while this lives.
pub(crate) struct Held(Arc<Scripted>);

impl Drop for Held {
    fn drop(&mut self) {
        let mut script = self.0.script.lock().unwrap();
        (script.held, script.credential_held) = (false, false);
        self.0.changed.notify_all();
    }
}

impl Kms for Scripted {
    fn key_uri(&self) -> &KeyUri {
        self.inner.key_uri()
    }

    fn wrap(
        &self,
        key: &SlotKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<WrappedKey, KmsError> {
        self.obey()?;
        self.inner.wrap(key, context, deadline)
    }

    fn unwrap(
        &self,
        wrapped: &WrappedKey,
        context: &WrapContext,
        deadline: Deadline,
    ) -> Result<SlotKey, KmsError> {
        self.obey()?;
        self.inner.unwrap(wrapped, context, deadline)
    }

    fn credential(&self) -> Option<Credential> {
        let mut script = self.script.lock().unwrap();
        script.asking += 1;
        let mut script = self.changed.wait_while(script, |script| script.credential_held).unwrap();
        script.asking -= 1;
        script.credential
    }
}

/// A directory with key files and stores.
pub(crate) struct Bench {
    dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn key(&self, name: &str) -> Arc<Scripted> {
        let path = self.path(name);
        if !path.exists() {
            generate_key_file(&path).unwrap();
        }
        let inner = KeyFile::new(&path).unwrap();
        Arc::new(Scripted { inner, script: Mutex::default(), changed: Condvar::new() })
    }

    pub(crate) fn options() -> Options {
        let mut options = Options::default();
        options.background = false;
        options
    }

    /// A new store under `kms`.
    pub(crate) fn keyring(&self, name: &str, kms: &Arc<Scripted>) -> Keyring {
        let path = self.path(name);
        std::fs::create_dir_all(&path).unwrap();
        Keyring::create(DirectoryStorage::new(path), kms.clone(), Self::options()).unwrap()
    }
}

/// The keys given and no others.
pub(crate) fn keys(known: &[&Arc<Scripted>]) -> Keys {
    known.iter().fold(Keys::new(atrest::kms::from_uri), |keys, kms| keys.with_key((*kms).clone()))
}

/// A state with the cluster `orders`.
pub(crate) fn state(keys: Keys, stores: Vec<Store>) -> AdminState {
    AdminState::new(Token::new(TOKEN).unwrap(), keys).with_cluster("orders", stores).unwrap()
}

/// One store in the region `eu` under `cmek`, to which `others` may be put.
pub(crate) fn one(
    bench: &Bench,
    cmek: &Arc<Scripted>,
    others: &[&Arc<Scripted>],
) -> (Router, Keyring) {
    let keyring = bench.keyring("data", cmek);
    let known: Vec<_> = [cmek].into_iter().chain(others.iter().copied()).collect();
    let stores = vec![Store::of_keyring("eu", keyring.clone())];
    (router(state(keys(&known), stores)), keyring)
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Fails unless this is an error of the HTTP status and the canonical code given.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, code: u64) -> String {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        let body = self.json();
        let mut fields: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
        fields.sort();
        assert_eq!(fields, ["code", "details", "message"]);
        assert_eq!(body["code"], code, "{}", self.text);
        body["message"].as_str().unwrap().to_owned()
    }

    /// Fails unless this shows the status given, for the cluster and all its regions.
    #[track_caller]
    pub(crate) fn shows(&self, status: &str) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.text);
        let body = self.json();
        assert_eq!(body["status"], status, "{}", self.text);
        for region in body["region_infos"].as_array().unwrap() {
            assert_eq!(region["status"], status, "{}", self.text);
        }
        body
    }
}

pub(crate) async fn send(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert!(!text.contains(TOKEN));
    Answer { status: parts.status, headers: parts.headers, text }
}

pub(crate) fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(AUTHORIZATION, format!("Bearer {TOKEN}"))
        .header(CONTENT_TYPE, "application/json")
        .body(body.into())
        .unwrap()
}

pub(crate) async fn get(router: &Router, path: &str) -> Answer {
    send(router, request("GET", path, Body::empty())).await
}

pub(crate) async fn call(router: &Router, method: &str, body: Value) -> Answer {
    send(router, request(method, PATH, body.to_string())).await
}

pub(crate) async fn act(router: &Router, action: &str) -> Answer {
    call(router, "PATCH", json!({ "action": action })).await
}

/// A body with keys for regions.
pub(crate) fn spec(regions: &[(&str, &Arc<Scripted>)]) -> Value {
    let regions: Vec<_> = regions
        .iter()
        .map(|(region, kms)| {
            json!({
                "region": region,
                "key_spec": {
                    "type": "FILE",
                    "uri": kms.key_uri().as_str(),
                    "auth_principal": "arn:aws:iam::1:role/r",
                },
            })
        })
        .collect();
    json!({ "region_specs": regions })
}
