//! Dates as AWS and certificates write them, without a calendar library.

use std::time::{Duration, SystemTime};

const DAY_SECS: u64 = 86_400;

/// `20150830T123600Z`.
pub(crate) fn format(time: SystemTime) -> String {
    let secs = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil(secs / DAY_SECS);
    let second = secs % DAY_SECS;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Reads `2026-11-24T04:22:22Z`, with or without a fraction; `None` for anything else.
pub(crate) fn parse(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
    let (date, time) = text.split_once('T')?;
    let [year, month, day] = three(date, '-')?;
    let [hour, minute, second] = three(time.split('.').next()?, ':')?;
    moment([year, month, day], [hour, minute, second])
}

/// Reads `20150830123600Z`, as certificates have it, or the same with two digits of the year,
/// of 1950 to 2049 (RFC 5280 section 4.1.2.5); `None` for anything else.
pub(crate) fn parse_digits(text: &[u8]) -> Option<SystemTime> {
    let digits = text.strip_suffix(b"Z")?;
    let number = |digits: &[u8]| std::str::from_utf8(digits).ok()?.parse::<u64>().ok();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let (year, rest) = match digits.len() {
        14 => (number(&digits[..4])?, &digits[4..]),
        12 => {
            let year = number(&digits[..2])?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        _ => return None,
    };
    let pairs: Option<Vec<u64>> = rest.chunks(2).map(number).collect();
    let [month, day, hour, minute, second] = pairs?.try_into().ok()?;
    moment([year, month, day], [hour, minute, second])
}

fn moment([year, month, day]: [u64; 3], [hour, minute, second]: [u64; 3]) -> Option<SystemTime> {
    let sound = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    sound.then(|| {
        let secs = days(year, month, day) * DAY_SECS + hour * 3600 + minute * 60 + second;
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    })
}

fn three(text: &str, separator: char) -> Option<[u64; 3]> {
    let numbers: Option<Vec<u64>> = text.split(separator).map(|part| part.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// Days since 1970 of a date (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year.saturating_sub(1) } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.saturating_sub(1);
    (era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year).saturating_sub(719_468)
}

/// The inverse of [`days`].
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_dates() {
        let at = |secs| SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
        assert_eq!(format(at(0)), "19700101T000000Z");
        assert_eq!(format(at(951_782_400)), "20000229T000000Z");
        assert_eq!(parse("2000-02-29T00:00:00Z"), Some(at(951_782_400)));
        assert_eq!(parse("2015-08-30T12:36:00.123Z"), Some(at(1_440_938_160)));
        assert_eq!(parse_digits(b"000229000000Z"), Some(at(951_782_400)));
        assert_eq!(parse_digits(b"20000229000000Z"), Some(at(951_782_400)));
        assert_eq!(parse_digits(b"991231235959Z"), Some(at(946_684_799)));
        for bad in ["", "Z", "000229000000", "0002290000Z", "001329000000Z", "00022900000xZ"] {
            assert_eq!(parse_digits(bad.as_bytes()), None, "{bad}");
        }
        for bad in ["", "Z", "2015-08-30Z", "2015-13-30T12:36:00Z", "2015-08-30T12:36Z", "x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parse_reads_what_format_writes(secs in 0_u64..253_402_300_800) {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
            let text = format(time);
            let long = format!(
                "{}-{}-{}T{}:{}:{}Z",
                &text[..4], &text[4..6], &text[6..8], &text[9..11], &text[11..13], &text[13..15]
            );
            prop_assert_eq!(parse(&long), Some(time));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in ".{0,40}", digits in "[0-9:TZ.-]{0,40}") {
            let _ = (parse(&text), parse(&digits), parse_digits(digits.as_bytes()));
        }
    }
}
