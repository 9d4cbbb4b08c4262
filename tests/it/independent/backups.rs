//! Chains of backups: what each implementation writes the other reads, restores and refuses.

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use atrest::backup::{Chain, DirectoryTarget, RestoreSpec, Snapshot};
use atrest::kms::Kms;
use atrest::names::is_keyring_name;
use serde_json::{Map, Value, json};

use super::{
    Random, Step, available, cases_of, difference, list_of, name, read_file, seeds, step, text,
};
use crate::support::{key_file, manual};
use atrest::Store;
use proptest::prelude::*;

fn go_on(_: atrest::progress::WorkProgress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn refused(error: &atrest::Error) -> Value {
    json!({ "refused": name(error.kind()) })
}

fn open(dir: &Path, kms: &Arc<dyn Kms>) -> Result<Chain, atrest::Error> {
    Chain::open_read_only(DirectoryTarget::new(dir), vec![kms.clone()])
}

fn listed(dir: &Path, kms: &Arc<dyn Kms>) -> Result<Value, atrest::Error> {
    let infos = open(dir, kms)?.list()?;
    let shown = infos.iter().map(|info| {
        json!({
            "number": info.number,
            "created_ns": info.created_ns,
            "source_store_id": info.source_store_id,
            "source_generation": info.source_generation,
            "files": info.files,
            "bytes": info.bytes,
            "lacks": info.lacks.len(),
        })
    });
    Ok(shown.collect())
}

/// What a restore of the last backup leaves, by its path.
fn restored(dir: &Path, to: &Path, kms: &Arc<dyn Kms>) -> Result<Value, atrest::Error> {
    open(dir, kms)?.restore(&RestoreSpec::new(to, kms.clone()), &go_on)?;
    let store = Store::open_read_only(to, kms.clone(), manual())?;
    let mut found = Map::new();
    add(&store, to, to, &mut found)?;
    Ok(Value::Object(found))
}

fn add(store: &Store, root: &Path, dir: &Path, to: &mut Map<String, Value>) -> atrest::Result<()> {
    for path in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if is_keyring_name(path.file_name().unwrap().as_encoded_bytes()) {
            continue;
        }
        let metadata = path.metadata().unwrap();
        if metadata.is_dir() {
            add(store, root, &path, to)?;
            continue;
        }
        let mut about = if metadata.len() == 0 {
            json!({ "len": 0, "sha256": crate::golden::describe::sha256(b"") })
        } else {
            read_file(store, &path, &Value::Null)?
        };
        let about = about.as_object_mut().unwrap();
        about.remove("torn");
        if about.get("suite").is_some_and(|suite| !suite.is_null()) {
            let header = atrest::Header::parse(&std::fs::read(&path).unwrap())?;
            about.insert("kind".into(), json!(header.kind.number()));
            about.insert("file_id".into(), json!(header.file_id));
        } else {
            about.remove("suite");
        }
        about.insert("mode".into(), json!(metadata.permissions().mode() & 0o7777));
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        to.insert(name, Value::Object(std::mem::take(about)));
    }
    Ok(())
}

/// Holds the library to what the text says of each chain. Returns how many there were.
fn check(cases: &Value, work: &Path) -> usize {
    let kms = key_file(Path::new(text(&cases["key_file"])));
    let mut differ = Vec::new();
    for (number, case) in list_of(&cases["cases"]).iter().enumerate() {
        let dir = work.join(format!("case {number}"));
        std::fs::create_dir_all(dir.join("files")).unwrap();
        let mut files = cases["files"].as_object().unwrap().clone();
        files.extend(case["changed"].as_object().unwrap().clone());
        for (name, image) in files.iter().filter(|(_, image)| !image.is_null()) {
            // The key ring would be given the rights of the first one.
            std::fs::copy(text(image), dir.join(name)).unwrap();
        }
        let mut compare = |what: &str, found: Result<Value, atrest::Error>, expected: &Value| {
            let found =
                found.map_or_else(|error| refused(&error), |found| json!({ "good": found }));
            let what = format!("{}, {what}", text(&case["what"]));
            differ.extend(difference(&what, &found, expected));
        };
        compare("lists", listed(&dir, &kms), &case["lists"]);
        if !case["restores"].is_null() {
            let to = work.join("restored");
            compare("restores", restored(&dir, &to, &kms), &case["restores"]);
            drop(std::fs::remove_dir_all(to));
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
    let count = list_of(&cases["cases"]).len();
    assert!(differ.is_empty(), "{} of {count} differ:\n{}", differ.len(), differ.join("\n"));
    count
}

#[test]
fn backups_that_the_text_alone_writes_are_read_and_refused_alike() {
    if !available() {
        return;
    }
    let mut count = 0;
    for seed in seeds().step_by(2) {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let cases = cases_of("backups.py", &[&"--seed", &seed.to_string()], &out);
        count += std::panic::catch_unwind(|| check(&cases, dir.path()))
            .unwrap_or_else(|_| panic!("see above: seed {seed}"));
    }
    eprintln!("{count} chains that the text alone wrote");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1, max_shrink_iters: 10, ..ProptestConfig::default() })]

    #[test]
    fn backups_of_the_library_are_read_and_refused_by_the_text_alone(
        steps in prop::collection::vec(step(), 5..15), later in prop::collection::vec(step(), 1..5),
        seed in 0..1000_u64,
    ) {
        if available() {
            let mut random = Random::with_files();
            let dir = random.at.dir.path().join("chain");
            std::fs::create_dir(&dir).unwrap();
            let key = random.new_key();
            for steps in [&steps, &later] {
                for step in steps {
                    match step {
                        // Files of suite 1 that are there would be refused until somebody has
                        // re-encrypted them, by a backup too (M9).
                        Step::Configure(number) if number.is_multiple_of(5) => {
                            random.run(&Step::Configure(number ^ 1));
                        }
                        step => random.run(step),
                    }
                }
                let chain = Chain::open_or_create(DirectoryTarget::new(&dir), key_file(&key)).unwrap();
                let store = random.store.as_ref().unwrap();
                let snapshot = Snapshot::take(store, random.at.data()).unwrap();
                chain.back_up(store, &snapshot, &go_on).unwrap();
            }
            let out = random.at.dir.path().join("out");
            let cases = cases_of(
                "backups.py",
                &[&"--seed", &seed.to_string(), &"--of", &dir, &"--key-file", &key],
                &out,
            );
            prop_assert!(cases["cases"][0]["restores"]["good"].is_object(), "{}", cases["cases"][0]);
            check(&cases, random.at.dir.path());
        }
    }
}
