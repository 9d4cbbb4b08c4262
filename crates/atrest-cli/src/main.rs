//! The command `atrest`: stores, keys and encrypted files, from the command line.

use std::process::ExitCode;

use clap::Parser;

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

/// Lets this process have as many files open as it may ask for: the soft limit is there for
/// programs that use `select`.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What the system refuses (macOS, one without end) stays as it was.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn main() -> ExitCode {
    raise_file_limit();
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
