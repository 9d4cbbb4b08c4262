//! `kill -9` in the middle of writes.

use std::fs;
use std::os::unix::fs::FileExt;

use crate::support::{Form, Place, in_both_forms};

in_both_forms! { kill_9_loses_no_acknowledged_write a_log_whose_first_page_was_lost_is_an_empty_one }

const KILLS: u64 = 50;

fn kill_9_loses_no_acknowledged_write(form: Form) {
    let Some(mut place) = Place::new(form) else { return };
    // Small enough for flushes and compactions between two kills.
    place.options += ";write_buffer_size=65536;level0_file_num_compaction_trigger=2";
    let mut next = 0;
    for round in 0..=KILLS {
        let mut engine = place.engine();
        engine.run(&[&format!("get 0 {next} a")]);
        if round == KILLS {
            engine.run(&["compact", &format!("get 0 {next} a")]);
            engine.quit();
            break;
        }
        engine.say(&format!("acknowledge {next} a"));
        let until = next + 17 + round * 29 % 500;
        while next < until {
            next = engine.line().unwrap().parse::<u64>().unwrap() + 1;
        }
        engine.kill();
        // What was acknowledged and not yet read.
        while let Some(line) = engine.line() {
            next = line.parse::<u64>().unwrap() + 1;
        }
    }
    assert!(next > 5000, "{next}");
}

/// A power cut keeps what was not synced from the disk, and may leave the length.
fn a_log_whose_first_page_was_lost_is_an_empty_one(form: Form) {
    let Some(place) = Place::new(form) else { return };
    let mut engine = place.engine();
    engine.run(&["put 0 100 a", "flush", "put 100 100 a"]);
    engine.kill();
    let logs = fs::read_dir(place.db()).unwrap().map(|entry| entry.unwrap().path());
    let log = logs.filter(|path| path.extension().is_some_and(|end| end == "log")).max().unwrap();
    let file = fs::OpenOptions::new().write(true).open(log).unwrap();
    assert!(file.metadata().unwrap().len() > 4096);
    file.write_all_at(&[0; 4096], 0).unwrap();
    let mut engine = place.engine();
    engine.run(&["get 0 100 a"]);
    assert!(engine.ask("get 100 1 a").is_err());
    engine.run(&["put 100 100 a", "get 0 200 a"]);
    engine.quit();
}
