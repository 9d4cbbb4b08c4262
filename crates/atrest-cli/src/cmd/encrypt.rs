//! `atrest encrypt`: a file or standard input into a store.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};

use atrest::keyring::{KeyspaceId, KeyspaceStatus};
use atrest::{DataKeyId, ErrorKind, FileKind, FileSpec, Header, Keyring, Suite};
use clap::ValueEnum;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use rustix::fs::OFlags;
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Out;
use crate::paint::{BOLD, clean};
use crate::staged::Staged;
use crate::store::StoreArgs;
use crate::{progress, scan, units};

const EXAMPLES: &str = "\
Examples:
  atrest encrypt data report.pdf report.pdf --cmek file:///etc/app/cmek.key
  pg_dump shop | atrest encrypt data - shop.sql --cmek env:CMEK
  ATREST_CMEK=passphrase: atrest encrypt data wal.log 000001.log --kind log
  atrest encrypt data invoice.pdf invoice.pdf --keyspace tenant-17 --cmek env:CMEK
  atrest encrypt data report.pdf report.pdf --suite aes256-gcm-chunks --cmek env:CMEK

JSON fields: name, bytes, physical_bytes, kind, suite, data_key_id
";

/// Bytes read at a time.
const PIECE_LEN: usize = 256 << 10;

/// Encrypt a file, or standard input, into a store.
///
/// NAME appears only when it is whole and on disk: whatever interrupts the command, no
/// half file stands under it. The data key rotates first if it is due.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    at: StoreArgs,
    /// The file to encrypt; - for standard input.
    src: PathBuf,
    /// Its name in the store; must not exist unless --force is given.
    name: String,
    /// What is in the file.
    #[arg(long, value_enum, default_value_t = Kind::Other)]
    kind: Kind,
    /// How to encrypt it; by default as the store asks for.
    #[arg(long, value_parser = suites())]
    suite: Option<Suite>,
    /// Under whose data keys; `atrest keys add-keyspace` adds one. By default under those
    /// that every store has.
    #[arg(long, value_name = "NAME")]
    keyspace: Option<String>,
    /// Replace NAME if it exists: by a new file under a new key.
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Kind {
    /// A sorted table
    Table,
    /// A write-ahead log
    Log,
    /// A manifest
    Manifest,
    /// A blob or value log
    Blob,
    /// Anything else
    Other,
}

/// Each suite by its name, with a line of help.
fn suites() -> impl TypedValueParser<Value = Suite> {
    let names = Suite::ALL.map(|suite| PossibleValue::new(suite.name()).help(suite.summary()));
    let named = |name: String| Suite::ALL.into_iter().find(|suite| suite.name() == name);
    PossibleValuesParser::new(names).try_map(move |name| named(name).ok_or("no such suite"))
}

impl From<Kind> for FileKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Table => Self::Table,
            Kind::Log => Self::Log,
            Kind::Manifest => Self::Manifest,
            Kind::Blob => Self::Blob,
            Kind::Other => Self::Other,
        }
    }
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    name: String,
    bytes: u64,
    physical_bytes: u64,
    kind: FileKind,
    suite: Suite,
    data_key_id: DataKeyId,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        // Before the passphrase is asked for: what is wrong with the names.
        let target = self.at.resolve(&self.name)?;
        let (mut source, len) = open_source(&self.src)?;
        let staged = Staged::new(&target, self.force)?;
        let store = self.at.open()?;
        store.commit(|store| store.keyring().maintain())?;
        let mut spec = FileSpec::new(self.kind.into());
        if let Some(suite) = self.suite {
            spec = spec.suite(suite);
        }
        if let Some(name) = &self.keyspace {
            spec = spec.keyspace(keyspace(store.keyring(), name)?);
        }
        let writer = store.files().create_new(staged.path(), spec);
        let mut writer = writer.map_err(|e| named(e, &target))?;
        let progress = progress::bytes("encrypting", len, out.is_json());
        let mut piece = vec![0; PIECE_LEN];
        loop {
            match source.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => {
                    writer.append(&piece[..read]).map_err(|e| named(e, &target))?;
                    progress.inc(read as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Failure::io("the source cannot be read", &self.src, error));
                }
            }
        }
        let sealed = writer.finish().map_err(|e| named(e, &target))?;
        progress.finish_and_clear();
        let header = hand_over(staged.path(), &sealed.commitment, &target)?;
        staged.publish(self.force)?;
        // Keeps the count of bytes under the data key.
        store.close()?;
        let report = Report {
            name: self.name.clone(),
            bytes: sealed.len,
            physical_bytes: sealed.physical_len,
            kind: self.kind.into(),
            // The store chose it if the user did not.
            suite: header.suite,
            data_key_id: sealed.data_key_id,
        };
        out.result(&report, || {
            format!(
                "Encrypted {} as {} under data key {}.",
                units::counted(report.bytes, "byte"),
                BOLD.paint(&clean(&self.name)),
                report.data_key_id
            )
        })
    }
}

fn keyspace(keyring: &Keyring, name: &str) -> Result<KeyspaceId> {
    let mut keyspaces = keyring.keyspaces().list().into_iter();
    match keyspaces.find(|keyspace| keyspace.name == name) {
        Some(KeyspaceStatus { id, active: Some(_), .. }) => Ok(id),
        Some(_) => Err(Failure::new(
            ErrorKind::KeyDestroyed,
            format!("expected a keyspace with data keys, found {name:?}, which was shredded"),
        )
        .advise("add a keyspace of another name with `atrest keys add-keyspace`")),
        None => Err(Failure::new(
            ErrorKind::UnknownKey,
            format!("expected a keyspace of the store, found {name:?}"),
        )
        .advise("see `atrest keys keyspaces`, or add it with `atrest keys add-keyspace`")),
    }
}

/// Gives a file that the superuser writes to whoever has the directory: the engine is to
/// replace it. Returns its header, which tells it from what its new owner may have put in its
/// place by now: any file of the superuser's, or a link to one.
fn hand_over(written: &Path, commitment: &[u8; 32], target: &Path) -> Result<Header> {
    let unread = |source| Failure::io("the file cannot be read back", written, source);
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(written).map_err(unread)?;
    let header = Header::parse(&scan::start_in(&file).map_err(unread)?);
    let header = header.ok().filter(|header| header.commitment == *commitment);
    let Some(header) = header else {
        let what = "expected the file that was written, found another in its place";
        let error = atrest::Error::new(ErrorKind::IdentityMismatch, what).with_path(written);
        return Err(Failure::from(error).advise("find out who else writes to the directory"));
    };
    let fail =
        |source| Failure::io("the directory's owner cannot be given the file", target, source);
    let directory = target.parent().unwrap_or(Path::new(".")).metadata().map_err(fail)?;
    // Nobody else may give a file away, or writes into another's directory without meaning to.
    if file.metadata().map_err(fail)?.uid() == 0 && directory.uid() != 0 {
        fchown(&file, Some(directory.uid()), Some(directory.gid())).map_err(fail)?;
    }
    Ok(header)
}

/// The error with the name the user gave, since the temporary one is gone.
fn named(error: atrest::Error, target: &Path) -> Failure {
    let what = match error.kind() {
        ErrorKind::Io(_) => "the file cannot be written",
        _ => "the file cannot be encrypted",
    };
    atrest::Error::new(error.kind(), what).with_path(target).with_source(error).into()
}

fn open_source(path: &Path) -> Result<(Box<dyn Read>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let fail = |source| Failure::io("the source cannot be opened", path, source);
    let file = File::open(path).map_err(fail)?;
    let metadata = file.metadata().map_err(fail)?;
    if metadata.is_dir() {
        let what = "expected a file, found a directory";
        return Err(atrest::Error::new(ErrorKind::InvalidArgument, what).with_path(path).into());
    }
    Ok((Box::new(file), metadata.is_file().then_some(metadata.len())))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{chown, symlink};

    use atrest::{Options, Store};

    use super::*;

    #[test]
    fn root_gives_away_what_it_wrote_and_nothing_else() {
        const USER: u32 = 65534;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        if chown(dir.path(), Some(USER), Some(USER)).is_err() {
            return eprintln!("SKIPPED: not the superuser, who alone gives files away");
        }
        atrest::kms::generate_key_file(at("key")).unwrap();
        let key = atrest::kms::from_uri(&format!("file://{}", at("key").display())).unwrap();
        let store = Store::create(dir.path(), key, Options::default()).unwrap();
        let write = |name: &str| {
            let mut writer = store.files().create_new(at(name), FileKind::Other).unwrap();
            writer.append(b"words").unwrap();
            writer.finish().unwrap().commitment
        };
        let (ours, other) = (write("ours"), write("other"));
        fs::write(at("secret"), b"root's").unwrap();
        symlink(at("ours"), at("to-ours")).unwrap();
        symlink(at("secret"), at("to-secret")).unwrap();
        for name in ["to-secret", "to-ours", "secret", "other"] {
            assert!(hand_over(&at(name), &ours, &at("new")).is_err(), "{name}");
        }
        let owner = |name: &str| at(name).metadata().unwrap().uid();
        assert_eq!(["secret", "ours", "other"].map(owner), [0; 3]);
        for (name, commitment) in [("ours", ours), ("other", other)] {
            hand_over(&at(name), &commitment, &at("new")).unwrap();
            assert_eq!(owner(name), USER);
        }
    }
}
