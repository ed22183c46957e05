//! Bars, one below the other: what something costs, of what parts, how far its rounds lie apart.
//!
//! Each has its name and figure above it rather than beside it, so that a telephone's width goes to the bars. Every round is
//! a dot; one far outside is drawn as a triangle at the edge, so that it does not squeeze the others.

use super::axis::Axis;
use super::drawing::{Anchor, Drawing, Marker, WIDTH};
use crate::stats::Summary;

/// What is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it is of.
    pub name: String,
    /// Its figure as text.
    pub figure: String,
    /// The parts that it consists of: class and size. Together they are as long as the bar.
    pub parts: Vec<(&'static str, f64)>,
    /// The middle half of the rounds.
    pub spread: Summary,
    /// Each round: a few words, and its figure.
    pub rounds: Vec<(String, f64)>,
}

/// A figure beyond so many times the largest third quartile is drawn at the edge.
const FAR: f64 = 1.5;

const MARGIN: f64 = 10.0;
const ROW: f64 = 38.0;
const BAR: f64 = 13.0;
/// From one line of keys to the next, and how wide the key of the rounds is.
const LINE: f64 = 17.0;
const ROUNDS: f64 = 160.0;

/// Class and meaning of those parts that a bar has something of: of others there is no key.
pub fn present<'a, T>(parts: &[(&'static str, &'a str, T)], bars: &[Bar]) -> Vec<(&'static str, &'a str)> {
    let has = |class: &str| {
        bars.iter().flat_map(|bar| &bar.parts).any(|(each, size)| *each == class && *size > 0.0)
    };
    parts.iter().filter(|(class, ..)| has(class)).map(|(class, meaning, _)| (*class, *meaning)).collect()
}

/// Draws bars. `parts` is what their classes mean, `axis` what is written below.
pub fn bars(
    name: &str,
    title: &str,
    alt: String,
    parts: &[(&'static str, &str)],
    axis: &str,
    bars: &[Bar],
) -> Drawing {
    let undivided = bars.iter().any(|bar| bar.parts.iter().any(|(class, _)| *class == "total"));
    let parts: Vec<(&str, &str)> =
        parts.iter().copied().chain(undivided.then_some(("total", "not divided"))).collect();
    // What was seen once has no spread.
    let has_rounds = bars.iter().any(|bar| !bar.rounds.is_empty());
    let (places, (x, line)) = keys(&parts, has_rounds);
    let top = 46.0 + line;
    let bottom = top + ROW * bars.len() as f64 + 2.0;
    let mut drawing = Drawing::new(name, title, alt, bottom + 38.0);
    drawing.text((MARGIN, 16.0), Anchor::Start, "strong", title);
    for ((class, meaning), (x, line)) in parts.iter().zip(places) {
        drawing.filled(x, line + 25.0, 11.0, 11.0, class);
        drawing.text((x + 16.0, line + 34.5), Anchor::Start, "small", meaning);
    }
    if has_rounds {
        drawing.line((x + 2.0, line + 30.5), (x + 22.0, line + 30.5), "spread");
        drawing.text((x + 27.0, line + 34.5), Anchor::Start, "small", "middle half");
        drawing.point((x + 104.0, line + 30.5), 2.4, Marker::Disc, "dot", "");
        drawing.text((x + 111.0, line + 34.5), Anchor::Start, "small", "a round");
    }

    let reach = bars.iter().map(|bar| bar.spread.high).fold(0.0, f64::max) * FAR;
    let rounds = || bars.iter().flat_map(|bar| bar.rounds.iter().map(|(_, figure)| *figure));
    let spreads = bars.iter().flat_map(|bar| [bar.spread.low, bar.spread.high]);
    let scale = Axis::linear(
        spreads.chain(rounds().filter(|figure| *figure <= reach && *figure >= -reach)),
        (MARGIN + 2.0, WIDTH - MARGIN - 14.0),
    );
    for figure in scale.ticks() {
        let text = tick(figure);
        // Not cut off at the edge: a digit is about six wide.
        let x = scale.place(figure).max(3.0 * text.chars().count() as f64 + 4.0);
        drawing.text((x, bottom + 14.0), Anchor::Middle, "small", &text);
    }
    drawing.text((WIDTH / 2.0, bottom + 30.0), Anchor::Middle, "small", axis);

    for (row, bar) in bars.iter().enumerate() {
        let y = top + ROW * row as f64 + 14.0;
        drawing.text((MARGIN, y), Anchor::Start, "strong", &shortened(&bar.name, 34));
        drawing.text((WIDTH - MARGIN, y), Anchor::End, "figure", &bar.figure);
        let y = y + 5.0;
        for figure in scale.ticks() {
            let (x, class) = (scale.place(figure), if figure == 0.0 { "axis" } else { "grid" });
            drawing.line((x, y - 1.0), (x, y + BAR + 1.0), class);
        }
        let mut from = 0.0;
        for (class, size) in &bar.parts {
            let (start, end) = (scale.place(from), scale.place(from + size));
            drawing.filled(start, y, end - start, BAR, class);
            from += size;
        }
        let middle = y + BAR / 2.0;
        if has_rounds {
            let (low, high) = (scale.place(bar.spread.low), scale.place(bar.spread.high));
            drawing.line((low, middle), (high, middle), "spread");
            for end in [low, high] {
                drawing.line((end, middle - 4.0), (end, middle + 4.0), "spread");
            }
        }
        for (round, (words, figure)) in bar.rounds.iter().enumerate() {
            // Not all on one line, so that equal ones can be counted.
            let place = (scale.place(*figure), middle + [0.0, -3.5, 3.5][round % 3]);
            if scale.holds(*figure) {
                drawing.point(place, 2.4, Marker::Disc, "dot", words);
            } else {
                drawing.point(place, 4.0, Marker::Triangle, "far", words);
            }
        }
    }
    drawing
}

/// Where the keys of parts stand, and then that of the rounds: how far from the left, how far below the first line.
fn keys(parts: &[(&str, &str)], has_rounds: bool) -> (Vec<(f64, f64)>, (f64, f64)) {
    let (mut x, mut line) = (MARGIN, 0.0);
    let mut place = |width: f64| {
        if x > MARGIN && x + width > WIDTH {
            (x, line) = (MARGIN, line + LINE);
        }
        let place = (x, line);
        x += width;
        place
    };
    let places = parts.iter().map(|(_, meaning)| place(30.0 + 6.0 * meaning.chars().count() as f64));
    (places.collect(), place(if has_rounds { ROUNDS } else { 0.0 }))
}

/// A figure beside an axis.
pub fn tick(figure: f64) -> String {
    let size = figure.abs();
    match size {
        0.0 => "0".to_owned(),
        _ if size >= 1e6 => format!("{}M", short(figure / 1e6)),
        _ if size >= 1e4 => format!("{}k", short(figure / 1e3)),
        _ => short(figure),
    }
}

/// As few digits as it takes, three at most behind the point.
fn short(figure: f64) -> String {
    let text = format!("{figure:.3}");
    text.trim_end_matches('0').trim_end_matches('.').replace('-', "−")
}

/// A name that fits.
pub fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_short() {
        assert_eq!(tick(0.5), "0.5");
        assert_eq!(tick(-20.0), "−20");
        assert_eq!(tick(1_500_000.0), "1.5M");
        assert_eq!(tick(20_000.0), "20k");
    }

    #[test]
    fn a_round_far_outside_does_not_squeeze_the_others() {
        let spread = Summary { median: 10.0, low: 9.0, high: 11.0 };
        let rounds = [9.0, 10.0, 11.0, 5000.0].map(|figure| (String::new(), figure)).to_vec();
        let bar =
            Bar { name: "a".into(), figure: "10".into(), parts: vec![("kernel", 10.0)], spread, rounds };
        let svg = bars("x", "x", String::new(), &[], "µs", &[bar]).inline();
        assert!(svg.contains(r#"class="far""#) && !svg.contains(">5000<"), "{svg}");
    }
}
