//! Images that a commit should have removed, and what a proof of destruction says beside them.

use atrest::keyring::RetireOutcome;
use atrest::{EncryptedFs, ErrorKind, Store};

use super::{open, outcome, quiet, retire};
use crate::renewal::write;
use crate::support::{ManualClock, TestStore, kind, options, store_of};

#[test]
fn an_image_that_was_not_removed_spoils_the_proof_until_it_is() {
    let (store, clock) = (TestStore::new(), ManualClock::new());
    let fs = open(&store, &clock);
    let path = |name: &str| store.data().join(name);
    let old = write(&fs, &path("old"), b"old");
    fs.keyring().keys().rotate().unwrap();
    fs.remove(path("old")).unwrap();
    retire(&fs);
    clock.advance(8 * ManualClock::DAY);
    let image = std::fs::read(path("KEYRING")).unwrap();
    let kept = format!("KEYRING.{}", fs.keyring().anchor().generation);
    assert_eq!(outcome(&retire(&fs), old), RetireOutcome::Destroyed);
    let check = |fs: &EncryptedFs, name: &str| {
        let renewal = store_of(fs);
        let renewal = renewal.renewal();
        let refused = renewal.prove_destroyed(old, &quiet).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        assert!(refused.to_string().contains(name), "{refused}");
        assert_eq!(kind(renewal.prove_all_destroyed(&quiet)), ErrorKind::InvalidArgument);
    };
    let proves = |fs: &EncryptedFs, name: &str| {
        assert!(!path(name).exists(), "{name}");
        store_of(fs).renewal().prove_destroyed(old, &quiet).unwrap();
    };
    // The next retirement tries again.
    std::fs::write(path(&kept), &image).unwrap();
    check(&fs, &kept);
    retire(&fs);
    proves(&fs, &kept);
    // So does the next opening, beside a later commit too; not one for reading.
    fs.keyring().keys().rotate().unwrap();
    std::fs::write(path(&kept), &image).unwrap();
    drop(fs);
    let reader = Store::open_read_only(store.data(), store.kms(), options(&clock)).unwrap();
    check(reader.files(), &kept);
    drop(reader);
    let fs = open(&store, &clock);
    proves(&fs, &kept);
    // One that is damaged may be mended by somebody.
    std::fs::write(path(&kept), &image[..image.len() - 1]).unwrap();
    check(&fs, &kept);
    fs.keyring().keys().danger_forget_aside().unwrap();
    proves(&fs, &kept);
    // What a crash left before it had that name.
    for name in ["KEYRING.new", &format!("{kept}.new")] {
        std::fs::write(path(name), &image).unwrap();
        check(&fs, name);
        fs.keyring().keys().danger_forget_aside().unwrap();
        proves(&fs, name);
    }
    // The next retirement does, too.
    std::fs::write(path("KEYRING.new"), &image).unwrap();
    check(&fs, "KEYRING.new");
    retire(&fs);
    proves(&fs, "KEYRING.new");
    // An image of the present keys spoils nothing, also under the name that a commit gives the
    // image before it, where it was killed.
    let present = std::fs::read(path("KEYRING")).unwrap();
    let generation = fs.keyring().anchor().generation;
    std::fs::write(path("KEYRING.new"), &present).unwrap();
    std::fs::write(path(&format!("KEYRING.{generation}")), &present).unwrap();
    store_of(&fs).renewal().prove_destroyed(old, &quiet).unwrap();
}
