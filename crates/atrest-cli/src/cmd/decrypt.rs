//! `atrest decrypt`: a file out of a store.

use std::fs::{Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use atrest::fs::TornFile;
use atrest::{ErrorKind, Reader, Suite};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Out;
use crate::paint::{BOLD, clean};
use crate::scan::open_regular;
use crate::staged::Staged;
use crate::store::StoreArgs;
use crate::{progress, torn, units};

const EXAMPLES: &str = "\
Examples:
  atrest decrypt data report.pdf -o report.pdf --cmek file:///etc/app/cmek.key
  atrest decrypt data shop.sql --cmek env:CMEK | psql shop
  atrest decrypt data shop.sql -o shop.sql --force --cmek passphrase:

JSON fields: name, bytes, suite, authenticated, output, torn (null, or path, reason,
kept_bytes, lost_bytes). With the data on standard output, the JSON is on standard error.
`suite` is null for a plaintext file the store allows.
";

/// Bytes read at a time.
const PIECE_LEN: usize = 1 << 20;

/// Decrypt a file of a store, to standard output or to OUT.
///
/// OUT appears only when it is whole and on disk, readable by its owner alone; a killed
/// command leaves plaintext beside it, as .atrest-partial-*. The store is only read, beside
/// a writer or not. Suite 1 does not notice a changed body: what comes out is as
/// trustworthy as the disk it was on. The authenticated suites refuse it. Of a log that is
/// cut off or damaged comes what is in front, with exit code 13.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    at: StoreArgs,
    /// The file's name in the store.
    name: String,
    /// Where to put it instead of standard output; must not exist unless --force is given.
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Replace OUT if it exists.
    #[arg(long, requires = "output")]
    force: bool,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    name: String,
    bytes: u64,
    suite: Option<Suite>,
    authenticated: bool,
    output: Option<String>,
    torn: Option<TornFile>,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let path = self.at.resolve(&self.name)?;
        let output = self.output.as_deref().filter(|output| *output != Path::new("-"));
        let target = output.map(|output| Target::new(output, self.force)).transpose()?;
        // Before the passphrase is asked for: whether there is such a file.
        open_regular(&path).map_err(|e| Failure::io("the file cannot be opened", &path, e))?;
        let store = self.at.open_read_only()?;
        let reader = store.files().open(&path)?;
        let bytes = match target {
            Some(target) => target.fill(&reader, self.force, out.is_json())?,
            None => {
                let mut stdout = io::stdout().lock();
                let fail = Failure::stdout;
                let bytes = copy(&reader, &mut stdout, fail, out.is_json())?;
                stdout.flush().map_err(fail)?;
                bytes
            }
        };
        let torn = reader.torn().map(|torn| TornFile::new(path.clone(), &torn));
        let report = Report {
            name: self.name.clone(),
            bytes,
            suite: reader.suite(),
            authenticated: reader.suite().is_some_and(Suite::is_authenticated),
            output: output.map(|output| output.display().to_string()),
            torn,
        };
        let end = torn::fail(report.torn.as_slice());
        match (&report.output, &end) {
            (None, Ok(())) => out.result_aside(&report),
            (None, Err(_)) => out.result_beside_failure(&report),
            (Some(to), _) => out.result(&report, || report.text(to))?,
        }
        end
    }
}

impl Report {
    fn text(&self, to: &str) -> String {
        let done = if self.suite.is_some() { "Decrypted" } else { "Copied the plaintext file," };
        let bytes = units::counted(self.bytes, "byte");
        format!("{done} {bytes} to {}.", BOLD.paint(&clean(to)))
    }
}

/// Where the plaintext goes.
enum Target {
    /// Under a temporary name until it is whole.
    Staged(Staged),
    /// A device or pipe, which cannot be renamed over.
    Direct(PathBuf),
}

impl Target {
    fn new(path: &Path, force: bool) -> Result<Self> {
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => {
                let what = "expected a file to write, found a directory";
                Err(atrest::Error::new(ErrorKind::InvalidArgument, what).with_path(path).into())
            }
            Ok(metadata) if !metadata.is_file() => {
                check_direct(&metadata, path)?;
                Ok(Self::Direct(path.to_owned()))
            }
            _ => Ok(Self::Staged(Staged::new(path, force)?)),
        }
    }

    fn fill(self, reader: &Reader, force: bool, json: bool) -> Result<u64> {
        let path = match &self {
            Self::Staged(staged) => staged.path(),
            Self::Direct(path) => path,
        };
        let fail = |source| Failure::io("the output cannot be written", path, source);
        let mut options = OpenOptions::new();
        match &self {
            // The plaintext of an encrypted file is for its owner alone.
            Self::Staged(_) => options.write(true).create_new(true).mode(0o600),
            Self::Direct(_) => options.write(true),
        };
        let mut file = options.open(path).map_err(fail)?;
        if let Self::Direct(path) = &self {
            // Another thing may have taken its place.
            check_direct(&file.metadata().map_err(fail)?, path)?;
        }
        let bytes = copy(reader, &mut file, fail, json)?;
        if let Self::Staged(staged) = self {
            let synced = file.sync_all();
            synced.map_err(|e| Failure::io("the output cannot be written", staged.path(), e))?;
            staged.publish(force)?;
        }
        Ok(bytes)
    }
}

/// Refuses what is written in place but is neither a device nor a pipe of the user's own:
/// in another's, plaintext would go to whoever waits at its end.
fn check_direct(metadata: &Metadata, path: &Path) -> Result<()> {
    let kind = metadata.file_type();
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if kind.is_char_device() || kind.is_block_device() || (kind.is_fifo() && ours) {
        return Ok(());
    }
    let what = "expected a file, a device or a pipe of your own to write";
    Err(atrest::Error::new(ErrorKind::InvalidArgument, what).with_path(path).into())
}

fn copy(
    reader: &Reader,
    to: &mut dyn Write,
    fail: impl Fn(io::Error) -> Failure,
    json: bool,
) -> Result<u64> {
    let progress = progress::bytes("decrypting", Some(reader.len()?), json);
    let mut piece = vec![0; PIECE_LEN];
    let mut offset = 0;
    loop {
        let read = reader.read_at(&mut piece, offset)?;
        if read == 0 {
            progress.finish_and_clear();
            return Ok(offset);
        }
        to.write_all(&piece[..read]).map_err(&fail)?;
        offset += read as u64;
        progress.inc(read as u64);
    }
}
