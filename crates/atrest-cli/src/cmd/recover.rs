//! `atrest recover`: a lost or damaged keyring.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::keyring::{ImageInfo, ImagePlace, KEYRING_FILE, Recovery};
use atrest::kms::Kms;
use atrest::{DataKeyId, Error, ErrorKind, StoreId};
use serde::Serialize;

use crate::failure::{Failure, Result};
use crate::output::Out;
use crate::paint::{BOLD, GREEN, YELLOW, clean};
use crate::place::refuse_uri;
use crate::scan::{Usage, scan};
use crate::store::{self, StoreArgs};
use crate::table::{Align, Cell, Table};
use crate::units;

/// Show the images of a store's keyring and what each would open, or put one back.
///
/// Without --generation, --from-mirror, --from-current or --forget-aside nothing is changed.
/// With one of the first three that image becomes the keyring; what was in its place is kept
/// as KEYRING.bad-*, and a new data key is started. Files under data keys that the image does
/// not have stay unreadable, so choose the image that opens them all.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest recover data --cmek file:///etc/app/cmek.key
  atrest recover data --cmek file:///etc/app/cmek.key --generation 41
  atrest recover data --cmek file:///etc/app/cmek.key --mirror /mnt/b/keyring --from-mirror

JSON fields: directory, images [place, info, data_keys, directories, problem, files, files_lost,
bytes_lost], not_looked_at (directories of the store that are not there), recovered [place, generation, kept_aside, data_key_id] or null, forgotten (names)
")]
pub(crate) struct Args {
    #[command(flatten)]
    at: StoreArgs,
    /// Put the kept image of this generation back.
    #[arg(long, value_name = "NUMBER", conflicts_with = "from_mirror")]
    generation: Option<u64>,
    /// Go on with the present keyring although newer images stand beside it.
    #[arg(long, conflicts_with_all = ["generation", "from_mirror"])]
    from_current: bool,
    /// Delete what recoveries put aside (KEYRING.bad-*), and older images that could not be
    /// removed: nothing under keys that only they hold can be read again.
    #[arg(long, conflicts_with_all = ["generation", "from_mirror", "from_current"])]
    forget_aside: bool,
    /// Put the mirror's image back.
    #[arg(long, requires = "mirror")]
    from_mirror: bool,
}

/// Field names are stable.
#[derive(Serialize)]
struct Report {
    directory: String,
    images: Vec<ImageReport>,
    /// Directories that an image knows of, where more files may be.
    not_looked_at: Vec<String>,
    recovered: Option<Recovery>,
    /// Names of copies of the keyring that were deleted.
    forgotten: Vec<String>,
}

#[derive(Serialize)]
struct ImageReport {
    #[serde(flatten)]
    image: ImageInfo,
    /// Encrypted files that it opens.
    files: u64,
    /// Encrypted files whose data key it does not have.
    files_lost: u64,
    bytes_lost: u64,
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        let dir = &self.at.dir;
        refuse_uri(dir)?;
        dir.metadata().map_err(|e| Failure::io("the store cannot be opened", dir, e))?;
        let keys = self.at.cmek.some()?;
        let images = self.at.images(&keys)?;
        if images.is_empty() {
            let what = "there is neither a keyring nor an older image of one";
            let error = Error::new(ErrorKind::KeyringMissing, what).with_path(dir);
            return Err(Failure::from(error)
                .advise("give the mirror's directory with --mirror, or restore a backup"));
        }
        let mut files = scan(dir, None, out.is_json())?;
        let mut not_looked_at = Vec::new();
        for (other, store_id) in elsewhere(dir, &images)? {
            let found =
                store::is_there(&other, store_id).then(|| scan(&other, None, out.is_json()));
            match found {
                Some(Ok(found)) => files.add(found),
                _ => {
                    let shown = other.display().to_string();
                    out.warn(&format!("not looked at: {}", clean(&shown)));
                    not_looked_at.push(shown);
                }
            }
        }
        let images = images.into_iter().map(|image| ImageReport::new(image, &files.by_key));
        let images = images.collect();
        let recovered = self.chosen().map(|place| self.recover(place, keys)).transpose()?;
        let forgotten = if self.forget_aside { self.forget()? } else { Vec::new() };
        let directory = dir.display().to_string();
        let report = Report { directory, images, not_looked_at, recovered, forgotten };
        out.result(&report, || report.text(dir))
    }

    /// The names of what was put aside and is gone.
    fn forget(&self) -> Result<Vec<String>> {
        let store = self.at.open()?;
        let keys = store.keyring().keys();
        let mut forgotten = keys.copies_aside()?;
        keys.danger_forget_aside()?;
        // What was left alone, or came back meanwhile, is not gone.
        let left = keys.copies_aside()?;
        forgotten.retain(|name| !left.contains(name));
        Ok(forgotten)
    }

    fn chosen(&self) -> Option<ImagePlace> {
        match self.generation {
            Some(generation) => Some(ImagePlace::Kept(generation)),
            None if self.from_current => Some(ImagePlace::Current),
            None => self.from_mirror.then_some(ImagePlace::Mirror),
        }
    }

    fn recover(&self, place: ImagePlace, keys: Vec<Arc<dyn Kms>>) -> Result<Recovery> {
        let recovered = self.at.recover(place, keys);
        recovered.map_err(|failure| match failure.kind() {
            Some(ErrorKind::KeyringExists) => {
                failure.advise("use the store as it is: there is nothing to recover")
            }
            Some(ErrorKind::KeyringMissing) => {
                failure.advise("choose one of the images that `atrest recover DIR` shows")
            }
            _ => failure,
        })
    }
}

/// The store's other directories, by the images that open: the newest need not know most.
fn elsewhere(dir: &Path, images: &[ImageInfo]) -> Result<BTreeMap<PathBuf, StoreId>> {
    let mut all = BTreeMap::new();
    for image in images {
        let Some(info) = &image.info else { continue };
        let others = store::without(dir, image.directories.clone())?;
        all.extend(others.into_iter().map(|other| (other, info.store_id)));
    }
    Ok(all)
}

impl ImageReport {
    fn new(image: ImageInfo, by_key: &BTreeMap<DataKeyId, Usage>) -> Self {
        let mut report = Self { image, files: 0, files_lost: 0, bytes_lost: 0 };
        let keys = report.image.data_keys.clone().unwrap_or_default();
        for (id, usage) in by_key {
            if keys.contains(id) {
                report.files += usage.files;
            } else {
                report.files_lost += usage.files;
                report.bytes_lost += usage.bytes;
            }
        }
        report
    }

    fn name(&self) -> String {
        match self.image.place {
            ImagePlace::Current => KEYRING_FILE.into(),
            ImagePlace::Kept(generation) => format!("{KEYRING_FILE}.{generation}"),
            ImagePlace::Mirror => "mirror".into(),
            _ => "other".into(),
        }
    }
}

impl Report {
    fn text(&self, dir: &Path) -> String {
        use Align::{Left, Right};
        let mut table = Table::new(&[
            ("image", Left),
            ("generation", Right),
            ("written", Left),
            ("data keys", Right),
            ("files it opens", Right),
            ("it does not", Right),
            ("", Left),
        ]);
        for report in &self.images {
            let info = report.image.info.as_ref();
            let keys = report.image.data_keys.as_ref().map(Vec::len);
            let verdict = match (&report.image.problem, report.files_lost) {
                (Some(problem), _) => Cell::painted(clean(problem), YELLOW),
                (None, 0) if self.not_looked_at.is_empty() => Cell::painted("opens all", GREEN),
                (None, 0) => Cell::painted("opens all that is there", YELLOW),
                (None, _) => {
                    let lost = units::bytes(report.bytes_lost);
                    Cell::painted(format!("{lost} stay unreadable"), YELLOW)
                }
            };
            table.row([
                report.name().into(),
                info.map_or(String::new(), |info| info.generation.to_string()).into(),
                info.map_or(String::new(), |info| units::time(info.written_ns)).into(),
                keys.map_or(String::new(), |keys| keys.to_string()).into(),
                units::count(report.files).into(),
                units::count(report.files_lost).into(),
                verdict,
            ]);
        }
        let head = BOLD.paint(&clean(&self.directory));
        let foot = match &self.recovered {
            Some(recovered) => {
                let aside: Vec<_> = recovered
                    .kept_aside
                    .iter()
                    .map(|path| {
                        format!("\n  kept aside     {}", clean(&path.display().to_string()))
                    })
                    .collect();
                format!(
                    "Recovered generation {}.{}\n  new data key   {}",
                    recovered.generation,
                    aside.concat(),
                    recovered.data_key_id
                )
            }
            None if self.forgotten.is_empty() => format!(
                "Nothing was changed. To put an image back: atrest recover {} --generation NUMBER",
                clean(&dir.display().to_string())
            ),
            None => {
                format!("Deleted what recoveries put aside: {}", clean(&self.forgotten.join(", ")))
            }
        };
        format!("{head}\n{}\n\n{foot}", table.render())
    }
}
