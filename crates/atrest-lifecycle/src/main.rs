//! An engine under a customer's key, for `tests/lifecycle.py`: SlateDB on an encrypting
//! store, with one thread that writes and one that reads as fast as they can.
//!
//! ```text
//! atrest-lifecycle run DIR KEY_URI     obeys `report`, `verify` and `quit` on its input
//! atrest-lifecycle search FILE         counts which of the 16-byte values on its input,
//!                                      in hex, one a line, are in a file
//! ```
//!
//! The checks' times come from the environment in milliseconds: `CHECK`, `DEADLINE`,
//! `CONFIRM`, `SUSPICION`, `GRACE`, `RECOVERY`.

use std::io::BufRead;
use std::path::Path;

mod engine;
mod search;

#[global_allocator]
static ALLOCATOR: atrest::WipingAllocator = atrest::WipingAllocator;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args.as_slice() {
        ["run", dir, uri] => engine::run(Path::new(dir), uri),
        ["search", file] => {
            let lines: Result<Vec<_>, _> = std::io::stdin().lock().lines().collect();
            Ok(search::search(Path::new(file), &lines?)?)
        }
        _ => Err("expected run DIR KEY_URI or search FILE".into()),
    }
}
