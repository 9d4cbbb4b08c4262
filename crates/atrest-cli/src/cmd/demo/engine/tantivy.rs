//! tantivy, on an encrypted directory: each record is a document.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use ::tantivy::directory::MmapDirectory;
use ::tantivy::merge_policy::NoMergePolicy;
use ::tantivy::schema::{Field, STORED, STRING, Schema, TEXT, Value};
use ::tantivy::store::Compressor;
use ::tantivy::{
    Directory, DocAddress, Index, IndexSettings, IndexWriter, TantivyDocument, Term, doc,
};
use atrest::{Keyring, Store};
use atrest_tantivy::EncryptedDirectory;

use super::{Check, Engine, Mode, PATH, Session, Verified, Versions, failed, names, next_version};
use crate::cmd::demo::records;
use crate::failure::{Failure, Result};

/// Memory of the one thread that indexes.
const BUFFER_BYTES: usize = 32 << 20;
/// How often progress is told, in records.
const TOLD_EVERY: u64 = 500;

pub(super) struct Tantivy;

impl Engine for Tantivy {
    fn name(&self) -> &'static str {
        "tantivy"
    }

    fn open(&self, dir: &Path, keyring: Option<&Keyring>, mode: Mode) -> Result<Box<dyn Session>> {
        let dir = dir.join(PATH);
        std::fs::create_dir_all(&dir)
            .map_err(|e| Failure::io("the directory cannot be created", &dir, e))?;
        let directory: Box<dyn Directory> = match keyring {
            Some(keyring) => {
                Box::new(EncryptedDirectory::new(&Store::over(keyring.clone())?, &dir))
            }
            None => Box::new(MmapDirectory::open(&dir).map_err(failed)?),
        };
        let mut schema = Schema::builder();
        let key = schema.add_text_field("key", STRING | STORED);
        let value = schema.add_text_field("value", TEXT | STORED);
        // Compressed, the known words would not be found without encryption either.
        let settings =
            IndexSettings { docstore_compression: Compressor::None, ..IndexSettings::default() };
        let index = if Index::exists(&*directory).map_err(failed)? {
            Index::open(directory)
        } else {
            Index::create(directory, schema.build(), settings)
        };
        let index = index.map_err(failed)?;
        let writer: IndexWriter = index.writer_with_num_threads(1, BUFFER_BYTES).map_err(failed)?;
        writer.set_merge_policy(Box::new(NoMergePolicy));
        Ok(Box::new(Open { index, writer, key, value, merges: mode == Mode::Compacting }))
    }

    fn tables(&self, dir: &Path) -> BTreeSet<PathBuf> {
        // One file of each segment stands for it.
        names(&dir.join(PATH), |path| path.extension().is_some_and(|end| end == "store"))
    }

    fn logs(&self, _dir: &Path) -> BTreeSet<PathBuf> {
        BTreeSet::new()
    }
}

struct Open {
    index: Index,
    writer: IndexWriter,
    key: Field,
    value: Field,
    merges: bool,
}

impl Session for Open {
    fn write(
        &mut self,
        versions: &mut Versions,
        numbers: &mut dyn Iterator<Item = u64>,
        wrote: &dyn Fn(u64),
    ) -> Result<u64> {
        let (mut bytes, mut value) = (0, String::new());
        let mut count = 0;
        for number in numbers {
            let key = next_version(versions, number, &mut value);
            bytes += (key.len() + value.len()) as u64;
            self.writer.delete_term(Term::from_field_text(self.key, &key));
            let document = doc!(self.key => key, self.value => value.as_str());
            self.writer.add_document(document).map_err(failed)?;
            count += 1;
            if count == TOLD_EVERY {
                wrote(std::mem::take(&mut count));
            }
        }
        wrote(count);
        Ok(bytes)
    }

    fn flush(&mut self) -> Result<()> {
        self.writer.commit().map_err(failed)?;
        if self.merges {
            let segments = self.index.searchable_segment_ids().map_err(failed)?;
            self.writer.merge(&segments).wait().map_err(failed)?;
            self.writer.garbage_collect_files().wait().map_err(failed)?;
        }
        Ok(())
    }

    fn verify(&self, versions: &Versions, read: &dyn Fn(u64)) -> Result<Verified> {
        let searcher = self.index.reader().map_err(failed)?.searcher();
        let mut check = Check::new(versions);
        for (ord, segment) in (0..).zip(searcher.segment_readers()) {
            for id in segment.doc_ids_alive() {
                let found: TantivyDocument =
                    searcher.doc(DocAddress::new(ord, id)).map_err(failed)?;
                let text = |field| found.get_first(field).and_then(|value| value.as_str());
                let number = text(self.key).and_then(|key| records::number(key.as_bytes()));
                check.add(number, text(self.value).unwrap_or_default().as_bytes());
                read(1);
            }
        }
        Ok(check.verified)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.writer.wait_merging_threads().map_err(failed)
    }
}
