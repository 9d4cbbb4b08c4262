//! The commands. A new one is a file in `cmd/`, a variant of [`Command`] and its arm in
//! [`Command::run`]; its help text and examples stand with its arguments.

use clap::{Parser, Subcommand};

use crate::advice::EXIT_CODES_HELP;
use crate::failure::Result;
use crate::output::Out;

mod audit;
mod backup;
mod cmek;
mod decrypt;
#[cfg(feature = "demo")]
mod demo;
mod doctor;
mod encrypt;
mod init;
mod inspect;
mod keygen;
mod keys;
mod recover;
mod reencrypt;
mod rotate;
mod serve;
mod status;
mod verify;

#[cfg(feature = "demo")]
const DEMO_EXAMPLE: &str = "  atrest demo\n";
#[cfg(not(feature = "demo"))]
const DEMO_EXAMPLE: &str = "";

const EXAMPLES: &str = "  atrest keygen /etc/app/cmek.key
  atrest init data --cmek file:///etc/app/cmek.key
  atrest encrypt data report.pdf report.pdf --cmek file:///etc/app/cmek.key
  atrest status data --cmek file:///etc/app/cmek.key
";

/// Encryption at rest: stores, keys and encrypted files.
#[derive(Parser)]
#[command(
    name = "atrest",
    version,
    after_help = format!("Examples:\n{DEMO_EXAMPLE}{EXAMPLES}\n{EXIT_CODES_HELP}"),
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    /// Print JSON for machines; errors too, on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    Keygen(keygen::Args),
    Init(init::Args),
    Status(status::Args),
    Encrypt(encrypt::Args),
    Decrypt(decrypt::Args),
    Inspect(inspect::Args),
    Rotate(rotate::Args),
    Cmek(cmek::Args),
    Audit(audit::Args),
    Reencrypt(reencrypt::Args),
    Keys(keys::Args),
    #[cfg(feature = "demo")]
    Demo(demo::Args),
    Serve(serve::Args),
    Backup(backup::Args),
    Recover(recover::Args),
    Verify(verify::Args),
    Doctor(doctor::Args),
}

impl Command {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        match self {
            Self::Keygen(args) => args.run(out),
            Self::Init(args) => args.run(out),
            Self::Status(args) => args.run(out),
            Self::Encrypt(args) => args.run(out),
            Self::Decrypt(args) => args.run(out),
            Self::Inspect(args) => args.run(out),
            Self::Rotate(args) => args.run(out),
            Self::Cmek(args) => args.run(out),
            Self::Audit(args) => args.run(out),
            Self::Reencrypt(args) => args.run(out),
            Self::Keys(args) => args.run(out),
            #[cfg(feature = "demo")]
            Self::Demo(args) => args.run(out),
            Self::Serve(args) => args.run(out),
            Self::Backup(args) => args.run(out),
            Self::Recover(args) => args.run(out),
            Self::Verify(args) => args.run(out),
            Self::Doctor(args) => args.run(out),
        }
    }
}
