//! Descriptors, of which a process may have only so many: how much work goes on at a time,
//! and what a call does that finds none left.
//!
//! That there is none says nothing about a file. It is waited out, since other work gives its
//! own back; and where that takes too long it is an error that says so, never one of a file
//! that is damaged or gone.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// How long a call waits for a descriptor.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Wait before the second try; doubled before each further one.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// What one thread that works through files has open at a time, at most: one that it reads,
/// one that it writes, and a directory or one of these again.
const EACH: u64 = 3;

/// Threads that may work through files at a time where `wanted` would. All of them take half
/// of the descriptors that the process may have: the rest is the program's own.
pub(crate) fn threads(wanted: usize) -> usize {
    within(getrlimit(Resource::Nofile).current, wanted)
}

fn within(limit: Option<u64>, wanted: usize) -> usize {
    let most =
        limit.map_or(usize::MAX, |limit| usize::try_from(limit / 2 / EACH).unwrap_or(usize::MAX));
    wanted.min(most).max(1)
}

/// An error of the system.
pub(crate) trait SystemError {
    /// Whether it says that the process, or the system, has no descriptor left.
    fn is_exhaustion(&self) -> bool;
}

impl SystemError for Errno {
    fn is_exhaustion(&self) -> bool {
        matches!(*self, Self::MFILE | Self::NFILE)
    }
}

impl SystemError for io::Error {
    fn is_exhaustion(&self) -> bool {
        Errno::from_io_error(self).is_some_and(|errno| errno.is_exhaustion())
    }
}

/// Calls `open` until there is a descriptor for it, for at most 5 seconds.
///
/// # Errors
/// Those of `open`.
pub(crate) fn patiently<T, E: SystemError>(mut open: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let mut waiting: Option<(Instant, Duration)> = None;
    loop {
        match open() {
            Err(error) if error.is_exhaustion() => {
                let (since, pause) = *waiting.get_or_insert((Instant::now(), PAUSE_FIRST));
                if since.elapsed() >= WAIT_MAX {
                    return Err(error);
                }
                std::thread::sleep(pause);
                waiting = Some((since, (pause * 2).min(PAUSE_MAX)));
            }
            other => return other,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn threads_follow_the_limit() {
        // 128 processors and four threads for each.
        assert_eq!(within(Some(1024), 512), 170);
        assert_eq!(within(Some(24), 64), 4);
        assert_eq!(within(Some(1 << 20), 512), 512);
        assert_eq!(within(None, 512), 512);
        // Somebody has to do the work.
        for limit in 0..8 {
            assert_eq!(within(Some(limit), 512), 1);
        }
        assert_eq!(within(Some(1024), 0), 1);
    }

    #[test]
    fn only_exhaustion_is_waited_out() {
        let mut tries = 0;
        let opened = patiently(|| {
            tries += 1;
            match tries {
                1 => Err(Errno::MFILE),
                2 => Err(Errno::NFILE),
                _ => Ok(tries),
            }
        });
        assert_eq!(opened, Ok(3));
        for errno in [Errno::NOENT, Errno::ACCESS, Errno::IO] {
            let mut tries = 0;
            let failed = patiently::<(), _>(|| {
                tries += 1;
                Err(io::Error::from(errno))
            });
            assert_eq!(
                (failed.unwrap_err().raw_os_error(), tries),
                (Some(errno.raw_os_error()), 1)
            );
        }
    }
}
