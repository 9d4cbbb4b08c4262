//! How many bytes stand under which data key.

use std::path::Path;

use atrest::keyring::KeyState;
use atrest::{DataKeyId, Keyring};
use serde_json::{Value, json};

use super::engine;
use crate::failure::Result;
use crate::paint::{DIM, GREEN};
use crate::scan::{Scan, scan};
use crate::table::{Align, Cell, Table, bar};
use crate::units;

/// Width of a bar, in characters.
const BAR_LEN: usize = 30;

/// One data key, oldest first.
pub(super) struct KeyUsage {
    id: DataKeyId,
    active: bool,
    created_ns: u64,
    files: u64,
    bytes: u64,
}

/// The bytes under each data key, by the proven headers of the files.
pub(super) struct Usage(pub(super) Vec<KeyUsage>);

impl Usage {
    pub(super) fn take(dir: &Path, keyring: &Keyring) -> Result<Self> {
        let scan: Scan = scan(&dir.join(engine::PATH), Some(keyring), true)?;
        let keys = keyring.status().data_keys.into_iter().map(|key| {
            let usage = scan.by_key.get(&key.id).copied().unwrap_or_default();
            KeyUsage {
                id: key.id,
                active: key.state == KeyState::Active,
                created_ns: key.created_ns,
                files: usage.files,
                bytes: usage.bytes,
            }
        });
        Ok(Self(keys.collect()))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|key| key.bytes).sum()
    }

    /// Bytes under keys that are no longer active.
    pub(super) fn old_bytes(&self) -> u64 {
        self.0.iter().filter(|key| !key.active).map(|key| key.bytes).sum()
    }

    pub(super) fn old_share(&self) -> f64 {
        self.old_bytes() as f64 / self.bytes().max(1) as f64
    }

    /// Data keys with files.
    pub(super) fn keys_in_use(&self) -> usize {
        self.0.iter().filter(|key| key.files > 0).count()
    }

    pub(super) fn table(&self) -> String {
        use Align::{Left, Right};
        let mut table = Table::new(&[
            ("data key", Left),
            ("since", Left),
            ("files", Right),
            ("bytes", Right),
            ("share", Right),
            ("", Left),
        ]);
        let total = self.bytes().max(1) as f64;
        for key in &self.0 {
            let share = key.bytes as f64 / total;
            let (id, bar) = (short(key.id), bar(share, BAR_LEN));
            let paint = |text: String| {
                if key.active { Cell::painted(text, GREEN) } else { Cell::from(text) }
            };
            table.row([
                paint(id),
                units::time(key.created_ns)[..10].into(),
                units::count(key.files).into(),
                units::bytes(key.bytes).into(),
                format!("{:.1} %", share * 100.0).into(),
                paint(bar),
            ]);
        }
        let table = table.render().replace('\n', "\n ");
        format!(" {table}\n   {}", DIM.paint("green: the active data key"))
    }

    pub(super) fn json(&self) -> Value {
        let key = |key: &KeyUsage| {
            json!({
                "data_key_id": key.id,
                "active": key.active,
                "created_ns": key.created_ns,
                "files": key.files,
                "bytes": key.bytes,
            })
        };
        self.0.iter().map(key).collect()
    }
}

/// The first digits of an id, enough to tell a handful apart.
pub(super) fn short(id: DataKeyId) -> String {
    id.to_string()[..8].to_owned()
}
