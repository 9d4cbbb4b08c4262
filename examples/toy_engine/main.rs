//! A toy engine through a crash, a rotation and a compaction: `cargo run --example toy_engine`
#![allow(unreachable_pub, reason = "a program has no public interface")]

use std::sync::Arc;
use std::time::Duration;

use atrest::kms::{KeyFile, generate_key_file};
use atrest::store::StalePolicy;

mod engine;

use engine::{Any, Engine, Records};

fn main() -> Any<()> {
    let place = tempfile::tempdir()?;
    let (dir, key) = (place.path().join("data"), place.path().join("cmek.key"));
    std::fs::create_dir(&dir)?;
    generate_key_file(&key)?;
    let kms = Arc::new(KeyFile::new(&key)?);

    let mut engine = Engine::open(&dir, kms.clone())?;
    let old = engine.store.keys().active_id()?;
    engine.put("a", "1")?;
    engine.put("b", "2")?;
    let log = engine.path(engine.log_id);
    drop(engine);
    // The crash: the last append is on the disk in part.
    let file = std::fs::File::options().write(true).open(log)?;
    file.set_len(file.metadata()?.len() - 1)?;

    let mut engine = Engine::open(&dir, kms)?;
    assert_eq!(engine.all()?, Records::from([("a".into(), "1".into())]));
    engine.put("b", "3")?;
    engine.store.keys().rotate()?;
    // An engine that compacts anyway prefers what is under old keys.
    let policy = StalePolicy::older_than(Duration::ZERO);
    if engine.store.renewal().stale_files(&policy, &|_| {})?.next().is_some() {
        engine.compact()?;
    }
    assert_eq!(engine.all()?.len(), 2);
    let usage = engine.store.renewal().usage()?;
    assert_eq!(usage.of_key(old).map(|of| of.count.files), Some(0));
    println!("nothing is under the old data key {old}: `renewal().retire` may destroy it");
    Ok(())
}

#[test]
fn runs() -> Any<()> {
    main()
}
