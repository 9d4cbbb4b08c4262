//! The command `atrest`: stores, keys and encrypted files, from the command line.

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod advice;
mod bucket;
mod cmd;
mod failure;
mod key;
mod output;
mod paint;
mod place;
mod progress;
mod scan;
mod schemes;
mod signal;
mod staged;
mod store;
mod table;
mod torn;
mod units;
mod usage;

/// Of what a key service sends, and of plaintext, nothing outlives its buffer.
#[global_allocator]
static ALLOCATOR: atrest::WipingAllocator = atrest::WipingAllocator;

/// Lets this process have as many files open, and lock as much memory for keys, as it may ask
/// for: the soft limit of files is there for programs that use `select`.
fn raise_limits() {
    for resource in [Resource::Nofile, Resource::Memlock] {
        let mut limit = getrlimit(resource);
        limit.current = limit.maximum;
        // What the system refuses (macOS, one without end) stays as it was.
        let _ = setrlimit(resource, limit);
    }
}

/// Keys are left out of core dumps, but for those of calls that run; tokens, passphrases as they
/// are typed, and plaintext are not. One byte, since none at all would still be piped to a program
/// that collects dumps.
fn refuse_core_dumps() {
    let limit = Rlimit { current: Some(1), ..getrlimit(Resource::Core) };
    if setrlimit(Resource::Core, limit).is_ok() {
        return;
    }
    // It may be none at most. Not always, since nobody but root can debug the process then.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        // OK because only the first kernels had no such call.
        let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    }
}

fn main() -> ExitCode {
    raise_limits();
    refuse_core_dumps();
    let cli = match cmd::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage::report(&error),
    };
    let mut out = output::Out::new(cli.json);
    let result = signal::install(cli.json).and_then(|()| cli.command.run(&mut out));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            signal::exit_if_interrupted();
            ExitCode::from(out.failure(&failure))
        }
    }
}
