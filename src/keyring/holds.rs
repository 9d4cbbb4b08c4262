//! Holds: data keys that something outside of the store's directories needs.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::key_state::KeyState;
use super::{Keyring, body};
use crate::error::{Error, ErrorKind, Result};
use crate::ids::DataKeyId;

/// A hard link or a copy outside of the store's directories, such as another tool's backup: its
/// data keys are not destroyed while it is registered. A [backup](crate::backup) has a key of its
/// own, and needs none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Hold {
    /// Its name.
    pub name: String,
    /// When it was registered, nanoseconds since the Unix epoch.
    pub created_ns: u64,
    /// The data keys it needs.
    pub keys: Vec<DataKeyId>,
}

/// The holds of an open keyring.
#[derive(Clone, Copy, Debug)]
pub struct Holds<'a>(pub(super) &'a Keyring);

impl Holds<'_> {
    /// The holds, oldest first.
    pub fn list(&self) -> Vec<Hold> {
        let snapshot = self.0.inner.vault.load();
        let hold = |hold: &body::HoldRecord| Hold {
            name: hold.name.clone(),
            created_ns: hold.created_ns,
            keys: hold.keys.iter().map(|id| DataKeyId::from_bytes(*id)).collect(),
        };
        snapshot.body.holds.iter().map(hold).collect()
    }

    /// Keeps data keys from being destroyed until [`release`](Self::release).
    /// A name that is held already holds these keys too. Durable when it returns.
    ///
    /// # Errors
    /// [`UnknownKey`](ErrorKind::UnknownKey) for a key that is not in the keyring,
    /// [`KeyDestroyed`](ErrorKind::KeyDestroyed) for one that was destroyed,
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a name that is
    /// empty or longer than 256 bytes; those of
    /// [`Keys::rotate`](super::Keys::rotate).
    pub fn register(&self, name: &str, keys: &[DataKeyId]) -> Result<()> {
        check_name(name)?;
        let mut writer = self.0.inner.writer();
        self.0.inner.commit(&mut writer, |draft| {
            let states: HashMap<_, _> =
                draft.body.keys.iter().map(|key| (key.id, key.state)).collect();
            for id in keys {
                let (kind, what) = match states.get(id.as_bytes()) {
                    None => (ErrorKind::UnknownKey, "is not in the keyring"),
                    Some(KeyState::Destroyed) => (ErrorKind::KeyDestroyed, "was destroyed"),
                    Some(_) => continue,
                };
                return Err(Error::new(kind, format!("data key {id} {what}")));
            }
            let holds = &mut draft.body.holds;
            let index = holds.iter().position(|hold| hold.name == name).unwrap_or_else(|| {
                let (name, created_ns) = (name.into(), draft.now_ns);
                holds.push(body::HoldRecord { name, created_ns, keys: Vec::new() });
                holds.len() - 1
            });
            let held = &mut holds[index].keys;
            let mut known: HashSet<_> = held.iter().copied().collect();
            held.extend(keys.iter().map(|id| *id.as_bytes()).filter(|id| known.insert(*id)));
            Ok(true)
        })
    }

    /// Ends a hold: what needed the keys is gone.
    ///
    /// # Errors
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) if there is none of that name;
    /// those of [`Keys::rotate`](super::Keys::rotate).
    pub fn release(&self, name: &str) -> Result<()> {
        let mut writer = self.0.inner.writer();
        self.0.inner.commit(&mut writer, |draft| {
            let before = draft.body.holds.len();
            draft.body.holds.retain(|hold| hold.name != name);
            if draft.body.holds.len() == before {
                let what = format!("there is no hold named {name}");
                return Err(Error::new(ErrorKind::InvalidArgument, what));
            }
            Ok(true)
        })
    }
}

/// A name that people give to a part of the keyring.
pub(super) fn check_name(name: &str) -> Result<()> {
    let good = (1..=super::codec::NAME_LEN_MAX).contains(&name.len())
        && !name.chars().any(char::is_control);
    if good {
        return Ok(());
    }
    let what = "expected a name of 1 to 256 bytes without control characters";
    Err(Error::new(ErrorKind::InvalidArgument, what))
}
