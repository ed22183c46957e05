//! Words, numbers and durations against what their keys take.
//!
//! Deliberately absent: where a value stands in the tree, which is the reader's business.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeInteger;

use crate::config::Text;
use crate::config::keys::{Bounds, Key};
use crate::config::nearest::nearest;
use crate::config::value::{DurationError, format_duration, guess_duration, parse_duration};
use crate::diagnostic::{Diagnostic, Span, quote};

/// The word that a text names.
///
/// # Errors
/// The words there are, the nearest first.
pub fn choose(
    key: &str,
    words: &'static [&'static str],
    elsewhere: &[(&str, &str)],
    text: &Text,
) -> Result<&'static str, Diagnostic> {
    if let Some(word) = words.iter().find(|word| **word == text.value) {
        return Ok(word);
    }
    let all = words.join(", ");
    let lower = text.value.to_ascii_lowercase();
    let called = elsewhere.iter().find(|(other, _)| *other == lower);
    let hint = match (called, nearest(&text.value, words.iter().copied())) {
        (Some((_, word)), _) => format!("Portway calls it `{word}`. There is {all}"),
        (None, Some(near)) => format!("did you mean `{near}`? There is {all}"),
        (None, None) => format!("there is {all}"),
    };
    Err(Diagnostic::error(text.inside(), format!("`{key}` cannot be {}", quote(&text.value))).hint(hint))
}

/// A whole number within its bounds.
///
/// # Errors
/// The bounds.
pub fn bounded_number(
    key: &Key,
    bounds: RangeInclusive<u32>,
    number: &DeInteger<'_>,
    span: &Span,
) -> Result<u32, Diagnostic> {
    let text = number.as_str().replace('_', "");
    let number =
        i128::from_str_radix(&text, number.radix()).ok().and_then(|number| u32::try_from(number).ok());
    let small = text.starts_with('-') || number.is_some_and(|number| number < *bounds.start());
    number.filter(|number| bounds.contains(number)).ok_or_else(|| {
        let (least, most) = bounds.into_inner();
        let hint = if small { "leave the key out for the default" } else { key.too_large };
        Diagnostic::error(span.clone(), format!("`{}` is from {least} to {most}", key.name)).hint(hint)
    })
}

/// A duration within its bounds.
///
/// # Errors
/// What is wrong with it, and a hint.
pub fn bounded_duration(key: &Key, bounds: &Bounds, text: &str) -> Result<Duration, (String, String)> {
    let units = "a whole number and a unit: 500ms, 2s, 5m, 1h, 1d".to_owned();
    let duration = parse_duration(text).map_err(|error| match error {
        DurationError::NoUnit => {
            (format!("`{}`: {error}", key.name), format!("for example {text}s; a duration is {units}"))
        }
        DurationError::Shape => {
            let meant = guess_duration(text).filter(|meant| (bounds.least..=bounds.most).contains(meant));
            let write = meant
                .map(|meant| format!("write {} = \"{}\"; ", key.name, format_duration(meant)))
                .unwrap_or_default();
            (format!("`{}`: {} is {error}", key.name, quote(text)), format!("{write}a duration is {units}"))
        }
        DurationError::TooLong => {
            (format!("`{}`: {error}", key.name), format!("at most {}", format_duration(bounds.most)))
        }
    })?;
    let limits = format!("from {} to {}", format_duration(bounds.least), format_duration(bounds.most));
    if duration.is_zero() {
        return Err((
            format!("`{}` cannot be zero", key.name),
            format!("{limits}; leave the key out for the default"),
        ));
    }
    if duration < bounds.least || duration > bounds.most {
        let hint = if bounds.whole_seconds {
            "the kernel keeps it in seconds"
        } else {
            "leave the key out for the default"
        };
        return Err((format!("`{}` is {limits}", key.name), hint.to_owned()));
    }
    if bounds.whole_seconds && duration.subsec_nanos() != 0 {
        return Err((
            format!("`{}` counts whole seconds", key.name),
            "the kernel keeps it in seconds".to_owned(),
        ));
    }
    Ok(duration)
}
