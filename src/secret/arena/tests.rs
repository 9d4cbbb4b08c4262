use std::cell::Cell;
use std::collections::HashSet;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;

use super::*;
use crate::keyring::{KeyringStorage, MemoryStorage, Options};
use crate::kms::{KeyFile, generate_key_file};
use crate::process::tests::MachineCopies;
use crate::secret::Secret;
use crate::{Expect, FileKind, FileSpec, Header, Keyring, Suite};

thread_local! {
    /// Which of this thread's next keys find no room: the lowest bit is the next one's.
    pub(crate) static REFUSED: Cell<u32> = const { Cell::new(0) };
}

#[test]
fn slots_are_apart_and_slabs_go_back() {
    const SLOT: usize = 336;
    let mut class = Class::default();
    let slots: Vec<_> = (0..20_000).map(|_| class.take(SLOT).expect("memory")).collect();
    let addresses: HashSet<_> = slots.iter().map(|slot| slot.addr().get()).collect();
    assert_eq!(addresses.len(), slots.len());
    let mut sorted: Vec<_> = addresses.into_iter().collect();
    sorted.sort_unstable();
    assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] >= SLOT));
    assert!(sorted.iter().all(|address| address.is_multiple_of(16)));
    for slot in &slots {
        // SAFETY: each is ours, and as long.
        unsafe { slot.write_bytes(0xff, SLOT) };
    }
    // As long as all before it, then a mebibyte each.
    assert!(class.slabs.len() < 16, "{} slabs", class.slabs.len());
    assert_eq!(class.bytes, class.slabs.values().map(|slab| slab.pages.len()).sum::<usize>());
    assert!(class.bytes <= 20_000 * SLOT + SLAB_BYTES_MAX);
    slots.into_iter().filter_map(|slot| class.give_back(slot)).for_each(drop);
    assert!(class.bytes <= 2 * SLAB_BYTES_MAX, "{} bytes are kept", class.bytes);
    assert_eq!(class.free, class.slabs.values().map(|slab| slab.free.len()).sum::<usize>());
    assert!(class.slabs.values().all(|slab| slab.free.len() == slab.slots));
    let address = NonNull::from(&class).cast();
    assert!(class.give_back(address).is_none() && class.open.len() == class.slabs.len());
}

#[test]
fn a_copy_of_the_machine_has_the_memory_that_was_copied() {
    let _one_again = MachineCopies;
    let _key = Secret::new([1_u8; 200]);
    let before = current().unwrap();
    MachineCopies::make();
    assert!(KeyMemory::now().bytes > 0);
    assert!(ptr::eq(current().unwrap(), before));
}

const CHILD: &str = "ATREST_KEY_MEMORY_CHILD";
const KEYS: usize = 10_000;

/// A process with 10,000 data keys and 10,000 open files, run under several limits. A test of
/// its own, which does nothing by itself.
#[test]
fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("cmek.key");
    generate_key_file(&key).unwrap();
    let kms: Arc<KeyFile> = Arc::new(KeyFile::new(&key).unwrap());
    let storage = MemoryStorage::new();
    let image = crate::keyring::fuzz::many_keys(kms.clone(), KEYS, 1).unwrap();
    storage.commit(&image, 1, None).unwrap();
    let options = Options { background: false, ..Options::default() };
    let keyring = Keyring::open(storage, kms, options).unwrap();
    let with_keys = KeyMemory::now();
    let suites = [Suite::Aes256Ctr, Suite::Aes256GcmChunks, Suite::Aes256GcmLog];
    let files: Vec<_> = (0..KEYS)
        .map(|file| {
            let spec = FileSpec::new(FileKind::Table).suite(suites[file % 3]);
            let encryptor = keyring.encryptor(spec).unwrap();
            let header = Header::parse(encryptor.header()).unwrap();
            keyring.decryptor(&header, &Expect::default()).unwrap()
        })
        .collect();
    let with_files = KeyMemory::now();
    let locked = std::fs::read_to_string("/proc/self/status").unwrap();
    let locked = locked.lines().find_map(|line| line.strip_prefix("VmLck:")).unwrap();
    let locked_kib: u64 = locked.trim().trim_end_matches(" kB").parse().unwrap();
    assert_eq!(locked_kib * 1024, with_files.locked_bytes, "as the system counts");
    let mut buf = [0; 16];
    assert!(files.iter().step_by(3).all(|file| file.decrypt_in_place(0, &mut buf).is_ok()));
    drop(black_box(files));
    for found in [with_keys, with_files, KeyMemory::now()] {
        println!("\nmemory {} {} {}", found.bytes, found.locked_bytes, found.outside_bytes);
        assert_eq!((found.undumped_bytes, found.unforked_bytes), (found.bytes, found.bytes));
    }
}

/// Whether a capability lifts the limit.
fn may_lock_all() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    u64::from_str_radix(effective.expect("capabilities"), 16).expect("digits") >> CAP_IPC_LOCK & 1
        == 1
}

fn this_program() -> std::path::PathBuf {
    std::env::current_exe().expect("a path")
}

/// What the child says, under a limit of locked memory that no capability lifts.
fn under_limit(limit: u64) -> Vec<[u64; 3]> {
    let mut command = Command::new("prlimit");
    command.arg(format!("--memlock={limit}:{limit}"));
    if may_lock_all() {
        command.args(["setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock"]);
    }
    command.arg(this_program());
    said_by(command)
}

fn said_by(mut command: Command) -> Vec<[u64; 3]> {
    let this = module_path!().split_once("::").expect("a crate").1;
    let output = command
        .args(["--exact", "--nocapture"])
        .arg(format!("{this}::child"))
        .env(CHILD, "1")
        .output()
        .expect("prlimit");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let numbers = |line: &str| {
        let mut numbers = line.split(' ').map(|number| number.parse().expect("a number"));
        std::array::from_fn(|_| numbers.next().expect("three numbers"))
    };
    said.lines().filter_map(|line| line.strip_prefix("memory ")).map(numbers).collect()
}

#[test]
#[cfg_attr(debug_assertions, ignore = "10,000 keys take a second in code that is not optimised")]
fn as_much_is_locked_as_the_limit_leaves() {
    let page = rustix::param::page_size() as u64;
    for limit in [0, 64 << 10, 4 << 20] {
        // With keys, with files, and when those are closed again.
        let all = under_limit(limit);
        assert_eq!(all.len(), 3);
        for [kept, locked, outside] in all {
            println!("limit {limit}: {kept} bytes, {locked} locked");
            assert!(locked <= limit && outside == 0);
            assert!(locked + page > limit.min(kept), "{limit}: {locked} bytes are locked");
        }
    }
    if !may_lock_all() {
        return atrest_testkit::left_out("no limit of locked memory, which takes CAP_IPC_LOCK");
    }
    let [kept, locked, outside] = said_by(Command::new(this_program()))[1];
    println!("no limit: {kept} bytes, {locked} locked");
    assert!(kept > 10 << 20 && locked == kept && outside == 0);
}
