//! `atrest cmek`: the customer's keys of a store, and access to them.

use clap::Subcommand;

use crate::failure::Result;
use crate::output::Out;

mod access;
pub(super) mod chains;
mod slots;
mod switch;

/// The customer's keys of a store: slots, switching on and off, revoking, restoring.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  atrest cmek status data --cmek file:///etc/app/cmek.key
  atrest cmek add data us-east --cmek file:///etc/app/eu.key --new-cmek file:///etc/app/us.key
  atrest cmek revoke data --cmek file:///etc/app/cmek.key
")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    List(slots::List),
    Add(slots::Add),
    Remove(slots::Remove),
    Rewrap(slots::Rewrap),
    Rotate(slots::Rotate),
    Enable(switch::Enable),
    Disable(switch::Disable),
    Revoke(access::Revoke),
    Restore(access::Restore),
    Status(access::Status),
}

impl Args {
    pub(crate) fn run(&self, out: &mut Out) -> Result<()> {
        match &self.what {
            What::List(args) => args.run(out),
            What::Add(args) => args.run(out),
            What::Remove(args) => args.run(out),
            What::Rewrap(args) => args.run(out),
            What::Rotate(args) => args.run(out),
            What::Enable(args) => args.run(out),
            What::Disable(args) => args.run(out),
            What::Revoke(args) => args.run(out),
            What::Restore(args) => args.run(out),
            What::Status(args) => args.run(out),
        }
    }
}
