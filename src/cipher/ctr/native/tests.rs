//! What needs unsafe code to test: that keys are wiped.

use std::mem::ManuallyDrop;
use std::ptr;

use super::*;

#[test]
fn round_keys_are_wiped_on_drop() {
    let best = Width::available().last().expect("the portable one");
    let Some(keys) = RoundKeys::new(&[0x5a; 32], 0, best) else {
        return atrest_testkit::left_out("this machine has no AES instructions");
    };
    let mut keys = ManuallyDrop::new(keys);
    let at = ptr::from_mut(&mut keys.keys);
    // SAFETY: dropped once; the memory stays in place and holds plain integers.
    unsafe {
        assert!((*at).iter().all(|key| *key != 0));
        ManuallyDrop::drop(&mut keys);
        assert_eq!(at.read_volatile(), [0; ROUNDS + 1]);
    }
}
