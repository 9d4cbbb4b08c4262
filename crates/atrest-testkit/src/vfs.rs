//! What every file system has to do.

use std::io;
use std::path::Path;

use atrest::vfs::{Attributes, EntryKind, FileStat, Links, Rename, Vfs};

/// Holds a file system to the contract of [`Vfs`], in `dir`, an empty directory of it.
///
/// # Panics
/// If it breaks the contract.
pub fn vfs_conformance(vfs: &dyn Vfs, dir: &Path) {
    type Check = fn(&dyn Vfs, &Path);
    let checks: [(&str, Check); 12] = [
        ("content", content),
        ("creation", creation),
        ("missing", missing),
        ("stat", stat),
        ("listing", listing),
        ("renaming", renaming),
        ("exchange", exchange),
        ("links", hard_links),
        ("removal", removal),
        ("attributes", attributes),
        ("locks", locks),
        ("names", names),
    ];
    for (name, check) in checks {
        let dir = dir.join(name);
        vfs.create_dir(&dir, 0o755).unwrap_or_else(|e| panic!("create_dir for {name}: {e}"));
        check(vfs, &dir);
        vfs.sync_dir(&dir).unwrap_or_else(|e| panic!("sync_dir after {name}: {e}"));
    }
}

fn kind<T>(result: io::Result<T>) -> Option<io::ErrorKind> {
    result.err().map(|error| error.kind())
}

fn write(vfs: &dyn Vfs, path: &Path, bytes: &[u8]) {
    let mut file = vfs.create_new(path, 0o644).expect("create_new");
    file.append(bytes).expect("append");
    file.sync().expect("sync");
}

fn read(vfs: &dyn Vfs, path: &Path) -> Vec<u8> {
    let file = vfs.open(path, Links::Refuse).expect("open");
    let mut bytes = vec![0; usize::try_from(file.len().expect("len")).expect("a short file")];
    assert_eq!(file.read_at(&mut bytes, 0).expect("read_at"), bytes.len(), "a whole read");
    bytes
}

fn stat_of(vfs: &dyn Vfs, path: &Path) -> FileStat {
    vfs.stat(path).expect("stat")
}

/// What an operation may refuse to do, but not pretend to have done. True if it did it.
fn did(result: io::Result<()>, what: &str) -> bool {
    match result {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::Unsupported => false,
        Err(error) => panic!("{what}: {error}"),
    }
}

fn content(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("f");
    let bytes: Vec<u8> = (0..300_007_u32).map(|at| (at * 31 + at / 251) as u8).collect();
    let mut file = vfs.create_new(&path, 0o644).expect("create_new");
    for piece in bytes.chunks(77_777) {
        file.append(piece).expect("append");
    }
    file.flush().expect("flush");
    assert!(read(vfs, &path) == bytes, "what was flushed can be read");
    file.append(b"").expect("append nothing");
    file.append(b"more").expect("append after a flush");
    file.sync().expect("sync");
    drop(file);
    let len = bytes.len() as u64 + 4;
    let file = vfs.open(&path, Links::Follow).expect("open");
    assert_eq!(file.len().expect("len"), len);
    for (offset, asked) in [(0, 1), (1, 4096), (4095, 2), (8192, 65_536), (299_999, 8)] {
        let mut buf = vec![0; asked];
        assert_eq!(file.read_at(&mut buf, offset as u64).expect("read_at"), asked);
        assert!(buf == bytes[offset..offset + asked], "{asked} bytes at {offset}");
    }
    let mut buf = [0; 9];
    assert_eq!(file.read_at(&mut buf, len - 4).expect("read_at"), 4, "short at the end");
    assert_eq!(&buf[..4], b"more");
    assert_eq!(file.read_at(&mut buf, len).expect("read_at"), 0, "at the end");
    assert_eq!(file.read_at(&mut buf, len + 1000).expect("read_at"), 0, "past the end");
    file.will_need(0, len);
    std::thread::scope(|scope| {
        for at in 0..4 {
            let (file, bytes) = (&file, &bytes);
            scope.spawn(move || {
                let mut buf = vec![0; 50_000];
                file.read_at(&mut buf, at * 60_000).expect("read_at in a thread");
                assert!(buf == bytes[at as usize * 60_000..][..50_000], "threads share a file");
            });
        }
    });
}

fn creation(vfs: &dyn Vfs, dir: &Path) {
    let (empty, below) = (dir.join("empty"), dir.join("d"));
    let mut file = vfs.create_new(&empty, 0o600).expect("create_new");
    file.sync().expect("sync an empty file");
    assert_eq!(read(vfs, &empty), b"");
    let taken = Some(io::ErrorKind::AlreadyExists);
    assert_eq!(kind(vfs.create_new(&empty, 0o600)), taken, "a file is there");
    vfs.create_dir(&below, 0o755).expect("create_dir");
    assert_eq!(kind(vfs.create_new(&below, 0o600)), taken, "a directory is there");
    write(vfs, &below.join("f"), b"f");
    vfs.create_dir(&below, 0o755).expect("create_dir where the directory is there");
    assert_eq!(read(vfs, &below.join("f")), b"f");
    assert_eq!(kind(vfs.create_dir(&empty, 0o755)), taken, "a file is no directory");
    let nowhere = kind(vfs.create_new(&dir.join("no").join("f"), 0o600));
    assert_eq!(nowhere, Some(io::ErrorKind::NotFound), "a file without a directory");
}

fn missing(vfs: &dyn Vfs, dir: &Path) {
    let (none, to) = (dir.join("none"), dir.join("to"));
    let outcomes = [
        ("open", kind(vfs.open(&none, Links::Follow))),
        ("open, links refused", kind(vfs.open(&none, Links::Refuse))),
        ("stat", kind(vfs.stat(&none))),
        ("list", kind(vfs.list(&none))),
        ("rename", kind(vfs.rename(&none, &to, Rename::Replace))),
        ("hard_link", kind(vfs.hard_link(&none, &to))),
        ("remove", kind(vfs.remove(&none))),
        ("sync_dir", kind(vfs.sync_dir(&none))),
        ("canonical", kind(vfs.canonical(&none))),
    ];
    for (name, outcome) in outcomes {
        let unsupported = name == "hard_link" && outcome == Some(io::ErrorKind::Unsupported);
        assert!(outcome == Some(io::ErrorKind::NotFound) || unsupported, "{name}: {outcome:?}");
    }
    assert!(vfs.set_attributes(&none, &Attributes::default()).is_err(), "attributes of nothing");
    assert!(vfs.list(dir).expect("list").is_empty(), "nothing was made");
}

fn stat(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("f");
    write(vfs, &path, b"seven..");
    let one = stat_of(vfs, &path);
    assert_eq!((one.kind, one.len), (EntryKind::File, 7));
    assert!(one.links >= 1, "a file has a name");
    assert_eq!(stat_of(vfs, &path), one, "nothing changed");
    assert_eq!(stat_of(vfs, dir).kind, EntryKind::Directory);
    // A new file under the old name is told from the old one.
    let new = dir.join("new");
    write(vfs, &new, b"seven!!");
    vfs.rename(&new, &path, Rename::Replace).expect("rename");
    let other = stat_of(vfs, &path);
    let identity = |stat: &FileStat| (stat.device, stat.inode, stat.modified_ns);
    assert!(one.inode == 0 || identity(&one) != identity(&other), "another file: {other:?}");
}

fn listing(vfs: &dyn Vfs, dir: &Path) {
    assert!(vfs.list(dir).expect("list").is_empty());
    write(vfs, &dir.join("a"), b"1");
    write(vfs, &dir.join("b"), b"22");
    vfs.create_dir(&dir.join("c"), 0o755).expect("create_dir");
    write(vfs, &dir.join("c").join("below"), b"333");
    let mut found = vfs.list(dir).expect("list");
    found.sort_by(|one, other| one.path.cmp(&other.path));
    let paths: Vec<_> = found.iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(paths, [dir.join("a"), dir.join("b"), dir.join("c")], "this directory, no other");
    let kinds: Vec<_> = found.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [EntryKind::File, EntryKind::File, EntryKind::Directory]);
    assert_eq!((found[0].len, found[1].len), (1, 2));
    assert!(vfs.list(&dir.join("a")).is_err(), "a file has no entries");
}

fn renaming(vfs: &dyn Vfs, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    write(vfs, &a, b"one");
    vfs.rename(&a, &b, Rename::Replace).expect("rename to a new name");
    assert_eq!(kind(vfs.stat(&a)), Some(io::ErrorKind::NotFound), "the old name is gone");
    assert_eq!(read(vfs, &b), b"one");
    write(vfs, &a, b"two");
    let opened = vfs.open(&b, Links::Follow).expect("open");
    vfs.rename(&a, &b, Rename::Replace).expect("rename over a file");
    assert_eq!(read(vfs, &b), b"two");
    let mut buf = [0; 3];
    assert_eq!(opened.read_at(&mut buf, 0).expect("read_at"), 3);
    assert_eq!(&buf, b"one", "what was opened stays what it was");
    let sub = dir.join("sub");
    vfs.create_dir(&sub, 0o755).expect("create_dir");
    vfs.rename(&b, &sub.join("b"), Rename::Replace).expect("rename into a directory");
    assert_eq!(read(vfs, &sub.join("b")), b"two");
    vfs.rename(&sub, &dir.join("moved"), Rename::Replace).expect("rename a directory");
    assert_eq!(read(vfs, &dir.join("moved").join("b")), b"two");
    assert_eq!(kind(vfs.list(&sub)), Some(io::ErrorKind::NotFound));
    let gone = kind(vfs.rename(&a, &b, Rename::Replace));
    assert_eq!(gone, Some(io::ErrorKind::NotFound), "it has gone already");
}

fn exchange(vfs: &dyn Vfs, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    write(vfs, &a, b"one");
    write(vfs, &b, b"two");
    if !did(vfs.rename(&a, &b, Rename::Exchange), "exchange") {
        assert_eq!((read(vfs, &a), read(vfs, &b)), (b"one".into(), b"two".into()));
        return;
    }
    assert_eq!((read(vfs, &a), read(vfs, &b)), (b"two".into(), b"one".into()));
    let alone = kind(vfs.rename(&a, &dir.join("none"), Rename::Exchange));
    assert_eq!(alone, Some(io::ErrorKind::NotFound), "an exchange with nothing");
    assert_eq!(read(vfs, &a), b"two");
}

fn hard_links(vfs: &dyn Vfs, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    write(vfs, &a, b"one");
    if !did(vfs.hard_link(&a, &b), "hard_link") {
        assert_eq!(kind(vfs.stat(&b)), Some(io::ErrorKind::NotFound), "no link was made");
        return;
    }
    assert_eq!(read(vfs, &b), b"one");
    let (one, other) = (stat_of(vfs, &a), stat_of(vfs, &b));
    assert_eq!((one.device, one.inode), (other.device, other.inode), "one file");
    assert_eq!((one.links, other.links), (2, 2));
    assert_eq!(kind(vfs.hard_link(&a, &b)), Some(io::ErrorKind::AlreadyExists));
    vfs.remove(&a).expect("remove one name");
    assert_eq!(read(vfs, &b), b"one", "the other name stays");
    assert_eq!(stat_of(vfs, &b).links, 1);
}

fn removal(vfs: &dyn Vfs, dir: &Path) {
    let (f, sub) = (dir.join("f"), dir.join("sub"));
    write(vfs, &f, b"one");
    let opened = vfs.open(&f, Links::Follow).expect("open");
    vfs.remove(&f).expect("remove");
    assert_eq!(kind(vfs.stat(&f)), Some(io::ErrorKind::NotFound));
    let mut buf = [0; 3];
    assert_eq!(opened.read_at(&mut buf, 0).expect("read_at"), 3, "an open file stays");
    vfs.create_dir(&sub, 0o755).expect("create_dir");
    write(vfs, &sub.join("f"), b"two");
    let full = kind(vfs.remove(&sub));
    assert_eq!(full, Some(io::ErrorKind::DirectoryNotEmpty));
    assert_eq!(read(vfs, &sub.join("f")), b"two");
    let (stat, other) = (stat_of(vfs, &sub), dir.join("other"));
    vfs.create_dir(&other, 0o755).expect("create_dir");
    write(vfs, &other.join("f"), b"two");
    assert!(vfs.remove_in(&other, &stat, "f".as_ref()).is_err(), "another directory");
    assert_eq!(read(vfs, &other.join("f")), b"two");
    vfs.remove_in(&sub, &stat, "f".as_ref()).expect("remove_in");
    assert_eq!(kind(vfs.remove_in(&sub, &stat, "f".as_ref())), Some(io::ErrorKind::NotFound));
    vfs.remove(&other.join("f")).expect("remove");
    vfs.remove(&other).expect("remove an empty directory");
    vfs.remove(&sub).expect("remove an empty directory");
    assert!(vfs.list(dir).expect("list").is_empty());
}

fn attributes(vfs: &dyn Vfs, dir: &Path) {
    let path = dir.join("f");
    write(vfs, &path, b"one");
    let before = stat_of(vfs, &path);
    let time = Some(1_234_567_890_123_456_000);
    let new = Attributes { owner: before.owner, mode: Some(0o640), modified_ns: time };
    if !did(vfs.set_attributes(&path, &new), "set_attributes") {
        assert_eq!(stat_of(vfs, &path), before);
        return;
    }
    let after = stat_of(vfs, &path);
    assert_eq!((after.mode & 0o7777, Some(after.modified_ns)), (0o640, time));
    assert_eq!(after.owner, before.owner);
    vfs.set_attributes(&path, &Attributes::default()).expect("set no attributes");
    assert_eq!(stat_of(vfs, &path), after, "what is not given stays");
    assert_eq!(read(vfs, &path), b"one");
}

fn locks(vfs: &dyn Vfs, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    let held = vfs.lock(&a).expect("lock");
    assert_eq!(stat_of(vfs, &a).kind, EntryKind::File, "the file is created");
    assert_eq!(kind(vfs.lock(&a)), Some(io::ErrorKind::WouldBlock), "it is held");
    let other = vfs.lock(&b).expect("another lock");
    drop(held);
    let again = vfs.lock(&a).expect("lock after it was released");
    drop((again, other));
}

fn names(vfs: &dyn Vfs, dir: &Path) {
    let canonical = vfs.canonical(dir).expect("canonical");
    assert!(canonical.is_absolute());
    assert_eq!(vfs.canonical(&canonical).expect("canonical"), canonical);
    vfs.create_dir(&dir.join("sub"), 0o755).expect("create_dir");
    write(vfs, &dir.join("f"), b"one");
    let other = vfs.canonical(&dir.join("sub").join("..").join(".").join("f")).expect("canonical");
    assert_eq!(other, canonical.join("f"), "one name for one file");
    assert_eq!(read(vfs, &other), b"one");
}
