//! A store that is found at another place than before: a copy never goes on under a data key
//! of the original, whatever is moved where, and a store that goes to and fro between mount
//! points has one key for each.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use atrest::keyring::{AuditKind, KeyState};
use atrest::{DataKeyId, FileKind, Store};
use proptest::prelude::{ProptestConfig, any, prop, proptest};

use crate::support::{ManualClock, TestStore, copy, left_out, manual, options};

/// Places of one store at a time.
struct Places {
    store: TestStore,
    files: u32,
}

impl Places {
    /// A store at `p0`; `None`, said loudly, where directories have no time of birth.
    fn new() -> Option<Self> {
        let store = TestStore::new();
        drop(store.create(manual()));
        if store.data().metadata().unwrap().created().is_err() {
            left_out("directories have no time of birth here");
            return None;
        }
        let places = Self { store, files: 0 };
        fs::rename(places.store.data(), places.at(0)).unwrap();
        Some(places)
    }

    fn at(&self, place: usize) -> PathBuf {
        self.store.dir.path().join(format!("p{place}"))
    }

    fn open(&self, place: usize) -> Store {
        Store::open(self.at(place), self.store.kms(), manual()).unwrap()
    }

    /// Writes a file and tells its data key.
    fn write(&mut self, place: usize) -> DataKeyId {
        let store = self.open(place);
        self.files += 1;
        let path = self.at(place).join(format!("f{}", self.files));
        let mut writer = store.files().create_new(path, FileKind::Table).unwrap();
        writer.append(b"rows").unwrap();
        writer.finish().unwrap().data_key_id
    }

    fn go(&self, from: usize, to: usize) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }
}

fn key_count(store: &Store) -> usize {
    store.keyring().status().data_keys.len()
}

#[test]
fn a_store_that_alternates_has_one_key_for_each_place() {
    let Some(mut places) = Places::new() else { return };
    let home = places.write(0);
    for round in 0..5 {
        places.go(0, 1);
        let away = places.write(1);
        assert_ne!(away, home);
        places.go(1, 0);
        assert_eq!(places.write(0), home, "round {round}");
    }
    let store = places.open(0);
    // The first is of the directory's own name, where the store was created.
    assert_eq!(key_count(&store), 3);
    let moved = store.audit().events().unwrap();
    assert_eq!(moved.iter().filter(|event| event.what == AuditKind::Moved).count(), 11);
    for number in 1..=places.files {
        let reader = store.files().open(places.at(0).join(format!("f{number}"))).unwrap();
        let mut rows = [0; 4];
        reader.read_exact_at(&mut rows, 0).unwrap();
        assert_eq!(&rows, b"rows");
    }
}

#[test]
fn four_places_are_remembered() {
    let Some(places) = Places::new() else { return };
    let visit = |all: usize, rounds: usize| {
        let before = key_count(&places.open(0));
        for _ in 0..rounds {
            for place in 0..all {
                drop(places.open(place));
                places.go(place, (place + 1) % all);
            }
        }
        key_count(&places.open(0)) - before
    };
    visit(4, 1);
    assert_eq!(visit(4, 3), 0);
    // Of six places the one that comes next is always the one that was forgotten.
    assert_eq!(visit(6, 2), 9);
}

/// What took a key out of use besides the move keeps it out.
#[test]
fn a_key_that_was_rotated_away_is_not_taken_again() {
    type Rotate = fn(&Store);
    let rotations: [Rotate; 3] = [
        |store| assert!(store.keys().rotate().is_ok()),
        |store| assert!(store.keys().rotate_store_key().is_ok()),
        |store| {
            for _ in 0..2 {
                store.renewal().retire(None, Duration::ZERO, &|_| {}).unwrap();
            }
        },
    ];
    for rotate in rotations {
        let Some(places) = Places::new() else { return };
        let home = places.open(0).keys().active_id().unwrap();
        places.go(0, 1);
        rotate(&places.open(1));
        places.go(1, 0);
        let again = places.open(0);
        assert_ne!(again.keys().active_id().unwrap(), home);
        let keys = again.keyring().status().data_keys;
        let state = keys.iter().find(|key| key.id == home).unwrap().state;
        assert_ne!(state, KeyState::Active);
    }
}

#[test]
fn a_key_that_is_due_is_not_taken_again() {
    let store = TestStore::new();
    let clock = ManualClock::new();
    let (home, away) = (store.data(), store.dir.path().join("away"));
    let first = store.create(options(&clock)).keys().active_id().unwrap();
    if home.metadata().unwrap().created().is_err() {
        return left_out("directories have no time of birth here");
    }
    let open = |at: &Path| {
        let opened = Store::open(at, store.kms(), options(&clock)).unwrap();
        opened.keys().active_id().unwrap()
    };
    fs::rename(&home, &away).unwrap();
    open(&away);
    fs::rename(&away, &home).unwrap();
    assert_eq!(open(&home), first);
    fs::rename(&home, &away).unwrap();
    open(&away);
    clock.set_forward(Duration::from_secs(30 * 86_400));
    fs::rename(&away, &home).unwrap();
    assert_ne!(open(&home), first);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Stores are moved, copied, put in each other's places and written, in any order. No data
    /// key is ever one under which two of them write: so they share no file key, and no counter.
    #[test]
    fn a_copy_never_writes_under_a_key_of_another(
        steps in prop::collection::vec((0_u8..6, any::<u8>(), any::<u8>()), 1..24),
    ) {
        let Some(mut places) = Places::new() else { return Ok(()) };
        const PLACES: usize = 5;
        // Which store is where.
        let mut stores: Vec<Option<usize>> = vec![None; PLACES];
        stores[0] = Some(0);
        let mut next = 1;
        let mut writers: HashMap<DataKeyId, usize> = HashMap::new();
        let mut check = |key: DataKeyId, store: usize| {
            let writer = *writers.entry(key).or_insert(store);
            assert_eq!(writer, store, "two stores write under {key}");
        };
        check(places.write(0), 0);
        for (what, one, other) in steps {
            let (from, to) = (usize::from(one) % PLACES, usize::from(other) % PLACES);
            match (what, stores[from], stores[to]) {
                (0, Some(store), None) => {
                    places.go(from, to);
                    (stores[from], stores[to]) = (None, Some(store));
                }
                (1, Some(_), None) => {
                    copy(&places.at(from), &places.at(to));
                    stores[to] = Some(next);
                    next += 1;
                }
                (2, Some(_), Some(_)) if from != to => {
                    places.go(from, PLACES);
                    places.go(to, from);
                    places.go(PLACES, to);
                    stores.swap(from, to);
                }
                (3, Some(_), _) => {
                    places.open(from).keys().rotate().unwrap();
                }
                (_, Some(store), _) => check(places.write(from), store),
                _ => {}
            }
        }
        for (place, store) in stores.into_iter().enumerate() {
            if let Some(store) = store {
                check(places.write(place), store);
            }
        }
    }
}
