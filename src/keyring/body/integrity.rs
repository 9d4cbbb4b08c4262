//! What a store promises of its files' bodies, for each kind of file.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
use crate::header::FileKind;
use crate::suite::Integrity;

/// What files have to be, by their kind. Written `authenticated`, or with exceptions,
/// `authenticated,table=confidential`.
///
/// Where a kind is [`Authenticated`](Integrity::Authenticated), new files of it are, and those
/// that are not are refused for reading, too. Where it is
/// [`Confidential`](Integrity::Confidential), a file may be either, as its
/// [`FileSpec`](crate::FileSpec) says; by default it is confidential.
///
/// A file's kind is proven with its header. Where kinds differ, an engine **MUST** say which
/// kind it expects when it opens a file ([`Expect`](crate::Expect)): otherwise somebody who can
/// write to the disk puts a confidential file in the place of an authenticated one.
///
/// ```
/// use atrest::{FileKind, Integrity, IntegrityPolicy};
///
/// let policy: IntegrityPolicy = "authenticated,table=confidential".parse()?;
/// assert_eq!(policy.of(FileKind::Manifest), Integrity::Authenticated);
/// assert_eq!(policy.of(FileKind::Table), Integrity::Confidential);
/// # Ok::<(), atrest::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IntegrityPolicy([Integrity; FileKind::ALL.len()]);

impl IntegrityPolicy {
    /// The same for all kinds.
    pub const fn all(integrity: Integrity) -> Self {
        Self([integrity; FileKind::ALL.len()])
    }

    /// The promise for one kind.
    pub fn of(&self, kind: FileKind) -> Integrity {
        self.0[at(kind)]
    }

    /// Sets that for one kind.
    #[must_use]
    pub fn with(mut self, kind: FileKind, integrity: Integrity) -> Self {
        self.0[at(kind)] = integrity;
        self
    }

    /// Whether all kinds have this promise.
    pub fn is_all(&self, integrity: Integrity) -> bool {
        *self == Self::all(integrity)
    }

    /// The kinds that have to be authenticated, by their numbers, ascending.
    pub(crate) fn to_numbers(self) -> Vec<u8> {
        let kinds = FileKind::ALL.into_iter();
        let required = kinds.filter(|kind| self.of(*kind) == Integrity::Authenticated);
        required.map(FileKind::number).collect()
    }

    /// As the format has it: `all` kinds, or some, or none.
    pub(crate) fn from_tags(all: bool, some: Option<&[u8]>) -> Result<Self, &'static str> {
        let Some(numbers) = some else {
            return Ok(Self::from(if all {
                Integrity::Authenticated
            } else {
                Integrity::Confidential
            }));
        };
        let ordered = numbers.windows(2).all(|pair| pair[0] < pair[1]);
        if all || !ordered || numbers.is_empty() || numbers.len() == FileKind::ALL.len() {
            return Err("the kinds of authenticated files are not written as they should be");
        }
        numbers.iter().try_fold(Self::default(), |policy, number| {
            let kind = FileKind::from_number(*number);
            let kind = kind.ok_or("the settings name a kind of file that does not exist")?;
            Ok(policy.with(kind, Integrity::Authenticated))
        })
    }
}

/// Where a kind's promise stands; that of temporary files is the one of other files.
fn at(kind: FileKind) -> usize {
    match kind {
        FileKind::Temporary => FileKind::Other as usize,
        kept => kept as usize,
    }
}

impl From<Integrity> for IntegrityPolicy {
    fn from(integrity: Integrity) -> Self {
        Self::all(integrity)
    }
}

impl fmt::Display for IntegrityPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What an unnamed kind has is what most people compare first.
        let rule = self.of(FileKind::Other);
        f.write_str(rule.name())?;
        for kind in FileKind::ALL.into_iter().filter(|kind| self.of(*kind) != rule) {
            write!(f, ",{}={}", kind.name(), self.of(kind).name())?;
        }
        Ok(())
    }
}

impl FromStr for IntegrityPolicy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |part: &str| {
            let names = Integrity::ALL.map(Integrity::name).join(" or ");
            let kinds = FileKind::ALL.map(FileKind::name).join(", ");
            let what = format!(
                "expected {names}, then KIND=NAME for exceptions (kinds: {kinds}), found {part:?}"
            );
            Error::new(ErrorKind::InvalidArgument, what)
        };
        let integrity = |name: &str| Integrity::ALL.into_iter().find(|one| one.name() == name);
        let mut parts = text.split(',');
        let rule = parts.next().unwrap_or_default();
        let mut policy = Self::all(integrity(rule).ok_or_else(|| wrong(rule))?);
        for part in parts {
            let exception = part.split_once('=').and_then(|(kind, name)| {
                let kind = FileKind::ALL.into_iter().find(|one| one.name() == kind)?;
                Some((kind, integrity(name)?))
            });
            let (kind, integrity) = exception.ok_or_else(|| wrong(part))?;
            policy = policy.with(kind, integrity);
        }
        Ok(policy)
    }
}

impl serde::Serialize for IntegrityPolicy {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_comes_back_from_its_text_and_from_its_bytes() {
        for bits in 0..1_u32 << FileKind::ALL.len() {
            let kinds = FileKind::ALL.into_iter().enumerate();
            let policy = kinds.fold(IntegrityPolicy::default(), |policy, (at, kind)| {
                policy.with(kind, Integrity::ALL[bits as usize >> at & 1])
            });
            assert_eq!(policy.to_string().parse::<IntegrityPolicy>().unwrap(), policy);
            let numbers = policy.to_numbers();
            assert_eq!(numbers.len() as u32, bits.count_ones());
            let (all, none) = (bits.count_ones() == 5, bits == 0);
            let some = (!all && !none).then_some(&*numbers);
            assert_eq!(IntegrityPolicy::from_tags(all, some).unwrap(), policy);
        }
        let policy = IntegrityPolicy::all(Integrity::Authenticated);
        assert_eq!(policy.to_string(), "authenticated");
        let policy = policy.with(FileKind::Table, Integrity::Confidential);
        assert_eq!(policy.to_string(), "authenticated,table=confidential");
    }

    #[test]
    fn what_no_version_writes_is_refused() {
        let cases: [(bool, &[u8]); 7] = [
            (true, &[1]),
            (false, &[]),
            (false, &[1, 1]),
            (false, &[2, 1]),
            (false, &[0]),
            (false, &[6]),
            (false, &[1, 2, 3, 4, 5]),
        ];
        for (all, some) in cases {
            IntegrityPolicy::from_tags(all, Some(some)).unwrap_err();
        }
        for text in ["", "suite-2", "Authenticated", "authenticated,", "authenticated,table"] {
            let error = text.parse::<IntegrityPolicy>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text:?}");
        }
        for text in ["table=authenticated", "confidential,sst=authenticated", "confidential,log=2"]
        {
            text.parse::<IntegrityPolicy>().unwrap_err();
        }
    }
}
