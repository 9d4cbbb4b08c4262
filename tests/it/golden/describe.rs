//! What a store and its files are, as `golden.json` says it.

use std::collections::BTreeMap;
use std::path::Path;

use atrest::{EncryptedFs, Header, Store};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The whole keyring, but of the audit trail only how often what happened.
pub fn describe_store(store: &Store) -> Value {
    let mut all = json!(store.keyring().status());
    all.as_object_mut().unwrap().remove("history");
    all["keyspaces"] = json!(store.keyspaces().list());
    all["holds"] = json!(store.holds().list());
    let own = store.directories().list();
    all["directories"] =
        json!(own.iter().filter(|dir| dir.ends_with("elsewhere")).collect::<Vec<_>>());
    let mut events = BTreeMap::new();
    for event in store.audit().events().unwrap() {
        *events.entry(event.what.as_str()).or_insert(0) += 1;
    }
    all["events"] = json!(events);
    all
}

/// A file as it is read, or why it is not.
pub fn describe_file(fs: &EncryptedFs, path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap();
    if bytes.is_empty() {
        return json!({ "len": 0, "sha256": sha256(b"") });
    }
    let reader = match fs.open(path) {
        Ok(reader) => reader,
        Err(error) => return json!({ "refused": format!("{:?}", error.kind()) }),
    };
    let mut plain = vec![0; reader.len().unwrap() as usize];
    reader.read_exact_at(&mut plain, 0).unwrap();
    let mut all = json!({ "len": plain.len(), "sha256": sha256(&plain) });
    let Some(suite) = reader.suite() else { return all };
    let header = Header::parse(&bytes).unwrap();
    all["suite"] = json!(suite);
    all["kind"] = json!(header.kind.number());
    all["file_id"] = json!(header.file_id.to_string());
    if suite.keeps_appends() {
        all["appends"] = json!(reader.frame_count().unwrap());
        all["torn"] = json!(reader.torn().map(|torn| torn.reason));
    }
    all
}
