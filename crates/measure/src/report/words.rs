//! Figures as text: as many digits as mean something, spread beside the median, and what is not there as a dash.

use super::document::NOTHING;
use crate::rounds::Rounds;
use crate::stats::Summary;

/// A figure with three digits that count, thousands apart.
pub fn figure(figure: f64) -> String {
    with_digits(figure, digits(figure))
}

/// A number of things.
pub fn count(count: u64) -> String {
    with_digits(count as f64, 0)
}

/// So many of what has that name: `1 round`, `3 rounds`.
pub fn number(count: usize, name: &str) -> String {
    format!("{} {name}{}", with_digits(count as f64, 0), if count == 1 { "" } else { "s" })
}

/// The median, and in brackets the middle half; of one round the figure alone.
pub fn spread(rounds: &Rounds) -> String {
    match rounds.summary() {
        None => NOTHING.to_owned(),
        Some(Summary { median, .. }) if rounds.len() == 1 => figure(median),
        Some(Summary { median, low, high }) => {
            // Of the median, unless it is nothing beside its own spread.
            let largest = low.abs().max(high.abs());
            let digits = digits(if median.abs() * 20.0 < largest { largest } else { median });
            let [median, low, high] = [median, low, high].map(|each| with_digits(each, digits));
            format!("{median} ({low}–{high})")
        }
    }
}

/// A share in percent: two digits that count, of what is left of the whole where that is less.
pub fn percent(share: f64) -> String {
    let digits = match share.min(100.0 - share) {
        size if size >= 9.95 || size <= 0.0 => 0,
        size if size >= 0.995 => 1,
        _ => 2,
    };
    format!("{} %", with_digits(share, digits))
}

/// With its unit, if it has one.
pub fn counted(text: &str, unit: &str) -> String {
    if unit.is_empty() { text.to_owned() } else { format!("{text} {unit}") }
}

/// A heading of a column with its unit.
pub fn column(title: &str, unit: &str) -> String {
    if unit.is_empty() { title.to_owned() } else { format!("{title}, {unit}") }
}

/// Bytes in the unit in which they are easily read.
pub fn bytes(bytes: f64) -> String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes;
    let mut unit = 0;
    while size.abs() >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{} {}", figure(size), units[unit])
}

/// A duration, to the second.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// A sentence of what is a clause: a capital first, a full stop at the end.
pub fn sentence(clause: &str) -> String {
    let mut letters = clause.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str().trim_end_matches('.'))
}

fn digits(figure: f64) -> usize {
    match figure.abs() {
        size if size >= 99.95 || size == 0.0 => 0,
        size if size >= 9.995 => 1,
        size if size >= 0.9995 => 2,
        _ => 3,
    }
}

fn with_digits(figure: f64, digits: usize) -> String {
    let text = format!("{:.digits$}", figure.abs());
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let is_zero = text.chars().all(|each| matches!(each, '0' | '.'));
    let sign = if figure < 0.0 && !is_zero { "−" } else { "" };
    format!("{sign}{grouped}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_count() {
        let texts = [12_602.4, 134.3, 15.42, 1.0604, 0.2654, -0.202, 0.0, -0.0001, 1_234_567.0].map(figure);
        assert_eq!(texts, ["12,602", "134", "15.4", "1.06", "0.265", "−0.202", "0", "0.000", "1,234,567"]);
    }

    #[test]
    fn the_middle_half_has_the_digits_of_the_median() {
        let rounds: Rounds = (0..).zip([8.3, 15.4, 120.2]).collect();
        assert_eq!(spread(&rounds), "15.4 (11.9–67.8)");
        assert_eq!(spread(&Rounds::default()), "–");
    }

    #[test]
    fn nearly_all_is_not_all() {
        let texts = [0.15, 3.21, 9.96, 50.0, 97.34, 99.97, 100.0].map(percent);
        assert_eq!(texts, ["0.15 %", "3.2 %", "10 %", "50 %", "97.3 %", "99.97 %", "100 %"]);
    }

    #[test]
    fn one_is_no_plural() {
        assert_eq!([0, 1, 2].map(|count| number(count, "load")), ["0 loads", "1 load", "2 loads"]);
    }

    #[test]
    fn bytes_are_read_easily() {
        assert_eq!(bytes(153.7), "154 bytes");
        assert_eq!(bytes(2.5 * 1024.0 * 1024.0), "2.50 MiB");
    }
}
