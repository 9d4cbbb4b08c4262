//! Errors of the file system in memory, by kind of operation, name and count.

use super::Op;

/// One fault that waits for its operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The operations that count.
    pub on: OpKind,
    /// A part of the name of the file, in the same words as [`Op`]; empty for any.
    pub name: String,
    /// How many of them go well before.
    pub after: usize,
    /// How many fail then.
    pub times: usize,
    /// What happens.
    pub how: How,
}

/// What an operation does that fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing, with this `errno`; half of an append's bytes are written.
    Error(i32),
    /// All of it, and says this `errno` nevertheless, as when an answer is lost. A creation,
    /// an opening and a reading do not.
    Late(i32),
    /// A reading gives other bytes than are there.
    OtherBytes,
}

/// Kinds of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "those of `Op`")]
pub enum OpKind {
    Any,
    Create,
    Open,
    Read,
    Append,
    Sync,
    Rename,
    Link,
    Remove,
    Stat,
    SetAttributes,
    CreateDir,
    List,
    SyncDir,
    Lock,
}

/// What strikes the operation that begins.
pub(super) enum Strike {
    Before(i32),
    After(i32),
    OtherBytes,
}

impl Op {
    fn kind_and_name(&self) -> (OpKind, &str) {
        match self {
            Self::Create(name) => (OpKind::Create, name),
            Self::Open(name) => (OpKind::Open, name),
            Self::Read(name, _) => (OpKind::Read, name),
            Self::Append(name, _) => (OpKind::Append, name),
            Self::Sync(name, _) => (OpKind::Sync, name),
            Self::Rename(_, name) | Self::Exchange(_, name) => (OpKind::Rename, name),
            Self::Link(name) => (OpKind::Link, name),
            Self::Remove(name) => (OpKind::Remove, name),
            Self::Stat(name) => (OpKind::Stat, name),
            Self::SetAttributes(name) => (OpKind::SetAttributes, name),
            Self::CreateDir(name) => (OpKind::CreateDir, name),
            Self::List => (OpKind::List, ""),
            Self::SyncDir => (OpKind::SyncDir, ""),
            Self::Lock => (OpKind::Lock, ""),
        }
    }

    /// Whether it can have been carried out although it says that it failed.
    fn may_be_late(&self) -> bool {
        matches!(
            self,
            Self::Rename(..)
                | Self::Exchange(..)
                | Self::Link(_)
                | Self::Remove(_)
                | Self::Sync(..)
                | Self::SyncDir
        )
    }
}

impl Fault {
    fn is_for(&self, op: &Op) -> bool {
        let (kind, name) = op.kind_and_name();
        (self.on == OpKind::Any || self.on == kind)
            && name.contains(&self.name)
            && self.times > 0
            && match self.how {
                How::Error(_) => true,
                How::Late(_) => op.may_be_late(),
                How::OtherBytes => kind == OpKind::Read,
            }
    }

    /// Counts an operation, and says what strikes it.
    pub(super) fn strike(faults: &mut [Self], op: &Op) -> Option<Strike> {
        let fault = faults.iter_mut().find(|fault| fault.is_for(op))?;
        if fault.after > 0 {
            fault.after -= 1;
            return None;
        }
        fault.times -= 1;
        Some(match fault.how {
            How::Error(errno) => Strike::Before(errno),
            How::Late(errno) => Strike::After(errno),
            How::OtherBytes => Strike::OtherBytes,
        })
    }

    /// Whether this reading is going to be struck so.
    pub(super) fn will_garble(faults: &[Self], op: &Op) -> bool {
        let next = faults.iter().find(|fault| fault.is_for(op));
        next.is_some_and(|fault| fault.after == 0 && fault.how == How::OtherBytes)
    }
}
