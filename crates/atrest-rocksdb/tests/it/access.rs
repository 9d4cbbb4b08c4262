//! The customer takes the key away from a working engine, and gives it back.

use std::time::{Duration, Instant};

use crate::support::{Engine, Form, Place, in_both_forms};

in_both_forms! { a_revocation_stops_a_working_engine_and_a_restored_one_goes_on reads_go_on_in_the_files_that_are_open }

/// Repeats `command` until the answer is wanted. The bound is generous: it only ends a test
/// that would never end.
#[track_caller]
fn until(engine: &mut Engine, command: &str, wanted: impl Fn(&Result<(), String>) -> bool) {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        let answer = engine.ask(command);
        if wanted(&answer) {
            return;
        }
        assert!(Instant::now() < end, "{command}: {answer:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn a_revocation_stops_a_working_engine_and_a_restored_one_goes_on(form: Form) {
    let Some(mut place) = Place::new(form) else { return };
    place.policy = "check_interval_s=1;recovery_interval_s=1;confirmations=1;confirm_over_s=0";
    let mut engine = place.engine();
    engine.run(&["put 0 1000 a", "flush", "put 1000 10 a"]);

    let (key, away) = (place.path("cmek.key"), place.path("away"));
    std::fs::rename(&key, &away).unwrap();
    let revoked = |answer: &Result<(), String>| {
        answer.as_ref().is_err_and(|told| told.contains("cmek-revoked"))
    };
    until(&mut engine, "get 0 1 a", revoked);
    assert!(engine.ask("put 5000 10 b").is_err());
    assert!(engine.ask("flush").is_err());
    assert!(engine.ask("reopen").is_err());

    std::fs::rename(away, key).unwrap();
    // RocksDB takes a failed write of its log for the end of this opening.
    until(&mut engine, "reopen", Result::is_ok);
    // What was acknowledged is there.
    engine.run(&["get 0 1010 a", "put 2000 100 a", "flush", "compact", "get 0 1010 a"]);
    engine.quit();
}

fn reads_go_on_in_the_files_that_are_open(form: Form) {
    let Some(mut place) = Place::new(form) else { return };
    place.policy = "check_interval_s=1;recovery_interval_s=1;confirmations=1;confirm_over_s=0";
    let mut engine = place.engine();
    engine.run(&["put 0 1000 a", "flush", "get 0 1 a"]);
    let (key, away) = (place.path("cmek.key"), place.path("away"));
    std::fs::rename(&key, &away).unwrap();
    until(&mut engine, "get 0 1 a", Result::is_err);
    std::fs::rename(away, key).unwrap();
    until(&mut engine, "get 0 1000 a", Result::is_ok);
    // Nothing was written meanwhile, so writes go on too.
    engine.run(&["put 0 1000 b", "flush", "get 0 1000 b"]);
    engine.quit();
}
