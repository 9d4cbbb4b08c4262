//! What uses of a key leave on the stack and in registers, in every width and for every kind
//! of call.

#![allow(unsafe_code)]

use std::hint::black_box;
use std::process::Command;

use super::*;
use crate::cipher::ctr::Width;
use crate::derive::{Purpose, derive};
use crate::secret::{FRAMES_BYTES, Left, SCRUBBED_BYTES_MAX, register_contents};

/// On both sides of every boundary of the kernels.
const LENS: [usize; 20] = [
    1, 15, 16, 17, 63, 64, 100, 129, 256, 300, 640, 641, 700, 1100, 4096, 5000, 12_400, 16_384,
    70_000, 200_000,
];

/// Longer messages go through tables, which are seen.
const SHORT_LEN: usize = 5000;
/// Room that must be left below the deepest call: for the frame in which the kernel keeps all
/// registers when a signal comes.
const SIGNAL_BYTES: usize = 4 << 10;

type Use = Box<dyn FnMut()>;

fn derived() -> Derived {
    derive(&[7; 32], Purpose::File, &[])
}

/// Each kind of call that touches a key, for messages of one length.
fn uses(len: usize) -> Vec<(&'static str, Use)> {
    let derived = Arc::new(derived());
    let ctr = Arc::new(CtrKey::new(derived.key(), [3; 8]));
    let gcm = Arc::new(GcmKey::new(&derived, Watched::new(false)));
    let (src, mut dst) = (vec![1; len], vec![0; len]);
    let mut sealed = vec![0; len];
    let tag = gcm.seal(9, b"head", &src, &mut sealed);
    let mut uses: Vec<(&str, Use)> = Vec::new();
    for skip in [0, 5, 16 * 100 + 3, 16 * 300] {
        let (key, mut buf) = (Arc::clone(&ctr), src.clone());
        uses.push(("CTR in place", Box::new(move || key.apply_in_place(skip, &mut buf))));
        let (key, src, mut dst) = (Arc::clone(&ctr), src.clone(), dst.clone());
        uses.push(("CTR", Box::new(move || key.apply(skip, &src, &mut dst))));
        let (key, sealed, mut part) = (Arc::clone(&gcm), sealed.clone(), vec![0; len / 2]);
        let open = move || {
            assert!(key.open(9, b"head", &sealed, &tag, len / 3, &mut part));
        };
        uses.push(("GCM open", Box::new(open)));
    }
    let seal = move || {
        black_box(gcm.seal(10, &[], &src, &mut dst));
    };
    uses.push(("GCM seal", Box::new(seal)));
    let (for_ctr, for_gcm) = (Arc::clone(&derived), derived);
    let new = move || drop(black_box(Box::new(CtrKey::new(for_ctr.key(), [3; 8]))));
    uses.push(("new CTR key", Box::new(new)));
    let new_gcm = move || GcmKey::new(&for_gcm, Watched::new(false));
    uses.push(("new GCM key", Box::new(move || drop(black_box(Box::new(new_gcm()))))));
    uses
}

/// Run by the test below, once for each width.
#[test]
#[cfg_attr(debug_assertions, ignore = "code that is not optimised needs more stack")]
fn no_use_of_a_key_leaves_anything_below_it() {
    let (mut deepest, mut short, mut short_gcm, mut leaving) = ((0, ""), (0, ""), (0, ""), 0);
    let (key, gcm) = (CtrKey::new(&[7; 32], [3; 8]), GcmKey::new(&derived(), Watched::new(false)));
    for len in LENS {
        for (name, mut use_key) in uses(len) {
            let bare = Left::after(|| black_box(&mut use_key)());
            deepest = deepest.max((bare.depth(), name));
            let short = if name.contains("GCM") { &mut short_gcm } else { &mut short };
            if len <= SHORT_LEN && name != "new GCM key" {
                *short = (*short).max((bare.depth(), name));
            }
            leaving += usize::from(bare.residue().is_some());
            let scrubbed = if name == "new GCM key" {
                Left::after(|| scrubbed(|| black_box(&mut use_key)()))
            } else if name == "new CTR key" {
                Left::after(|| scrubbed_shortly(|| black_box(&mut use_key)()))
            } else if name.contains("GCM") {
                Left::after(|| gcm.scrubbed(|| black_box(&mut use_key)()))
            } else {
                Left::after(|| key.scrubbed(|| black_box(&mut use_key)()))
            };
            assert_eq!(scrubbed.residue(), None, "{name}, {len} bytes: residue at these depths");
        }
    }
    let width = Width::chosen();
    println!("deepest in {}: {deepest:?}, short: {short:?}, {short_gcm:?}", width.name());
    assert!(leaving > 100, "what is left without the wipe is not seen");
    assert!(deepest.0 + SIGNAL_BYTES <= SCRUBBED_BYTES_MAX, "{deepest:?}");
    if width != Width::Portable {
        assert!(short.0.max(short_gcm.0) <= FRAMES_BYTES, "{short:?}, {short_gcm:?}");
    }
}

#[test]
#[cfg_attr(debug_assertions, ignore = "code that is not optimised needs more stack")]
fn a_derivation_leaves_nothing_below_it() {
    // The first one also asks what the processor can do, and goes deeper for it.
    drop(derived());
    let mut kept = None;
    // Giving the memory back knows no key.
    let left = Left::after(|| kept = Some(black_box(derived())));
    assert_eq!(left.residue(), None);
    println!("a derivation: {} bytes", left.depth());
    // On aarch64 as much as a signal's frame may hide comes on top.
    let most = FRAMES_BYTES + if cfg!(target_arch = "aarch64") { 5 << 10 } else { 0 };
    // And how far the next two lines are below the deepest that was touched.
    assert!(left.depth() <= most + (2 << 10), "{} bytes", left.depth());
}

#[test]
#[cfg_attr(debug_assertions, ignore = "code that is not optimised needs more stack")]
fn no_width_leaves_anything_below_a_use_of_a_key() {
    let this = module_path!().split_once("::").expect("a crate").1;
    for width in Width::available() {
        let output = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "--nocapture", "--include-ignored"])
            .arg(format!("{this}::no_use_of_a_key_leaves_anything_below_it"))
            .env("ATREST_CTR_WIDTH", width.name())
            .output()
            .expect("the test's own program");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let line = said.lines().find(|line| line.contains("deepest in"));
        println!("{}", line.expect("the test ran"));
        assert!(said.contains(&format!("deepest in {}", width.name())));
    }
}

/// On x86-64 the registers above the 15th are used by nothing but the widest kernel.
#[test]
fn no_use_of_a_key_leaves_anything_in_registers() {
    const WIDTH: Width = if cfg!(target_arch = "x86_64") { Width::Vaes512 } else { Width::NeonAes };
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx512f"))]
    unsafe fn left(work: impl FnOnce()) -> bool {
        work();
        // SAFETY: the feature is the caller's duty.
        let contents = unsafe { register_contents() };
        contents[16..].iter().flatten().any(|word| *word != 0)
    }
    let Some(key) = CtrKey::with_width(&[7; 32], [3; 8], WIDTH) else {
        return atrest_testkit::left_out(format_args!("this machine has no {}", WIDTH.name()));
    };
    for len in LENS {
        let mut buf = vec![0; len];
        // SAFETY: the width was found available, and implies the feature.
        let bare = unsafe { left(|| key.apply_in_place(0, &mut buf)) };
        assert!(len < 700 || bare, "{len} bytes");
        // SAFETY: as above.
        let scrubbed = unsafe { left(|| scrubbed(|| key.apply_in_place(0, &mut buf))) };
        assert!(!scrubbed, "after {len} bytes");
    }
}

/// Where memory is short, one part of a key may be where a fork empties it and another not.
#[cfg(target_os = "linux")]
#[test]
fn a_forked_child_without_a_part_of_a_key_is_refused() {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use crate::process::tests::in_forked_child;
    use crate::secret::REFUSED;

    fn ctr(width: Width) -> FileKey {
        FileKey::Ctr(CtrKey::with_width(&[7; 32], [3; 8], width).expect("the width"))
    }
    fn gcm(width: Width) -> FileKey {
        FileKey::Gcm(Secret::new(GcmKey::with_width(&[7; 32], &[3; 12], width).expect("the width")))
    }
    fn used(slot: &KeySlot) -> Result<()> {
        let seal = |key: &GcmKey| {
            black_box(key.seal(0, &[], &[1; 16], &mut [0; 16]));
            Ok(())
        };
        match slot.with_gcm(seal) {
            Err(error) if error.kind() == ErrorKind::UnsupportedFeature => {
                slot.with_ctr(|key| key.apply_in_place(0, &mut [0; 16]))
            }
            other => other,
        }
    }
    /// Whether the child of a key is refused of which this part alone is where a fork empties it.
    fn refused(make: fn(Width) -> FileKey, width: Width, inside: u32) -> bool {
        REFUSED.set(!(1 << inside));
        let key = ArcSwapAny::new(Some(Secret::new(make(width))));
        REFUSED.set(0);
        let slot = KeySlot { prefix: [0; PREFIX_LEN], writing: false, key };
        let poisoned =
            |result: Result<()>| result.is_err_and(|error| error.kind() == ErrorKind::Poisoned);
        let check = || poisoned(used(&slot)) && poisoned(slot.check());
        // A panic may not leave the child.
        let check = || catch_unwind(AssertUnwindSafe(check)).unwrap_or(false);
        used(&slot).is_ok() && in_forked_child(check)
    }
    // In a child, which counts for itself what is outside. The parts in the order in which they
    // are made, without a key that hashes nothing but zeros.
    assert!(in_forked_child(|| {
        let portable = Width::Portable;
        [0, 1].into_iter().all(|inside| refused(ctr, portable, inside))
            && [0, 2, 3, 4].into_iter().all(|inside| refused(gcm, portable, inside))
            && (Width::chosen() == portable
                || [0, 1, 2].into_iter().all(|inside| refused(gcm, Width::chosen(), inside)))
    }));
}
