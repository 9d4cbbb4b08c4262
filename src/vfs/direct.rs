//! Files past the page cache (`O_DIRECT`), for engines that have a cache of their own.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::os::FORKED;
use super::{Attributes, DirEntry, FileStat, Links, OsVfs, ReadFile, Rename, Vfs, WriteFile, os};
use crate::process::Process;

/// Alignment of addresses, offsets and lengths in bytes: that of every block device in
/// use. The 4096-byte header keeps it, so an aligned logical read is an aligned one.
const ALIGNMENT: usize = 4096;
/// Pages that a writer collects before it writes, and a misaligned reader reads at once.
const PAGES: usize = 64;

#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; ALIGNMENT]);

fn pages(count: usize) -> Box<[Page]> {
    vec![Page([0; ALIGNMENT]); count].into_boxed_slice()
}

/// The operating system's files, past the page cache. A read into a buffer whose address,
/// length and offset are multiples of 4096 goes straight there; any other one costs a copy
/// and an allocation of at most 256 KiB. A writer writes whole pages, and the last one when
/// it is flushed or synced, padded: a crash just then leaves up to 4095 zeros behind the
/// end. For tables, whose end the engine knows; a log belongs in the page cache.
///
/// The file system has to support `O_DIRECT`: where it does not, opening fails with
/// `InvalidInput`. On Linux, Android and FreeBSD only.
#[derive(Clone, Copy, Debug, Default)]
pub struct DirectVfs;

#[deny(clippy::missing_trait_methods)]
impl Vfs for DirectVfs {
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn WriteFile>> {
        let process = Process::current();
        let (file, straight) = create_new(path, mode, past_the_cache)?;
        let pages = pages(PAGES);
        Ok(Box::new(DirectWriter { file, straight, pages, filled: 0, offset: 0, process }))
    }

    fn open(&self, path: &Path, links: Links) -> io::Result<Box<dyn ReadFile>> {
        Ok(Box::new(DirectReader(os::regular(os::open(
            path,
            links,
            OFlags::DIRECT | OFlags::NONBLOCK,
        )?)?)))
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        OsVfs.stat(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        OsVfs.list(dir)
    }

    fn rename(&self, from: &Path, to: &Path, how: Rename) -> io::Result<()> {
        OsVfs.rename(from, to, how)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        OsVfs.hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        OsVfs.remove(path)
    }

    fn remove_in(&self, dir: &Path, expected: &FileStat, name: &OsStr) -> io::Result<()> {
        OsVfs.remove_in(dir, expected, name)
    }

    fn create_dir(&self, dir: &Path, mode: u32) -> io::Result<()> {
        OsVfs.create_dir(dir, mode)
    }

    fn set_attributes(&self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        OsVfs.set_attributes(path, attributes)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        OsVfs.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        OsVfs.lock(path)
    }

    fn canonical(&self, path: &Path) -> io::Result<PathBuf> {
        OsVfs.canonical(path)
    }
}

/// Creates a file, and then has it go past the page cache: a system that is asked for both at once
/// creates the file before it says that the file system cannot.
fn create_new(
    path: &Path,
    mode: u32,
    past_the_cache: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<(File, bool)> {
    let (file, straight) = os::create_new(path, mode)?;
    if let Err(error) = past_the_cache(&file) {
        // The first error is the one to tell.
        drop(OsVfs.remove(path));
        return Err(error);
    }
    Ok((file, straight))
}

fn past_the_cache(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fcntl_setfl(file, OFlags::DIRECT)?)
}

/// Fills `buf` from `offset` on by reads of whole pages into pages. `read` may bring fewer bytes
/// than it was asked for at the end of the file, or if the system feels like it: only what ends
/// inside a page is the end.
fn read_by_pages(
    buf: &mut [u8],
    offset: u64,
    mut read: impl FnMut(&mut [u8], u64) -> io::Result<usize>,
) -> io::Result<usize> {
    let mut done = 0;
    let mut bounce: Option<Box<[Page]>> = None;
    while done < buf.len() {
        let (rest, at) = (&mut buf[done..], offset + done as u64);
        let skip = (at % ALIGNMENT as u64) as usize;
        let whole = rest.len() / ALIGNMENT * ALIGNMENT;
        let straight = skip == 0 && whole > 0 && rest.as_ptr().addr() % ALIGNMENT == 0;
        let found = if straight {
            let found = read(&mut rest[..whole], at)?;
            done += found;
            found
        } else {
            if bounce.is_none() {
                bounce = Some(pages((skip + rest.len()).div_ceil(ALIGNMENT).min(PAGES)));
            }
            let pages = bounce.as_deref_mut().unwrap_or_default().as_mut_bytes();
            let found = read(pages, at - skip as u64)?;
            let copied = found.saturating_sub(skip).min(rest.len());
            rest[..copied].copy_from_slice(&pages[skip..skip + copied]);
            done += copied;
            found
        };
        if found == 0 || found % ALIGNMENT != 0 {
            break;
        }
    }
    Ok(done)
}

#[derive(Debug)]
struct DirectReader(File);

impl DirectReader {
    /// One aligned read; fewer bytes than asked at the end of the file, or if the system
    /// feels like it.
    fn read_aligned(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.0.read_at(buf, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl ReadFile for DirectReader {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        read_by_pages(buf, offset, |pages, at| self.read_aligned(pages, at))
    }

    fn len(&self) -> io::Result<u64> {
        os::len(&self.0)
    }
}

struct DirectWriter {
    file: File,
    straight: bool,
    pages: Box<[Page]>,
    /// Bytes in the pages.
    filled: usize,
    /// Where the pages go in the file: aligned.
    offset: u64,
    /// The one that may write: a forked child's pages are those of the moment of the fork,
    /// and its idea of the end too.
    process: Process,
}

impl std::fmt::Debug for DirectWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DirectWriter").field("offset", &self.offset).finish_non_exhaustive()
    }
}

impl DirectWriter {
    /// Writes the whole pages there are, and keeps what is left of the last one.
    fn write_whole(&mut self) -> io::Result<()> {
        let whole = self.filled / ALIGNMENT * ALIGNMENT;
        let bytes = self.pages.as_mut_bytes();
        self.file.write_all_at(&bytes[..whole], self.offset)?;
        bytes.copy_within(whole..self.filled, 0);
        self.offset += whole as u64;
        self.filled -= whole;
        Ok(())
    }
}

impl WriteFile for DirectWriter {
    fn append(&mut self, mut buf: &[u8]) -> io::Result<()> {
        self.process.check(FORKED)?;
        while !buf.is_empty() {
            let room = &mut self.pages.as_mut_bytes()[self.filled..];
            let (now, later) = buf.split_at(room.len().min(buf.len()));
            room[..now.len()].copy_from_slice(now);
            self.filled += now.len();
            buf = later;
            if self.filled == self.pages.as_bytes().len() {
                self.write_whole()?;
            }
        }
        Ok(())
    }

    /// Writes the last page, padded, and cuts the padding off. Its bytes stay here too,
    /// and are written again, the same, when the page is full.
    fn flush(&mut self) -> io::Result<()> {
        self.process.check(FORKED)?;
        self.write_whole()?;
        if self.filled > 0 {
            let page = &mut self.pages.as_mut_bytes()[..ALIGNMENT];
            page[self.filled..].fill(0);
            self.file.write_all_at(page, self.offset)?;
            self.file.set_len(self.offset + self.filled as u64)?;
        }
        Ok(())
    }

    fn straight_place(&self) -> Option<(u64, u64)> {
        os::straight_place(&self.file, self.straight)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// At every offset a read goes on to the end, however few pages the system brings at a time.
    #[test]
    fn a_short_read_that_ends_with_a_page_is_not_the_end() {
        for len in [0, 1, 4095, 4096, 3 * 4096, 5 * 4096 + 7] {
            let file: Vec<u8> = (0..len).map(|at| (at * 131 + at / 251) as u8).collect();
            for at_once in [1, 2, PAGES] {
                let read = |buf: &mut [u8], offset: u64| {
                    assert_eq!((buf.len() % ALIGNMENT, offset % ALIGNMENT as u64), (0, 0));
                    let rest = &file[file.len().min(offset as usize)..];
                    let found = rest.len().min(buf.len()).min(at_once * ALIGNMENT);
                    buf[..found].copy_from_slice(&rest[..found]);
                    Ok(found)
                };
                for offset in [0, 1, 100, 4096, 4097] {
                    for wanted in [1, 4096, 9000, 6 * 4096] {
                        let expected = &file[len.min(offset)..len.min(offset + wanted)];
                        let mut pages = pages(6);
                        let buf = &mut pages.as_mut_bytes()[..wanted];
                        let found = read_by_pages(buf, offset as u64, read).unwrap();
                        let what = (len, at_once, offset, wanted);
                        assert!(buf[..found] == *expected, "{found} bytes of {what:?}");
                    }
                }
            }
        }
    }

    /// As ramfs and others refuse it.
    #[test]
    fn a_file_that_cannot_go_past_the_cache_is_not_left() {
        let dir = tempfile::tempdir().unwrap();
        let odd = dir.path().join("../").join(dir.path().file_name().unwrap());
        for dir in [dir.path(), &odd] {
            let path = dir.join("file");
            for _ in 0..2 {
                let refused = create_new(&path, 0o600, |_| Err(io::ErrorKind::InvalidInput.into()));
                assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::InvalidInput);
                assert!(!path.exists());
            }
        }
    }
}
