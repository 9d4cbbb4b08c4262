//! The command `atrest`: stores, keys and encrypted files, from the command line.

use std::process::ExitCode;

use clap::Parser;

mod advice;
mod cmd;
mod failure;
mod key;
mod output;
mod progress;
mod scan;
mod schemes;
mod signal;
mod staged;
mod store;
mod table;
mod units;

fn main() -> ExitCode {
    let cli = cmd::Cli::parse();
    let mut out = output::Out::new(cli.json);
    let result = signal::install().and_then(|()| cli.command.run(&mut out));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            signal::exit_if_interrupted();
            ExitCode::from(failure.report(cli.json))
        }
    }
}
