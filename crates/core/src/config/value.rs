//! Values with units: durations.
//!
//! Deliberately absent: fractions and sums ("1.5h", "1h30m"); each has one spelling, a whole number and a
//! unit.

use std::fmt;
use std::time::Duration;

/// The units and their length in milliseconds.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// What is wrong with a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationError {
    /// No unit.
    NoUnit,
    /// Not a whole number and a unit.
    Shape,
    /// Longer than can be counted in milliseconds.
    TooLong,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoUnit => "the unit is missing",
            Self::Shape => "not a duration",
            Self::TooLong => "the duration is too long",
        })
    }
}

impl std::error::Error for DurationError {}

/// Parses a whole number and a unit (`ms`, `s`, `m`, `h`, `d`).
///
/// # Errors
/// What is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(DurationError::Shape);
    }
    if unit.is_empty() {
        return Err(DurationError::NoUnit);
    }
    let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(DurationError::Shape)?;
    let number: u64 = number.parse().map_err(|_| DurationError::TooLong)?;
    number.checked_mul(*factor).map(Duration::from_millis).ok_or(DurationError::TooLong)
}

/// What units are called elsewhere, in the order of [`UNITS`].
const UNITS_ELSEWHERE: [&[&str]; 5] = [
    &["ms", "msec", "msecs", "millis", "millisecond", "milliseconds"],
    &["s", "sec", "secs", "second", "seconds"],
    &["m", "min", "mins", "minute", "minutes"],
    &["h", "hr", "hrs", "hour", "hours"],
    &["d", "day", "days"],
];

/// The duration that someone probably meant by whole numbers with units as they are written elsewhere (`5 s`, `1m30s`,
/// `10sec`), for hints only.
pub fn guess_duration(text: &str) -> Option<Duration> {
    let (lower, mut millis) = (text.to_ascii_lowercase(), 0_u64);
    let mut rest = lower.trim();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (word, after) = after.split_at(letters);
        let unit = UNITS_ELSEWHERE.iter().position(|words| words.contains(&word))?;
        let part = number.parse::<u64>().ok()?.checked_mul(UNITS[unit].1)?;
        millis = millis.checked_add(part)?;
        rest = after.trim_start();
    }
    Some(Duration::from_millis(millis))
}

/// The shortest spelling that [`parse_duration`] reads back, for whole milliseconds.
pub fn format_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let whole = UNITS
        .iter()
        .rev()
        .find(|(_, factor)| millis >= u128::from(*factor) && millis.is_multiple_of(u128::from(*factor)));
    let (unit, factor) = whole.unwrap_or(&UNITS[1]);
    format!("{}{unit}", millis / u128::from(*factor))
}
