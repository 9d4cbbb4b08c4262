//! What happens in a history, from its seed.

use atrest_testkit::mem_fs::{Fault, How, OpKind};

use crate::rng::Rng;

/// One thing that a process does. Numbers pick among what there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after what they call")]
pub(crate) enum Step {
    Write { suite: u8, len: u16, keyspace: bool },
    Replace { at: u8, suite: u8, len: u16 },
    Remove { at: u8 },
    Link { at: u8 },
    LogStart { suite: u8 },
    LogAppend { len: u16, sync: bool },
    Read { at: u8 },
    Put { key: u8 },
    Flush,
    Compact,
    RotateData,
    RotateStore,
    AddSlot { kms: u8 },
    RemoveSlot,
    ReplaceSlot { kms: u8 },
    Rewrap,
    ReplaceAllSlots { kms: u8, enable: bool },
    Configure { days: u8 },
    Tenant,
    ShredTenant,
    Hold,
    Revoke,
    Restore,
    Advance { days: u8 },
    Reopen,
    Reencrypt { suite: u8 },
    Retire,
    Verify,
    BackUp,
    RestoreBackup,
    Recover { lose: bool },
    Second,
}

/// What the key service does during a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// It works.
    Good,
    /// It does not answer.
    Away,
    /// It answers with another key.
    Wrong,
}

/// A step, and what goes wrong meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    /// Its number in the history.
    pub(crate) number: usize,
    /// The step.
    pub(crate) step: Step,
    /// What the file system does to it.
    pub(crate) fault: Option<Fault>,
    /// What the key service does to it.
    pub(crate) service: Service,
    /// The operation at which the process is killed, counted from where the step begins.
    pub(crate) kill: Option<usize>,
    /// Whether the machine crashes in it, so that the history goes on from an image.
    pub(crate) crash: bool,
}

/// How the store of a history is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    /// Whether the file system exchanges files.
    pub(crate) exchange: bool,
    /// Whether it has hard links.
    pub(crate) links: bool,
    /// Whether there is a mirror.
    pub(crate) mirror: bool,
}

const EIO: i32 = 5;
const ERRORS: [i32; 6] = [EIO, 28, 122, 4, 24, 116]; // EIO ENOSPC EDQUOT EINTR EMFILE ESTALE

/// The history of a seed.
pub(crate) fn history(seed: u64) -> (Setup, Vec<Item>) {
    let mut rng = Rng::new(seed, 1);
    let setup = Setup { exchange: rng.once_in(2), links: !rng.once_in(4), mirror: rng.once_in(3) };
    let len = 4 + rng.below(16) as usize;
    // Some histories are of a good disk alone, so that what they find is no fault's doing.
    let (faults, services, crashes) = (rng.once_in(2), rng.once_in(3), !rng.once_in(4));
    let items = (0..len).map(|number| Item {
        number,
        step: step(&mut rng),
        fault: if faults && rng.once_in(3) { Some(fault(&mut rng)) } else { None },
        service: match rng.below(8) {
            0 if services => Service::Away,
            1 if services => Service::Wrong,
            _ => Service::Good,
        },
        kill: (crashes && rng.once_in(6)).then(|| rng.below(40) as usize),
        crash: crashes && rng.once_in(5),
    });
    (setup, items.collect())
}

fn fault(rng: &mut Rng) -> Fault {
    let any = [
        OpKind::Any,
        OpKind::Create,
        OpKind::Open,
        OpKind::Read,
        OpKind::Append,
        OpKind::Sync,
        OpKind::Rename,
        OpKind::Link,
        OpKind::Remove,
        OpKind::Stat,
        OpKind::List,
        OpKind::SyncDir,
        OpKind::Lock,
    ];
    let on = rng.pick(&any);
    let how = match (on, rng.below(4)) {
        (OpKind::Read, 0) => How::OtherBytes,
        (OpKind::Rename | OpKind::Link | OpKind::Remove, 0) => How::Late(EIO),
        _ => How::Error(rng.pick(&ERRORS)),
    };
    let name = if rng.once_in(3) { "KEYRING" } else { "" }.to_owned();
    let times = if rng.once_in(6) { 1000 } else { 1 };
    Fault {
        on,
        name,
        after: rng.below(if on == OpKind::Any { 40 } else { 5 }) as usize,
        times,
        how,
    }
}

fn step(rng: &mut Rng) -> Step {
    let (at, kms) = (rng.below(256) as u8, rng.below(4) as u8);
    let (suite, magnitude) = (rng.below(3) as u8, 4 + rng.below(10));
    let len = rng.below(1 << magnitude) as u16;
    match rng.below(62) {
        0..8 => Step::Write { suite, len, keyspace: rng.once_in(2) },
        8..12 => Step::Replace { at, suite, len },
        12..14 => Step::Remove { at },
        14 => Step::Link { at },
        15..17 => Step::LogStart { suite },
        17..22 => Step::LogAppend { len, sync: !rng.once_in(3) },
        22 => Step::Read { at },
        23..28 => Step::Put { key: rng.below(8) as u8 },
        28 => Step::Flush,
        29 => Step::Compact,
        30..33 => Step::RotateData,
        33..35 => Step::RotateStore,
        35..37 => Step::AddSlot { kms },
        37 => Step::RemoveSlot,
        38..40 => Step::ReplaceSlot { kms },
        40 => Step::Rewrap,
        41..43 => Step::ReplaceAllSlots { kms, enable: rng.once_in(2) },
        43 => Step::Configure { days: 1 + rng.below(40) as u8 },
        44 => Step::Tenant,
        45 => Step::ShredTenant,
        46 => Step::Hold,
        47 => Step::Revoke,
        48 => Step::Restore,
        49..51 => Step::Advance { days: rng.below(70) as u8 },
        51..53 => Step::Reopen,
        53..55 => Step::Reencrypt { suite },
        55..57 => Step::Retire,
        57 => Step::Verify,
        58 => Step::BackUp,
        59 => Step::RestoreBackup,
        60 => Step::Recover { lose: rng.once_in(2) },
        _ => Step::Second,
    }
}
