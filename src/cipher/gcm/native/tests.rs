//! What needs unsafe code to test: that the hash key is wiped.

use std::mem::ManuallyDrop;
use std::ptr;

use super::*;

#[test]
fn powers_are_wiped_on_drop() {
    let best = Width::available().last().expect("the portable one");
    let keys = RoundKeys::new(b"an AES-256 key of 32 bytes, here", 7, best);
    let Some(powers) = keys.as_ref().and_then(Powers::new) else {
        return println!("skipped: this machine has no carry-less multiplication");
    };
    let mut powers = ManuallyDrop::new(*powers);
    let at = ptr::from_mut(&mut *powers);
    // SAFETY: dropped once; the memory stays in place and holds plain integers.
    unsafe {
        assert!((*at).powers.iter().chain(&(*at).halves).any(|power| *power != 0));
        ManuallyDrop::drop(&mut powers);
        assert_eq!((&raw const (*at).powers).read_volatile(), [0; POWERS]);
        assert_eq!((&raw const (*at).halves).read_volatile(), [0; POWERS]);
    }
}
