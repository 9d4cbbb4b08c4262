//! How often a command reads the keyring of the store that it opens.

use std::mem::MaybeUninit;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::support::Bench;

/// Times that `KEYRING` in `dir` was opened while `work` ran.
fn openings(dir: &Path, work: impl FnOnce()) -> usize {
    let watcher = inotify::init(CreateFlags::NONBLOCK).unwrap();
    // With what closes it: two equal events in a row are told as one.
    let flags = WatchFlags::OPEN | WatchFlags::CLOSE;
    inotify::add_watch(&watcher, dir, flags).unwrap();
    work();
    let mut buffer = [MaybeUninit::uninit(); 1 << 14];
    let mut reader = inotify::Reader::new(&watcher, &mut buffer);
    let mut count = 0;
    loop {
        match reader.next() {
            Ok(event) => {
                assert!(!event.events().contains(ReadFlags::QUEUE_OVERFLOW));
                let is_keyring = event.file_name().is_some_and(|name| name == c"KEYRING");
                count += usize::from(is_keyring && event.events().contains(ReadFlags::OPEN));
            }
            Err(Errno::AGAIN) => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_store_is_opened_once() {
    let bench = Bench::new();
    bench.write("src", b"words");
    bench.good(&["encrypt", "data", "src", "f"]);
    let count = |args: &[&str]| openings(&bench.path("data"), || drop(bench.good(args)));
    for args in
        [&["status", "data", "--cmek", ""][..], &["audit", "data"], &["cmek", "list", "data"]]
    {
        assert_eq!(count(args), 1, "{args:?}");
    }
    // Once more when the key service has answered: somebody may have revoked the store meanwhile.
    for args in [
        &["status", "data"][..],
        &["doctor", "data"],
        &["verify", "data"],
        &["decrypt", "data", "f", "-o", "out"],
        &["keys", "list", "data"],
        &["keys", "proof", "data"],
        &["reencrypt", "data"],
    ] {
        assert_eq!(count(args), 2, "{args:?}");
    }
    // A commit looks once more that nobody was before it.
    for args in [
        &["rotate", "data-key", "data"][..],
        &["rotate", "store-key", "data"],
        &["keys", "retire", "data"],
        &["keys", "add-keyspace", "data", "red"],
        &["cmek", "revoke", "data"],
        &["cmek", "restore", "data"],
        &["cmek", "rewrap", "data"],
    ] {
        assert_eq!(count(args), 3, "{args:?}");
    }
}
