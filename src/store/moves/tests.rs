//! A look at all files against renames, in many orders of both.

use std::sync::Arc;

use super::*;
use crate::sync::in_many_orders;

/// Two directories, each with whether the one file is in it.
#[derive(Default)]
struct Disk(Mutex<[bool; 2]>);

impl Disk {
    fn has(&self, dir: usize) -> bool {
        self.0.lock().unwrap()[dir]
    }

    fn rename(&self, to: usize) {
        *self.0.lock().unwrap() = [to == 0, to == 1];
    }
}

#[test]
fn no_order_of_renames_hides_a_file_from_a_look_at_all() {
    in_many_orders(3000, || {
        let (moves, disk) = (Arc::new(Moves::default()), Arc::new(Disk::default()));
        disk.rename(0);
        let renames = {
            let (moves, disk) = (moves.clone(), disk.clone());
            shuttle::thread::spawn(move || {
                for to in [1, 0, 1] {
                    let _shared = moves.shared();
                    moves.note(Path::new(&to.to_string()));
                    disk.rename(to);
                }
            })
        };
        let recording = moves.record();
        let mut found = disk.has(1);
        found |= disk.has(0);
        let alone = moves.alone();
        for target in recording.targets(&alone) {
            found |= disk.has(target.to_str().unwrap().parse().unwrap());
        }
        assert!(found, "the file was nowhere");
        drop(alone);
        renames.join().unwrap();
    });
}
