//! How a store is opened, as one line of text: `mode=open;check_interval_s=60`.

use std::time::Duration;

use atrest::keyring::Grace;
use atrest::{Options, PlaintextPolicy};

use crate::border::{Fault, Outcome};

/// What to do with a store that is there, and with one that is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Open,
    Create,
    OpenOrCreate,
    ReadOnly,
}

pub(crate) fn parse(text: &str) -> Outcome<(Mode, Options)> {
    let (mut mode, mut options) = (Mode::OpenOrCreate, Options::default());
    let (settings, access) = (&mut options.settings, &mut options.access);
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let Some((name, value)) = part.split_once('=') else {
            return Err(Fault::invalid(format!("expected NAME=VALUE, found {part:?}")));
        };
        let (name, value) = (name.trim(), value.trim());
        match name {
            "mode" => mode = parse_mode(value)?,
            "integrity" => settings.integrity = value.parse().map_err(Fault::from)?,
            "allow_plaintext" => {
                settings.plaintext = match flag(name, value)? {
                    true => PlaintextPolicy::Allow,
                    false => PlaintextPolicy::Require,
                };
            }
            "rotation_period_s" => settings.rotation_period = seconds(name, value)?,
            "rotation_bytes" => settings.rotation_bytes = Some(number(name, value)?),
            "kms_deadline_s" => options.kms_deadline = seconds(name, value)?,
            "check_interval_s" => access.check_interval = seconds(name, value)?,
            "recovery_interval_s" => access.recovery_interval = seconds(name, value)?,
            "confirmations" => {
                let count = u32::try_from(number(name, value)?).ok().filter(|count| *count > 0);
                access.confirmations = count.ok_or_else(|| expected(name, "1 or more", value))?;
            }
            "confirm_over_s" => access.confirm_over = seconds(name, value)?,
            "unreachable_grace_s" => access.unreachable_grace = Grace::For(seconds(name, value)?),
            "slot" => options.slot = Some(value.into()),
            "store_id" => {
                let id = value.parse();
                options.store_id =
                    Some(id.map_err(|_| expected(name, "32 hexadecimal digits", value))?);
            }
            _ => return Err(Fault::invalid(format!("unknown option {name:?}"))),
        }
    }
    Ok((mode, options))
}

fn parse_mode(value: &str) -> Outcome<Mode> {
    Ok(match value {
        "open" => Mode::Open,
        "create" => Mode::Create,
        "open-or-create" => Mode::OpenOrCreate,
        "read-only" => Mode::ReadOnly,
        _ => return Err(expected("mode", "open, create, open-or-create or read-only", value)),
    })
}

fn flag(name: &str, value: &str) -> Outcome<bool> {
    value.parse().map_err(|_| expected(name, "true or false", value))
}

fn number(name: &str, value: &str) -> Outcome<u64> {
    value.parse().map_err(|_| expected(name, "a whole number", value))
}

fn seconds(name: &str, value: &str) -> Outcome<Duration> {
    number(name, value).map(Duration::from_secs)
}

fn expected(name: &str, what: &str, found: &str) -> Fault {
    Fault::invalid(format!("{name}: expected {what}, found {found:?}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use atrest::{FileKind, Integrity};

    use super::*;

    #[test]
    fn the_defaults_are_the_library_s() {
        for text in ["", " ; ", ";;"] {
            let (mode, options) = parse(text).ok().unwrap();
            assert_eq!(mode, Mode::OpenOrCreate);
            assert_eq!(options.settings, Options::default().settings);
            assert_eq!(options.access, Options::default().access);
        }
    }

    #[test]
    fn every_option_is_taken() {
        let text = "mode=read-only; integrity=authenticated,table=confidential; allow_plaintext=true; \
                    rotation_period_s=7; rotation_bytes=8; kms_deadline_s=9; check_interval_s=10; \
                    recovery_interval_s=11; confirmations=12; confirm_over_s=13; \
                    unreachable_grace_s=14; slot=eu; store_id=000102030405060708090a0b0c0d0e0f";
        let (mode, options) = parse(text).ok().unwrap();
        assert_eq!(mode, Mode::ReadOnly);
        let integrity = options.settings.integrity;
        assert_eq!(integrity.of(FileKind::Log), Integrity::Authenticated);
        assert_eq!(integrity.of(FileKind::Table), Integrity::Confidential);
        assert_eq!(options.settings.plaintext, PlaintextPolicy::Allow);
        assert_eq!(options.settings.rotation_period.as_secs(), 7);
        assert_eq!(options.settings.rotation_bytes, Some(8));
        assert_eq!(options.kms_deadline.as_secs(), 9);
        assert_eq!(options.access.check_interval.as_secs(), 10);
        assert_eq!(options.access.recovery_interval.as_secs(), 11);
        assert_eq!(options.access.confirmations, 12);
        assert_eq!(options.access.confirm_over.as_secs(), 13);
        assert_eq!(options.access.unreachable_grace, Grace::For(Duration::from_secs(14)));
        assert_eq!(options.slot.as_deref(), Some("eu"));
        assert!(options.store_id.is_some());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "mode",
            "mode=append",
            "Mode=open",
            "confirmations=0",
            "confirmations=4294967296",
            "check_interval_s=-1",
            "check_interval_s=1.5",
            "integrity=yes",
            "allow_plaintext=yes",
            "store_id=12",
            "minimum_suite=2",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
