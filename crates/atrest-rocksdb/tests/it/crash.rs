//! `kill -9` in the middle of writes.

use crate::support::{Form, Place, in_both_forms};

in_both_forms! { kill_9_loses_no_acknowledged_write }

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
