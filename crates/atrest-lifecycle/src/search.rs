//! Finding key material in a core dump.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const PIECE_LEN: usize = 16;
const BUFFER_LEN: usize = 16 << 20;

/// Prints each value that is found and how often.
pub(crate) fn search(path: &Path, hex: &[String]) -> io::Result<()> {
    let bad = |line: &String| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("expected 32 digits, found {line:?}"))
    };
    let mut counts: HashMap<[u8; PIECE_LEN], u64> = HashMap::new();
    // Most places in memory do not begin like any of them.
    let mut starts = vec![false; 1 << 16];
    for line in hex {
        let number = u128::from_str_radix(line.trim(), 16).map_err(|_| bad(line))?;
        let piece = number.to_be_bytes();
        starts[usize::from(u16::from_le_bytes([piece[0], piece[1]]))] = true;
        counts.insert(piece, 0);
    }
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BUFFER_LEN];
    let mut filled = 0;
    loop {
        let read = file.read(&mut buffer[filled..])?;
        let end = filled + read;
        for window in buffer[..end].windows(PIECE_LEN) {
            if starts[usize::from(u16::from_le_bytes([window[0], window[1]]))]
                && let Some(count) = counts.get_mut(window)
            {
                *count += 1;
            }
        }
        if read == 0 {
            break;
        }
        // A value may lie across two buffers.
        filled = end.min(PIECE_LEN - 1);
        buffer.copy_within(end - filled..end, 0);
    }
    for (piece, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
        println!("{:032x} {count}", u128::from_be_bytes(piece));
    }
    Ok(())
}
