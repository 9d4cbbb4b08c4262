//! tantivy, plain (mapped files) and encrypted: an index of the sources and texts of the crates
//! that cargo has fetched on this machine, 32 MiB of them.

use std::hint::black_box;
use std::path::{Path, PathBuf};

use atrest::Integrity;
use atrest_tantivy::EncryptedDirectory;
use tantivy::collector::TopDocs;
use tantivy::directory::MmapDirectory;
use tantivy::query::QueryParser;
use tantivy::schema::{Field, STORED, Schema, TEXT};
use tantivy::{
    Directory, Index, IndexReader, IndexSettings, IndexWriter, Searcher, TantivyDocument, doc,
};

use crate::Row;
use crate::adapters::{KINDS, Operation, Subject, Work, compare, store};
use crate::measure::Effort;

const TEXTS_BYTES: usize = 32 << 20;
/// Texts of which an index is made in one call.
const BUILT: usize = 400;

/// Words that people look for in sources and texts.
const QUERIES: [&str; 12] = [
    "license",
    "\"permission is hereby granted\"",
    "unsafe AND pointer",
    "serialize OR deserialize",
    "async runtime",
    "\"zero copy\"",
    "encryption",
    "hash AND map AND entry",
    "deprecated",
    "thread -safe",
    "utf8 OR unicode",
    "overflow",
];

/// The texts, the same in each run on one machine.
fn texts() -> Vec<String> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from).unwrap_or_else(|| {
        PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo")
    });
    let (mut texts, mut bytes) = (Vec::new(), 0);
    gather(&home.join("registry/src"), &mut texts, &mut bytes);
    assert!(bytes >= TEXTS_BYTES / 4, "expected cargo's sources in {}", home.display());
    texts
}

fn gather(dir: &Path, texts: &mut Vec<String>, bytes: &mut usize) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if *bytes >= TEXTS_BYTES {
            return;
        }
        let is_text = path.extension().is_some_and(|end| end == "rs" || end == "md");
        if path.is_dir() {
            gather(&path, texts, bytes);
        } else if is_text && let Ok(text) = std::fs::read_to_string(&path) {
            *bytes += text.len();
            texts.push(text);
        }
    }
}

/// Makes an empty directory of a name.
type Directories<'a> = Box<dyn Fn(&str) -> Box<dyn Directory> + 'a>;

struct Search<'a> {
    directory: Directories<'a>,
    texts: &'a [String],
    field: Field,
    schema: Schema,
    searcher: Searcher,
    queries: QueryParser,
}

impl<'a> Search<'a> {
    fn new(texts: &'a [String], directory: Directories<'a>) -> Self {
        let mut schema = Schema::builder();
        let field = schema.add_text_field("text", TEXT | STORED);
        let schema = schema.build();
        let index = build(directory("all"), &schema, field, texts, 1000);
        let queries = QueryParser::for_index(&index, vec![field]);
        let reader: IndexReader = index.reader().unwrap();
        let searcher = reader.searcher();
        Self { directory, texts, field, schema, searcher, queries }
    }
}

/// An index with a commit for each `step` texts, merged in the end.
fn build(
    directory: Box<dyn Directory>,
    schema: &Schema,
    field: Field,
    texts: &[String],
    step: usize,
) -> Index {
    let index = Index::create(directory, schema.clone(), IndexSettings::default()).unwrap();
    let mut writer: IndexWriter = index.writer_with_num_threads(1, 64 << 20).unwrap();
    for texts in texts.chunks(step) {
        for text in texts {
            writer.add_document(doc!(field => text.as_str())).unwrap();
        }
        writer.commit().unwrap();
    }
    writer.merge(&index.searchable_segment_ids().unwrap()).wait().unwrap();
    writer.wait_merging_threads().unwrap();
    index
}

impl Subject for Search<'_> {
    fn work(&self, operation: Operation) -> Work<'_> {
        match operation.name {
            "index" => Box::new(move || {
                build(
                    (self.directory)("built"),
                    &self.schema,
                    self.field,
                    &self.texts[..BUILT],
                    100,
                );
            }),
            "search" => Box::new(move || {
                for query in QUERIES {
                    let query = self.queries.parse_query(query).unwrap();
                    let best = TopDocs::with_limit(10).order_by_score();
                    for (_, address) in self.searcher.search(&query, &best).unwrap() {
                        black_box(self.searcher.doc::<TantivyDocument>(address).unwrap());
                    }
                }
            }),
            _ => unreachable!("no operation named {}", operation.name),
        }
    }
}

/// Every operation, encrypted against plain.
///
/// # Panics
/// When the temporary directory cannot be written, and where cargo has fetched hardly anything.
pub fn rows(effort: Effort, progress: impl FnMut(&str)) -> Vec<Row> {
    let operations = [
        Operation { name: "index", units: BUILT as u64 },
        Operation { name: "search", units: QUERIES.len() as u64 },
    ];
    let (dir, texts) = (tempfile::tempdir().unwrap(), texts());
    // Each in an empty directory.
    let fresh = |path: PathBuf| {
        if path.exists() {
            std::fs::remove_dir_all(&path).unwrap();
        }
        std::fs::create_dir_all(&path).unwrap();
        path
    };
    let make = |kind: Option<Integrity>| -> Box<dyn Subject> {
        let directory: Directories<'_> = match kind {
            None => {
                let dir = dir.path().join("plain");
                Box::new(move |name| Box::new(MmapDirectory::open(fresh(dir.join(name))).unwrap()))
            }
            Some(integrity) => {
                let dir = dir.path().join(integrity.name());
                let store = store(&dir, integrity);
                Box::new(move |name| {
                    Box::new(EncryptedDirectory::new(&store, fresh(dir.join(name))))
                })
            }
        };
        Box::new(Search::new(&texts, directory))
    };
    compare(effort, "tantivy", &operations, &KINDS, make, progress)
}
