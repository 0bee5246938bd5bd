//! Numbers with units, as flags take them.

use std::{str::FromStr, time::Duration};

/// A duration of whole milliseconds, seconds, minutes or hours: `250ms`, `2s`, `1m`, `1h`.
///
/// # Errors
///
/// [`InvalidUnit`] without a number or a unit, and above a year.
pub fn duration(text: &str) -> Result<Duration, InvalidUnit> {
    let (number, unit) = split(text).ok_or(InvalidUnit::Duration)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(InvalidUnit::Duration),
    };
    let duration = number.checked_mul(millis).map(Duration::from_millis).ok_or(InvalidUnit::TooLong)?;
    if duration > YEAR { Err(InvalidUnit::TooLong) } else { Ok(duration) }
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A [`duration`] of at least a millisecond.
///
/// # Errors
///
/// As [`duration`], and for zero.
pub fn positive(text: &str) -> Result<Duration, InvalidUnit> {
    match duration(text)? {
        Duration::ZERO => Err(InvalidUnit::Zero),
        duration => Ok(duration),
    }
}

/// A number of bytes: `512B`, `64KiB`, `1MiB`, `1GiB`. At least one.
///
/// # Errors
///
/// [`InvalidUnit`] without a number or a unit, for zero, and above what memory can hold.
pub fn size(text: &str) -> Result<usize, InvalidUnit> {
    let (number, unit) = split(text).ok_or(InvalidUnit::Size)?;
    let bytes: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(InvalidUnit::Size),
    };
    let size = number.checked_mul(bytes).and_then(|size| usize::try_from(size).ok());
    size.filter(|size| *size > 0).ok_or(InvalidUnit::Size)
}

/// The number and what follows it.
fn split(text: &str) -> Option<(u64, &str)> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    Some((number.parse().ok()?, unit))
}

/// How long a leg has to be silent before a move closes it: `auto`, or a [`duration`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Quiet {
    /// Twice the longest time from a client's message to the app's next, among the connection's last 16; at least
    /// 100 ms, at most 2 s.
    #[default]
    Auto,
    /// Always so long.
    For(Duration),
}

impl FromStr for Quiet {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        match text {
            "auto" => Ok(Self::Auto),
            text => duration(text).map(Self::For).map_err(|error| match error {
                InvalidUnit::Duration => InvalidUnit::Quiet,
                other => other,
            }),
        }
    }
}

/// Text that is no number with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidUnit {
    /// Not a duration.
    #[error("expected a whole number with a unit (ms, s, m or h), such as 250ms, 2s or 1m")]
    Duration,
    /// Neither `auto` nor a duration.
    #[error("expected auto, or a whole number with a unit (ms, s, m or h), such as 250ms or 2s")]
    Quiet,
    /// A duration of zero where there has to be some.
    #[error("expected more than zero, such as 250ms, 2s or 1m")]
    Zero,
    /// More than a year.
    #[error("expected at most a year (8760h)")]
    TooLong,
    /// Not a size.
    #[error("expected a whole number above zero with a unit (B, KiB, MiB or GiB), such as 64KiB or 1MiB")]
    Size,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, millis) in [("250ms", 250), ("2s", 2_000), ("1m", 60_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "2", "s", "2 s", " 2s", "-2s", "+2s", "1.5s", "2S", "2sec", "1m30s", "99999999999999999999s"]
        {
            assert_eq!(duration(text), Err(InvalidUnit::Duration), "{text}");
        }
        assert_eq!(duration("18446744073709551615h"), Err(InvalidUnit::TooLong));
        assert_eq!(duration("8761h"), Err(InvalidUnit::TooLong));
        assert_eq!(positive("0ms"), Err(InvalidUnit::Zero));
        assert_eq!(positive("1ms"), Ok(Duration::from_millis(1)));
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("1B", 1), ("64KiB", 65_536), ("1MiB", 1_048_576), ("1GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "64", "KiB", "64kb", "64KB", "64K", "0B", "0.5MiB", "-1B", "18446744073709551615GiB"]
        {
            assert_eq!(size(text), Err(InvalidUnit::Size), "{text}");
        }
    }

    #[test]
    fn quiet_is_auto_or_a_duration() {
        assert_eq!("auto".parse(), Ok(Quiet::Auto));
        assert_eq!("300ms".parse(), Ok(Quiet::For(Duration::from_millis(300))));
        assert_eq!("Auto".parse::<Quiet>(), Err(InvalidUnit::Quiet));
    }
}
