//! `atrest inspect`: a file's header, without any key.

use std::path::PathBuf;

use atrest::classify::Contents;
use atrest::{
    DataKeyId, ErrorKind, FORMAT_VERSION, FileId, FileKind, HEADER_LEN, Header, StoreId, Suite,
};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Out;
use crate::paint::{BOLD, DIM, clean};
use crate::{scan, units};

const EXAMPLES: &str = "\
Examples:
  atrest inspect data/000017.sst
  atrest inspect data/000017.sst --json

JSON fields: encrypted, version, suite, kind, store_id, data_key_id, created; also path,
bytes, logical_bytes, created_ns, file_id, suite_number, chunk_bytes, found. For a file
that is not encrypted all but path, bytes and found are null, and `found` says what it is.
";

/// Show what a file's header says; needs no key.
///
/// Nothing it shows is authenticated: only a key proves a header. A file that is not
/// encrypted is no error.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The file.
    file: PathBuf,
}

/// Field names are stable.
#[derive(Default, Serialize)]
struct Report {
    encrypted: bool,
    version: Option<u16>,
    suite: Option<Suite>,
    kind: Option<FileKind>,
    store_id: Option<StoreId>,
    data_key_id: Option<DataKeyId>,
    created: Option<String>,
    path: String,
    bytes: u64,
    logical_bytes: Option<u64>,
    created_ns: Option<u64>,
    file_id: Option<FileId>,
    suite_number: Option<u8>,
    chunk_bytes: Option<u32>,
    found: String,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        if self.file.is_dir() {
            let what = "expected a file, found a directory";
            let error = atrest::Error::new(ErrorKind::InvalidArgument, what).with_path(&self.file);
            let advice = "give a file, or see a whole store with `atrest status DIR`";
            return Err(Failure::from(error).advise(advice));
        }
        let (start, bytes) = scan::start_of(&self.file)
            .map_err(|source| Failure::io("the file cannot be read", &self.file, source))?;
        let path = self.file.display().to_string();
        let report = match Header::parse(&start) {
            _ if matches!(Contents::of(&start), Contents::Unwritten) => {
                let what = "zeros, which are plaintext or a header that was never written";
                Report { path, bytes, ..Report::found(what) }
            }
            Ok(header) => Report { path, ..Report::of(&header, bytes) },
            Err(error) => match error.kind() {
                ErrorKind::NotEncrypted => Report { path, bytes, ..Report::found("plaintext") },
                ErrorKind::EmptyFile => Report { path, bytes, ..Report::found("an empty file") },
                ErrorKind::ForeignFile => {
                    let text = error.to_string();
                    let tool = text.rsplit_once("found ").map_or(text.as_str(), |(_, tool)| tool);
                    Report { path, bytes, ..Report::found(tool) }
                }
                _ => return Err(error.with_path(&self.file).into()),
            },
        };
        out.result(&report, || report.text())
    }
}

impl Report {
    fn found(what: &str) -> Self {
        Self { found: what.into(), ..Self::default() }
    }

    fn of(header: &Header, bytes: u64) -> Self {
        Self {
            encrypted: true,
            version: Some(FORMAT_VERSION),
            suite: Some(header.suite),
            kind: Some(header.kind),
            store_id: Some(header.store_id),
            data_key_id: Some(header.data_key_id),
            created: Some(units::time(header.created_ns)),
            path: String::new(),
            bytes,
            // The other suites' lengths need their tags checked.
            logical_bytes: (!header.suite.is_authenticated()).then(|| bytes - HEADER_LEN as u64),
            created_ns: Some(header.created_ns),
            file_id: (!header.file_id.is_zero()).then_some(header.file_id),
            suite_number: Some(header.suite.number()),
            chunk_bytes: header.chunk_len,
            found: "an encrypted file".into(),
        }
    }

    fn text(&self) -> String {
        let path = BOLD.paint(&clean(&self.path));
        let (Some(suite), Some(kind), Some(store_id), Some(data_key_id), Some(created)) =
            (self.suite, self.kind, self.store_id, self.data_key_id, &self.created)
        else {
            return format!("{path}: not encrypted: {}, {}", self.found, units::bytes(self.bytes));
        };
        let mut lines = vec![
            format!("{path}: encrypted, as its header says {}", DIM.paint("(not authenticated)")),
            format!("  version    {FORMAT_VERSION}"),
            format!("  suite      {}, {}", suite.number(), suite.summary()),
            format!("  kind       {}", format!("{kind:?}").to_lowercase()),
            format!("  store      {store_id}"),
            format!("  data key   {data_key_id}"),
            format!("  created    {created}"),
            format!("  on disk    {}", units::counted(self.bytes, "byte")),
        ];
        if let Some(bytes) = self.logical_bytes {
            lines.push(format!("  plaintext  {}", units::counted(bytes, "byte")));
        }
        if let Some(file_id) = self.file_id {
            lines.push(format!("  file id    {file_id}"));
        }
        lines.join("\n")
    }
}
