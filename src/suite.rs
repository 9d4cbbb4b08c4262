//! The suites: how a body is encrypted. `docs/FORMAT.md` sections 3 to 5.
//!
//! Whatever depends on the suite of a file is decided in this room, which does no I/O: here
//! what its name alone tells, in `layout` the lengths, in `sealer` what an encryptor knows,
//! in `unsealer` what a reader knows. Each suite has a file of its own, `stream`, `chunks`
//! and `log`. Everything else asks, and never names a suite: a test holds the rest of the
//! sources to that.
//!
//! A new suite is a row of the table here, a file, and an arm in each of the three
//! dispatchers; then the tables in `header.rs` and `docs/FORMAT.md`.

pub(crate) mod chunks;
pub(crate) mod layout;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod output;
pub(crate) mod sealer;
pub(crate) mod source;
pub(crate) mod stream;
pub(crate) mod unsealer;

/// How the body is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[non_exhaustive]
#[serde(rename_all = "kebab-case")]
pub enum Suite {
    /// 1: AES-256-CTR. Length-preserving, at the speed of the processor; **no integrity**.
    Aes256Ctr,
    /// 2: AES-256-GCM chunks, whole pages with their tags apart: authenticated, random reads.
    Aes256GcmChunks,
    /// 3: AES-256-GCM log frames: authenticated append-only logs.
    Aes256GcmLog,
}

/// What is promised of a file's body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Integrity {
    /// Whoever takes the disk reads nothing. A body that somebody changed is **not noticed**:
    /// what is read then is noise in the place of what was changed.
    #[default]
    Confidential,
    /// A body that was changed, moved or cut is refused as well.
    Authenticated,
}

impl Integrity {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Confidential, Self::Authenticated];

    /// Its name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Confidential => "confidential",
            Self::Authenticated => "authenticated",
        }
    }
}

/// What a suite's key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cipher {
    Ctr,
    Gcm,
}

/// What the name of a suite tells.
struct Facts {
    /// The number on disk.
    number: u8,
    name: &'static str,
    summary: &'static str,
    cipher: Cipher,
    keeps_lengths: bool,
    keeps_appends: bool,
    has_end: bool,
}

impl Suite {
    /// All suites, by their numbers.
    pub const ALL: [Self; 3] = [Self::Aes256Ctr, Self::Aes256GcmChunks, Self::Aes256GcmLog];

    /// The suite of everything in a backup: authenticated, written once, read in order.
    pub(crate) const FOR_BACKUPS: Self = Self::Aes256GcmChunks;

    const fn facts(self) -> Facts {
        match self {
            Self::Aes256Ctr => Facts {
                number: 1,
                name: "aes256-ctr",
                summary: "AES-256-CTR, no integrity of the body",
                cipher: Cipher::Ctr,
                keeps_lengths: true,
                keeps_appends: false,
                has_end: false,
            },
            Self::Aes256GcmChunks => Facts {
                number: 2,
                name: "aes256-gcm-chunks",
                summary: "AES-256-GCM chunks, authenticated",
                cipher: Cipher::Gcm,
                keeps_lengths: false,
                keeps_appends: false,
                has_end: true,
            },
            Self::Aes256GcmLog => Facts {
                number: 3,
                name: "aes256-gcm-log",
                summary: "AES-256-GCM log frames, authenticated",
                cipher: Cipher::Gcm,
                keeps_lengths: false,
                keeps_appends: true,
                has_end: false,
            },
        }
    }

    /// The number on disk.
    pub const fn number(self) -> u8 {
        self.facts().number
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.number() == number)
    }

    /// Its name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        self.facts().name
    }

    /// A line for people.
    pub const fn summary(self) -> &'static str {
        self.facts().summary
    }

    pub(crate) const fn cipher(self) -> Cipher {
        self.facts().cipher
    }

    /// Whether a changed body is refused.
    pub const fn is_authenticated(self) -> bool {
        matches!(self.cipher(), Cipher::Gcm)
    }

    /// Whether a body is as long as its plaintext, so that a listing tells both.
    pub const fn keeps_lengths(self) -> bool {
        self.facts().keeps_lengths
    }

    /// Whether each append can be told from the next one by a reader.
    pub const fn keeps_appends(self) -> bool {
        self.facts().keeps_appends
    }

    /// Whether a file has an end of its own, and is refused without it: it was cut, or is
    /// not finished.
    pub const fn has_end(self) -> bool {
        self.facts().has_end
    }

    /// The suite of objects in an object store: whose length tells that of the plaintext, as
    /// listings have to.
    pub const fn for_objects(integrity: Integrity) -> Self {
        match integrity {
            Integrity::Confidential => Self::Aes256Ctr,
            Integrity::Authenticated => Self::Aes256GcmChunks,
        }
    }

    /// The suite of a file that asks for none, with what is promised of it, which `grows` while it is synced and read,
    /// or is written once.
    pub(crate) const fn default_for(integrity: Integrity, grows: bool) -> Self {
        match (integrity, grows) {
            (Integrity::Confidential, _) => Self::Aes256Ctr,
            (Integrity::Authenticated, true) => Self::Aes256GcmLog,
            (Integrity::Authenticated, false) => Self::Aes256GcmChunks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Integrity, Suite};

    #[test]
    #[allow(clippy::unwrap_used)]
    fn numbers_and_names_are_those_of_the_format() {
        for (number, suite) in (1..).zip(Suite::ALL) {
            assert_eq!((suite.number(), Suite::from_number(number)), (number, Some(suite)));
            let json = serde_json::to_string(&suite).unwrap();
            assert_eq!(json, format!("{:?}", suite.name()));
        }
        assert_eq!((Suite::from_number(0), Suite::from_number(4)), (None, None));
    }

    #[test]
    fn what_is_asked_for_is_what_a_suite_gives() {
        assert!(Suite::FOR_BACKUPS.is_authenticated());
        for integrity in Integrity::ALL {
            let suite = Suite::for_objects(integrity);
            let authenticated = integrity == Integrity::Authenticated;
            assert_eq!(suite.is_authenticated(), authenticated);
            assert!(!suite.keeps_appends());
        }
        for grows in [false, true] {
            assert!(Suite::default_for(Integrity::Authenticated, grows).is_authenticated());
        }
        assert!(Suite::default_for(Integrity::Authenticated, true).keeps_appends());
    }
}
