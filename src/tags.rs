//! Tagged entries: what a format may gain without a new version. `docs/FORMAT.md`
//! section 6.
//!
//! A reader keeps what it does not know, so that an older version of this library which
//! commits does not lose what a newer one wrote; an entry that must not be passed over is
//! marked as critical, and refused.

use wincode::{SchemaRead, SchemaWrite};

use crate::error::{Error, ErrorKind};

/// Most entries of one list.
pub(crate) const TAGS_MAX: usize = 256;
/// Longest value in bytes, 1 MiB: one that names every data key of a large store.
pub(crate) const VALUE_LEN_MAX: usize = 1 << 20;
/// The reader must know the entry.
const CRITICAL: u8 = 1;

/// One entry.
#[derive(Clone, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
struct Entry {
    number: u16,
    flags: u8,
    value: Vec<u8>,
}

/// A list of entries, ascending by number, each number once.
#[derive(Clone, Default, PartialEq, Eq, Debug, SchemaRead, SchemaWrite)]
pub(crate) struct Tags(Vec<Entry>);

/// Why entries are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No version writes such a list.
    Malformed(&'static str),
    /// A newer version says that this one must not go on.
    Critical(u16),
}

/// What may stand beside the value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// A reader that does not know the entry ignores it.
    Keep,
    /// It refuses the whole.
    Refuse,
}

impl Tags {
    /// Refuses a list that is malformed, or has critical entries beside those in `known`.
    pub(crate) fn check(&self, known: &[u16]) -> Result<(), Refused> {
        if self.0.len() > TAGS_MAX || self.0.iter().any(|entry| entry.value.len() > VALUE_LEN_MAX) {
            return Err(Refused::Malformed("a list of tagged entries is too long"));
        }
        if self.0.windows(2).any(|pair| pair[0].number >= pair[1].number) {
            return Err(Refused::Malformed("tagged entries are not in order, or not unique"));
        }
        if self.0.iter().any(|entry| entry.flags & !CRITICAL != 0) {
            return Err(Refused::Malformed("a tagged entry has unknown flags"));
        }
        let critical = |entry: &&Entry| entry.flags != 0 && !known.contains(&entry.number);
        match self.0.iter().find(critical) {
            Some(entry) => Err(Refused::Critical(entry.number)),
            None => Ok(()),
        }
    }

    #[cfg(test)]
    pub(crate) fn has(&self, number: u16) -> bool {
        self.value(number).is_some()
    }

    fn value(&self, number: u16) -> Option<&[u8]> {
        self.0.iter().find(|entry| entry.number == number).map(|entry| &*entry.value)
    }

    /// The number that an entry holds.
    pub(crate) fn number(&self, number: u16) -> Result<Option<u64>, &'static str> {
        let parse = |value: &[u8]| value.try_into().map(u64::from_le_bytes);
        let value = self.value(number).map(parse).transpose();
        value.map_err(|_| "a tagged number does not have 8 bytes")
    }

    /// Whether an entry that holds nothing is there.
    pub(crate) fn flag(&self, number: u16) -> Result<bool, &'static str> {
        match self.value(number) {
            None => Ok(false),
            Some([]) => Ok(true),
            Some(_) => Err("a tagged flag has a value"),
        }
    }

    /// The bytes that an entry holds.
    pub(crate) fn bytes(&self, number: u16) -> Option<&[u8]> {
        self.value(number)
    }

    /// Sets an entry to bytes, or removes it.
    pub(crate) fn set_bytes(&mut self, number: u16, unknown: Unknown, value: Option<Vec<u8>>) {
        self.set(number, unknown, value);
    }

    /// Sets an entry to a number, or removes it.
    pub(crate) fn set_number(&mut self, number: u16, unknown: Unknown, value: Option<u64>) {
        self.set(number, unknown, value.map(|value| value.to_le_bytes().to_vec()));
    }

    /// Adds an entry that holds nothing, or removes it.
    pub(crate) fn set_flag(&mut self, number: u16, unknown: Unknown, on: bool) {
        self.set(number, unknown, on.then(Vec::new));
    }

    fn set(&mut self, number: u16, unknown: Unknown, value: Option<Vec<u8>>) {
        self.0.retain(|entry| entry.number != number);
        let Some(value) = value else { return };
        let flags = if unknown == Unknown::Refuse { CRITICAL } else { 0 };
        let at = self.0.partition_point(|entry| entry.number < number);
        self.0.insert(at, Entry { number, flags, value });
    }
}

impl Refused {
    /// The error, whose kind for what is malformed is `kind`.
    pub(crate) fn or(self, kind: ErrorKind) -> Error {
        match self {
            Self::Malformed(what) => Error::new(kind, what),
            Self::Critical(number) => Error::new(
                ErrorKind::UnsupportedFeature,
                format!("an entry with the unknown tag {number} is marked as critical"),
            ),
        }
    }
}

impl From<&'static str> for Refused {
    fn from(what: &'static str) -> Self {
        Self::Malformed(what)
    }
}

#[cfg(test)]
mod tests;
