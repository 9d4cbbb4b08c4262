//! Bytes, durations and times, as people write and read them.

use std::time::Duration;

use atrest::IntegrityPolicy;

const MINUTE_S: u64 = 60;
const HOUR_S: u64 = 3600;
const DAY_S: u64 = 86_400;

/// Parses `30d`, `12h`, `90m`, `45s` or `2w`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("expected a number and one of s, m, h, d, w, as in 30d; found {text:?}");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let unit_s = match unit {
        "s" => 1,
        "m" => MINUTE_S,
        "h" => HOUR_S,
        "d" => DAY_S,
        "w" => 7 * DAY_S,
        _ => return Err(wrong()),
    };
    match number.checked_mul(unit_s) {
        Some(0) => Err("expected more than zero".into()),
        // The keyring counts nanoseconds in 64 bits.
        Some(seconds) if seconds <= u64::MAX / 1_000_000_000 => Ok(Duration::from_secs(seconds)),
        _ => Err("expected at most 584 years".into()),
    }
}

/// Parses `1000000`, `64KiB`, `10GiB`, `5TB`; a bare number is bytes.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("expected a number and maybe KiB, MiB, GiB, TiB, kB, MB, GB, TB; found {text:?}")
    };
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let unit_bytes: u64 = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    match number.checked_mul(unit_bytes) {
        Some(0) => Err("expected more than zero".into()),
        Some(bytes) => Ok(bytes),
        None => Err("expected fewer than 2^64 bytes".into()),
    }
}

/// Parses `authenticated`, or `authenticated,table=confidential`.
pub(crate) fn parse_integrity(text: &str) -> Result<IntegrityPolicy, String> {
    text.parse().map_err(|error: atrest::Error| error.to_string())
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

/// Bytes with three significant digits, in powers of 1024.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    // Where three digits would round up to 1024.
    while value >= 1023.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A count with a comma every three digits.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and its noun, with an s where there is not just one.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

/// The largest unit and the next, as in `2d 4h`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours) = (seconds / DAY_S, seconds % DAY_S / HOUR_S);
    let minutes = seconds % HOUR_S / MINUTE_S;
    let text = match (days, hours, minutes) {
        (0, 0, 0) => return format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {}s", seconds % MINUTE_S),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    };
    // "30d" rather than "30d 0h".
    text.split_once(" 0").map_or(text.clone(), |(whole, _)| whole.to_owned())
}

/// RFC 3339 in UTC, to the second.
pub(crate) fn time(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (year, month, day) = civil(seconds / DAY_S);
    let (hour, minute) = (seconds % DAY_S / HOUR_S, seconds % HOUR_S / MINUTE_S);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", seconds % MINUTE_S)
}

/// Year, month and day of a number of days since 1970, in the Gregorian calendar.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let leap = |year: u64| {
        (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
    };
    let mut year = 1970;
    loop {
        let length = if leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        assert_eq!(parse_duration("30d"), Ok(Duration::from_secs(30 * DAY_S)));
        assert_eq!(parse_duration("90 m"), Ok(Duration::from_secs(5400)));
        for bad in ["", "d", "30", "0d", "-1d", "1.5h", "30days", "99999999999999999w", "900w9"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
        let written = |s| duration(Duration::from_secs(s));
        assert_eq!(written(59), "59s");
        assert_eq!(written(61), "1m 1s");
        assert_eq!(written(30 * DAY_S), "30d");
        assert_eq!(written(DAY_S + 10 * HOUR_S), "1d 10h");
    }

    #[test]
    fn bytes_are_read_and_written() {
        assert_eq!(parse_bytes("64KiB"), Ok(65_536));
        assert_eq!(parse_bytes("10 GB"), Ok(10_000_000_000));
        assert_eq!(parse_bytes("7"), Ok(7));
        for bad in ["", "KiB", "0", "1.5MiB", "3 furlongs", "99999999999TiB"] {
            assert!(parse_bytes(bad).is_err(), "{bad}");
        }
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.00 KiB");
        assert_eq!(bytes((1 << 20) - 1), "1.00 MiB");
        assert_eq!(bytes(12_345_678), "11.8 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        assert_eq!(count(1_234_567), "1,234,567");
    }

    #[test]
    fn times_are_civil() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(951_782_400_000_000_000), "2000-02-29T00:00:00Z");
        assert_eq!(time(1_764_547_199_000_000_000), "2025-11-30T23:59:59Z");
        assert_eq!(time(u64::MAX), "2554-07-21T23:34:33Z");
    }
}
