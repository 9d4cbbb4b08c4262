//! After a revocation no key is left anywhere in the process, and what is made of a key for
//! one call never is; and before one, while no call runs, no key is where a core dump would have it:
//! a child process opens a store, works with it and revokes; its parent, which knows all keys, reads
//! its memory each time that it waits.
//! Once for each width of the kernels.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use aes::Aes256Enc;
use aes::cipher::{BlockCipherEncrypt, KeyInit};

use crate::cipher::ctr::Width;
use crate::derive::{Derived, Purpose, derive};
use crate::header::PREFIX_LEN;
use crate::ids::DataKeyId;
use crate::keyring::client::Client;
use crate::keyring::format::Image;
use crate::keyring::unlock::Search;
use crate::keyring::{DirectoryStorage, KeyringStorage, Options};
use crate::kms::{KeyFile, Kms, generate_key_file};
use crate::{FileKind, Suite};

/// Memory that no core dump has.
const UNDUMPED: &str = "memory left out of dumps";
const CHILD: &str = "ATREST_RESIDUE_CHILD";

/// Blocks of keystream that are looked for, of each file or message.
const KEYSTREAM_BLOCKS: u128 = 40;
/// Messages of each file.
const MESSAGES: u128 = 7;

fn kms(dir: &Path) -> Arc<dyn Kms> {
    Arc::new(KeyFile::new(dir.join("cmek.key")).unwrap())
}

/// The child. Runs as a test of its own, which does nothing by itself.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD) else { return };
    let dir = Path::new(&dir);
    let mut commands = std::io::stdin().lines();
    let mut next = |said: &str| {
        println!("\n{said}");
        commands.next().unwrap().unwrap()
    };
    let store = crate::Store::create(dir, kms(dir), Options::default()).unwrap();
    let fs = store.files();
    let mut writers = Vec::new();
    let mut readers = Vec::new();
    for round in 0..2 {
        for suite in [Suite::Aes256Ctr, Suite::Aes256GcmChunks, Suite::Aes256GcmLog] {
            let spec = crate::FileSpec::new(FileKind::Table).suite(suite);
            let path = dir.join(format!("{round}-{suite:?}"));
            let mut writer = fs.create_new(&path, spec).unwrap();
            for len in [1, 16, 100, 700, 5000, 100_000] {
                writer.append(&vec![7; len]).unwrap();
            }
            writer.sync().unwrap();
            writers.push(writer);
            let path = dir.join(format!("done-{round}-{suite:?}"));
            let mut writer = fs.create_new(&path, spec).unwrap();
            writer.append(&[7; 100_000]).unwrap();
            writer.finish().unwrap();
            readers.push(fs.open(&path).unwrap());
        }
        fs.keyring().keys().rotate().unwrap();
    }
    fs.keyring().access().check_now();
    let go_on = std::sync::Barrier::new(3);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for len in [1, 16, 100, 700, 5000, 9000, 70_000] {
                    let mut buf = vec![0; len];
                    for at in (0..30_000).step_by(4099) {
                        let read = |reader: &crate::Reader| reader.read_exact_at(&mut buf, at);
                        readers.iter().map(read).for_each(Result::unwrap);
                    }
                }
                // They stay alive, with whatever is on their stacks, and do nothing more.
                go_on.wait();
                go_on.wait();
            });
        }
        go_on.wait();
        assert_eq!(next("working"), "revoke");
        fs.keyring().access().revoke().unwrap();
        assert_eq!(next("revoked"), "restore");
        fs.keyring().access().restore().unwrap();
        assert_eq!(next("restored"), "end");
        go_on.wait();
    });
}

struct Running {
    child: Child,
    commands: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Running {
    fn start(dir: &Path, width: Width) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "--test-threads=1"])
            .arg(concat!(module_path!(), "::child").split_once("::").unwrap().1)
            .env(CHILD, dir)
            .env("ATREST_CTR_WIDTH", width.name())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, commands, said }
    }

    fn wait_for(&mut self, words: &str) {
        let mut line = String::new();
        while line.trim() != words {
            line.clear();
            assert_ne!(self.said.read_line(&mut line).unwrap(), 0, "the child ended");
        }
    }

    fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").unwrap();
    }

    /// Which of the patterns are in its memory, and where.
    fn scan(&self, patterns: &Patterns) -> Vec<String> {
        let pid = self.child.id();
        let maps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut found = Vec::new();
        // A mapping is a line with its range, and more lines, of which the last has its flags.
        for mapping in maps.split_inclusive("VmFlags: ").zip(maps.split("VmFlags: ").skip(1)) {
            let (lines, flags) = mapping;
            let Some(line) = lines
                .lines()
                .find(|line| line.split(' ').next().is_some_and(|range| range.contains('-')))
            else {
                continue;
            };
            let mut fields = line.split_whitespace();
            let (range, access) = (fields.next().unwrap(), fields.next().unwrap());
            let undumped = flags.lines().next().unwrap().split(' ').any(|flag| flag == "dd");
            let place = match fields.nth(3) {
                _ if undumped => UNDUMPED,
                place => place.unwrap_or("heap or stack of a thread"),
            };
            let (start, end) = range.split_once('-').unwrap();
            let number = |hex| u64::from_str_radix(hex, 16).unwrap();
            let (start, end) = (number(start), number(end));
            if !access.starts_with("rw") || place.starts_with("[v") {
                continue;
            }
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            if memory.read_exact_at(&mut bytes, start).is_ok() {
                for (at, name) in patterns.find(&bytes) {
                    found.push(format!("{name} at {:#x} in {place} {range}", start + at as u64));
                }
            }
        }
        found
    }
}

/// What to look for: 16-byte pieces of what is, or gives, a key.
#[derive(Default)]
struct Patterns {
    names: HashMap<[u8; 16], String>,
    /// The first two bytes of all, since most memory has none of them.
    starts: Vec<bool>,
}

impl Patterns {
    fn add(&mut self, name: &str, bytes: &[u8]) {
        self.starts.resize(1 << 16, false);
        for (index, piece) in bytes.chunks_exact(16).enumerate() {
            self.names.insert(piece.try_into().unwrap(), format!("{name}, bytes {}..", index * 16));
            self.starts[usize::from(u16::from_le_bytes([piece[0], piece[1]]))] = true;
        }
    }

    fn add_key(&mut self, name: &str, key: &[u8; 32]) {
        self.add(name, key);
        self.add(&format!("{name}, round keys"), &round_keys(key)[32..]);
        for pad in [0x36, 0x5c] {
            let mut block = [pad; 64];
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            self.add(&format!("{name}, HMAC pad {pad:#x}"), &block[..32]);
            let mut state = [
                0x6a09_e667_u32,
                0xbb67_ae85,
                0x3c6e_f372,
                0xa54f_f53a,
                0x510e_527f,
                0x9b05_688c,
                0x1f83_d9ab,
                0x5be0_cd19,
            ];
            sha2::block_api::compress256(&mut state, &[block]);
            let state: Vec<u8> = state.iter().flat_map(|word| word.to_ne_bytes()).collect();
            self.add(&format!("{name}, HMAC state {pad:#x}"), &state);
        }
    }

    /// What is made of the key of a file for one message or one read, and the hash key.
    fn add_uses(&mut self, name: &str, derived: &Derived, suite: Suite) {
        let cipher = Aes256Enc::new(derived.key().into());
        let encrypted = |block: [u8; 16]| {
            let mut block = block.into();
            cipher.encrypt_block(&mut block);
            <[u8; 16]>::from(block)
        };
        let nonce =
            u128::from_be_bytes([&derived.nonce()[..], &[0; 4]].concat().try_into().unwrap());
        if suite == Suite::Aes256Ctr {
            let counter = |block: u128| (nonce >> 64 << 64 | block).to_be_bytes();
            let stream: Vec<u8> =
                (0..KEYSTREAM_BLOCKS).flat_map(|i| encrypted(counter(i))).collect();
            return self.add(&format!("{name}, keystream"), &stream);
        }
        for message in 0..MESSAGES {
            let counter = |counter: u128| (nonce ^ message << 32 | counter).to_be_bytes();
            let stream: Vec<u8> =
                (1..KEYSTREAM_BLOCKS).flat_map(|i| encrypted(counter(i))).collect();
            self.add(&format!("{name}, keystream of message {message}, from E(J0)"), &stream);
        }
        let hash_key = u128::from_be_bytes(encrypted([0; 16]));
        // As SP 800-38D has it, and multiplied by x for POLYVAL (RFC 8452, appendix A).
        let carry = hash_key >> 127;
        let multiplied = hash_key << 1 ^ carry ^ carry << 127 ^ carry << 126 ^ carry << 121;
        for form in [hash_key, multiplied] {
            self.add(&format!("{name}, hash key"), &form.to_be_bytes());
            self.add(&format!("{name}, hash key"), &form.to_le_bytes());
        }
    }

    fn find<'a>(&'a self, bytes: &'a [u8]) -> impl Iterator<Item = (usize, &'a str)> {
        bytes.windows(16).enumerate().filter_map(|(at, window)| {
            if !self.starts[usize::from(u16::from_le_bytes([window[0], window[1]]))] {
                return None;
            }
            self.names.get(window).map(|name| (at, name.as_str()))
        })
    }
}

/// The key expansion of FIPS 197, section 5.2.
fn round_keys(key: &[u8; 32]) -> Vec<u8> {
    let mut words: Vec<[u8; 4]> = key.chunks(4).map(|word| word.try_into().unwrap()).collect();
    let mut constant = 1_u8;
    while words.len() < 60 {
        let (at, mut word) = (words.len(), words[words.len() - 1]);
        if at % 8 == 0 {
            word.rotate_left(1);
        }
        if at % 4 == 0 {
            word = word.map(substitute);
        }
        if at % 8 == 0 {
            word[0] ^= constant;
            constant <<= 1;
        }
        let before = words[at - 8];
        words.push(std::array::from_fn(|byte| word[byte] ^ before[byte]));
    }
    words.concat()
}

/// The S-box: the inverse in GF(2^8), then an affine map.
fn substitute(byte: u8) -> u8 {
    let multiply = |mut a: u8, mut b: u8| {
        let mut product = 0;
        while b != 0 {
            product ^= if b & 1 == 1 { a } else { 0 };
            a = (a << 1) ^ if a & 0x80 != 0 { 0x1b } else { 0 };
            b >>= 1;
        }
        product
    };
    let inverse = (0..254).fold(1, |power, _| multiply(power, byte));
    (0..5).fold(0x63, |sum, turn| sum ^ inverse.rotate_left(turn))
}

#[test]
fn the_round_keys_looked_for_are_those_of_aes() {
    let key: [u8; 32] = std::array::from_fn(|i| i as u8);
    let words = round_keys(&key);
    // FIPS 197, appendix C.3: the last round key.
    assert_eq!(words[224..228], [0x24, 0xfc, 0x79, 0xcc]);
}

/// All keys of the store, as its KMS gives them.
fn all_keys(dir: &Path) -> Patterns {
    let mut patterns = Patterns::default();
    let storage = DirectoryStorage::new(dir);
    let image = Image::parse(storage.load().unwrap().unwrap()).unwrap();
    let search = Search::opening(&Options::default(), true);
    let Ok((store_key, body)) = search.unlock(&image, &Client::all(vec![kms(dir)])) else {
        panic!("no store key")
    };
    patterns.add_key("store key", store_key.bytes().unwrap());
    let fixed = &image.fixed;
    for slot in &image.slots {
        let top = (fixed.store_key_id, &*store_key);
        let key = body.slot_key(&slot.slot_key_id, fixed.store_id, top).unwrap();
        patterns.add_key(&format!("slot key {}", slot.name), key.expose());
    }
    let ids = [&fixed.store_id.as_bytes()[..], fixed.store_key_id.as_bytes()];
    patterns.add_key("ring key", derive(store_key.bytes().unwrap(), Purpose::Ring, &ids).key());
    let mut data_keys = HashMap::new();
    for record in &body.keys {
        let key = record.unwrap(fixed.store_id, &store_key).unwrap();
        let id = DataKeyId::from_bytes(record.id);
        patterns.add_key(&format!("data key {id}"), key.bytes().unwrap());
        data_keys.insert(id, key);
    }
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let Ok(header) = crate::Header::parse(&bytes[..4096.min(bytes.len())]) else { continue };
        let prefix: &[u8; PREFIX_LEN] = bytes[..PREFIX_LEN].try_into().unwrap();
        let derived =
            derive(data_keys[&header.data_key_id].bytes().unwrap(), Purpose::File, &[&prefix[..]]);
        let name = path.file_name().unwrap().display();
        patterns.add_key(&format!("file key of {name}"), derived.key());
        patterns.add_uses(&format!("file {name}"), &derived, header.suite);
    }
    patterns
}

#[test]
#[cfg_attr(debug_assertions, ignore = "code that is not optimised copies keys to its stack")]
fn no_key_is_left_in_memory_after_a_revocation() {
    for width in Width::available() {
        println!("memory searched with width {}", width.name());
        check(width);
    }
}

fn check(width: Width) {
    let dir = tempfile::tempdir().unwrap();
    generate_key_file(dir.path().join("cmek.key")).unwrap();
    let mut child = Running::start(dir.path(), width);
    child.wait_for("working");
    let patterns = all_keys(dir.path());
    let before = child.scan(&patterns);
    child.tell("revoke");
    child.wait_for("revoked");
    let after = child.scan(&patterns);
    child.tell("restore");
    child.wait_for("restored");
    let restored = child.scan(&patterns);
    child.tell("end");
    assert!(child.child.wait().unwrap().success());
    let width = width.name();
    for kind in ["store key", "data key", "file key", "hash key"] {
        assert!(before.iter().any(|found| found.contains(kind)), "{width}: no {kind} at all");
    }
    assert!(after.is_empty(), "{width}: {} before; left:\n{}", before.len(), after.join("\n"));
    assert!(restored.iter().any(|found| found.contains("hash key")), "{width}");
    let dumped = before.iter().chain(&restored).filter(|found| !found.contains(UNDUMPED));
    let dumped: Vec<_> = dumped.map(String::as_str).collect();
    assert!(dumped.is_empty(), "{width}: a core dump has:\n{}", dumped.join("\n"));
    for found in before.iter().chain(&restored) {
        assert!(!found.contains("keystream"), "{width}: outlives its call: {found}");
    }
    // The portable key schedule is bit-sliced on some machines.
    let round_keys = |found: &Vec<String>| found.iter().any(|found| found.contains("round keys"));
    assert!(width == "portable" || round_keys(&before) && round_keys(&restored), "{width}");
}
