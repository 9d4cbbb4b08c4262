//! One store with one index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use atrest::keyring::IntegrityPolicy;
use atrest::kms::{KeyFile, generate_key_file};
use atrest::{DataKeyId, Header, Integrity, Options, Store};
use atrest_tantivy::EncryptedDirectory;
use tantivy::collector::{Count, TopDocs};
use tantivy::query::QueryParser;
use tantivy::schema::{Field, INDEXED, STORED, Schema, TEXT, Value};
use tantivy::{Directory, Index, IndexSettings, IndexWriter, TantivyDocument, doc};
use tempfile::TempDir;

pub(crate) struct Place {
    dir: TempDir,
    integrity: Integrity,
}

impl Place {
    pub(crate) fn new(integrity: Integrity) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        generate_key_file(dir.path().join("cmek.key")).unwrap();
        Self { dir, integrity }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn store(&self) -> Store {
        self.try_store().unwrap()
    }

    pub(crate) fn try_store(&self) -> atrest::Result<Store> {
        open(self.dir.path(), self.integrity)
    }

    pub(crate) fn directory(&self, store: &Store) -> EncryptedDirectory {
        EncryptedDirectory::new(store, self.path("data"))
    }

    /// Every file of the index, of which the locks are empty.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path("data")).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let is_lock = |path: &Path| path.extension().is_some_and(|end| end == "lock");
        let is_keyring = |path: &Path| path.to_string_lossy().contains("/KEYRING");
        paths.filter(|path| !is_lock(path) && !is_keyring(path)).collect()
    }

    /// The data keys of the segments.
    pub(crate) fn segment_keys(&self) -> Vec<DataKeyId> {
        let mut files = self.files();
        files.retain(|path| path.extension().is_none_or(|end| end != "json"));
        files.iter().map(|path| header(path).data_key_id).collect()
    }
}

pub(crate) fn open(dir: &Path, integrity: Integrity) -> atrest::Result<Store> {
    let mut options = Options::default();
    options.settings.integrity = IntegrityPolicy::all(integrity);
    let kms = KeyFile::new(dir.join("cmek.key")).unwrap();
    Store::open_or_create(dir.join("data"), Arc::new(kms), options)
}

pub(crate) fn header(path: &Path) -> Header {
    let bytes = std::fs::read(path).unwrap();
    Header::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Paragraphs of what this project says about itself.
pub(crate) fn texts() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = ["docs/FORMAT.md", "ARCHITECTURE.md", "README.md", "CHANGELOG.md"];
    let all = files.map(|file| std::fs::read_to_string(root.join(file)).unwrap()).join("\n\n");
    all.split("\n\n").map(str::to_owned).filter(|text| !text.trim().is_empty()).collect()
}

pub(crate) struct Texts {
    pub(crate) index: Index,
    number: Field,
    text: Field,
}

impl Texts {
    pub(crate) fn create(directory: impl Into<Box<dyn Directory>>) -> Self {
        let mut schema = Schema::builder();
        schema.add_u64_field("number", STORED | INDEXED);
        schema.add_text_field("text", TEXT | STORED);
        let settings = IndexSettings::default();
        Self::of(Index::create(directory, schema.build(), settings).unwrap())
    }

    pub(crate) fn of(index: Index) -> Self {
        let schema = index.schema();
        let (number, text) =
            (schema.get_field("number").unwrap(), schema.get_field("text").unwrap());
        Self { index, number, text }
    }

    pub(crate) fn writer(&self) -> IndexWriter {
        let writer: IndexWriter = self.index.writer_with_num_threads(1, 15_000_000).unwrap();
        // Merged when a test says so.
        writer.set_merge_policy(Box::new(tantivy::merge_policy::NoMergePolicy));
        writer
    }

    pub(crate) fn add(
        &self,
        writer: &IndexWriter,
        number: u64,
        text: &str,
    ) -> tantivy::Result<u64> {
        writer.add_document(doc!(self.number => number, self.text => text))
    }

    pub(crate) fn merge(&self, writer: &mut IndexWriter) {
        let segments = self.index.searchable_segment_ids().unwrap();
        writer.merge(&segments).wait().unwrap();
        writer.garbage_collect_files().wait().unwrap();
    }

    /// How many there are, and the texts of the best.
    pub(crate) fn search(&self, words: &str) -> tantivy::Result<(usize, Vec<(u64, String)>)> {
        let searcher = self.index.reader()?.searcher();
        let query = QueryParser::for_index(&self.index, vec![self.text]).parse_query(words)?;
        let count = searcher.search(&query, &Count)?;
        let mut best = Vec::new();
        for (_, address) in searcher.search(&query, &TopDocs::with_limit(1000).order_by_score())? {
            let found: TantivyDocument = searcher.doc(address)?;
            let number = found.get_first(self.number).unwrap().as_u64().unwrap();
            let text = found.get_first(self.text).unwrap().as_str().unwrap();
            best.push((number, text.to_owned()));
        }
        best.sort();
        Ok((count, best))
    }
}
