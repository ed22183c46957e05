//! Lines that belong to lanes: the distribution of times, and cost along a series.
//!
//! Each line has its name at its end; lines of one kind of lane have one hue and differ by dash and marker.

use super::axis::Axis;
use super::bars::{shortened, tick};
use super::drawing::{Anchor, Drawing, Marker, WIDTH};
use crate::record::Kind;

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// The lane's name.
    pub name: String,
    /// The lane's kind: its hue.
    pub kind: Kind,
    /// Its points, growing.
    pub points: Vec<(f64, f64)>,
    /// Where along it points do not tell all, and what they keep silent.
    pub doubts: Vec<(f64, String)>,
}

/// What is written along the ground.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ground {
    /// Figures on a logarithmic axis.
    Counts,
    /// Shares of one on an axis that gives each further nine equal room, as percentiles.
    Shares,
}

const LEFT: f64 = 42.0;
const RIGHT: f64 = WIDTH - 126.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 290.0;
const LEADING: f64 = 13.0;
/// Half as wide as the ring around a point that does not tell all.
const RING: f64 = 5.5;

/// Draws lines. `up` is what is written above the upright axis, `along` below the other.
pub fn lines(
    name: &str,
    title: &str,
    alt: String,
    (ground, along): (Ground, &str),
    up: &str,
    lines: &[Line],
) -> Drawing {
    let mut drawing = Drawing::new(name, title, alt, BOTTOM + 40.0);
    drawing.text((10.0, 16.0), Anchor::Start, "strong", title);
    drawing.text((10.0, 32.0), Anchor::Start, "small", up);
    if lines.iter().any(|line| !line.doubts.is_empty()) {
        drawing.point((RIGHT - 84.0, 28.0), RING, Marker::Disc, "ring", "");
        drawing.text((RIGHT - 74.0, 32.0), Anchor::Start, "small", "some failed");
    }
    let heights: Vec<f64> = lines.iter().flat_map(|line| line.points.iter().map(|(_, y)| *y)).collect();
    let rise = Axis::fitting(&heights, (BOTTOM, TOP + 6.0));
    for figure in rise.ticks() {
        let y = rise.place(figure);
        drawing.line((LEFT, y), (RIGHT, y), if figure == 0.0 { "axis" } else { "grid" });
        drawing.text((LEFT - 5.0, y + 4.0), Anchor::End, "small", &tick(figure));
    }
    let widths = lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x));
    let run = match ground {
        Ground::Counts => Axis::logarithmic(widths, (LEFT, RIGHT)),
        Ground::Shares => Axis::logarithmic([1.0, 1e4].into_iter(), (LEFT, RIGHT)),
    };
    let across = |x: f64| match ground {
        Ground::Counts => run.place(x),
        Ground::Shares => run.place(1.0 / (1.0 - x.min(0.999_999))),
    };
    let marks: Vec<(f64, String)> = match ground {
        Ground::Counts => {
            run.ticks().into_iter().filter(|tick| is_power(*tick)).map(|x| (x, tick(x))).collect()
        }
        Ground::Shares => [(0.5, "50"), (0.9, "90"), (0.99, "99"), (0.999, "99.9"), (0.9999, "99.99")]
            .map(|(share, text)| (share, format!("{text} %")))
            .to_vec(),
    };
    for (x, text) in marks {
        let x = across(x);
        drawing.line((x, TOP + 6.0), (x, BOTTOM), "grid");
        drawing.text((x, BOTTOM + 15.0), Anchor::Middle, "small", &text);
    }
    drawing.text(((LEFT + RIGHT) / 2.0, BOTTOM + 32.0), Anchor::Middle, "small", along);

    let ends: Vec<f64> =
        lines.iter().map(|line| line.points.last().map_or(BOTTOM, |(_, y)| rise.place(*y))).collect();
    let labels = apart(&ends, LEADING, (TOP, BOTTOM + 6.0));
    let mut of_kind = [0_usize; 4];
    for (line, label) in lines.iter().zip(labels) {
        let (class, seen) = hue(line.kind, &mut of_kind);
        let (dash, marker) = LOOKS[seen % LOOKS.len()];
        let points: Vec<(f64, f64)> = line.points.iter().map(|(x, y)| (across(*x), rise.place(*y))).collect();
        let Some(end) = points.last().copied() else { continue };
        drawing.curve(&points, &format!("curve s-{class}"), dash);
        // A few markers tell lines apart; one for each point of a long line would hide it.
        let every = points.len().div_ceil(8);
        for (place, (x, y)) in points.iter().zip(&line.points).rev().step_by(every) {
            let at = if ground == Ground::Shares { format!("{:.2} %", x * 100.0) } else { tick(*x) };
            let words = format!("{}, {at}: {}", line.name, tick(*y));
            drawing.point(*place, 3.0, marker, &format!("f-{class}"), &words);
        }
        for (at, words) in &line.doubts {
            if let Some(place) = line.points.iter().position(|(x, _)| x == at) {
                let words = format!("{}, {}: {words}", line.name, tick(*at));
                drawing.point(points[place], RING, Marker::Disc, "ring", &words);
            }
        }
        drawing.curve(
            &[(end.0 + 4.0, end.1), (RIGHT + 8.0, label), (RIGHT + 12.0, label)],
            &format!("leader s-{class}"),
            "",
        );
        drawing.point((RIGHT + 17.0, label), 3.0, marker, &format!("f-{class}"), "");
        drawing.text((RIGHT + 24.0, label + 4.0), Anchor::Start, "label", &shortened(&line.name, 17));
    }
    drawing
}

/// How lines of one hue look.
const LOOKS: [(&str, Marker); 6] = [
    ("", Marker::Disc),
    ("6 3", Marker::Square),
    ("2 2.5", Marker::Triangle),
    ("8 2 2 2", Marker::Diamond),
    ("", Marker::Square),
    ("6 3", Marker::Disc),
];

/// The class of a kind, and how many lines of it there were before.
fn hue(kind: Kind, of_kind: &mut [usize; 4]) -> (&'static str, usize) {
    let (class, index) = match kind {
        Kind::Routing => ("routing", 0),
        Kind::Kernel => ("rules", 1),
        Kind::Program => ("program", 2),
        Kind::Portway => ("portway", 3),
    };
    of_kind[index] += 1;
    (class, of_kind[index] - 1)
}

fn is_power(figure: f64) -> bool {
    (figure.log10() - figure.log10().round()).abs() < 1e-6
}

/// Moves labels apart until each has its room, near to where they belong and within limits.
fn apart(wanted: &[f64], room: f64, limits: (f64, f64)) -> Vec<f64> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut placed = wanted.to_vec();
    let mut least = limits.0;
    for index in &order {
        placed[*index] = placed[*index].max(least);
        least = placed[*index] + room;
    }
    let mut most = limits.1;
    for index in order.iter().rev() {
        placed[*index] = placed[*index].min(most);
        most = placed[*index] - room;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_apart_and_in_order() {
        let placed = apart(&[100.0, 100.0, 99.0, 10.0], 13.0, (0.0, 110.0));
        assert_eq!(placed[3], 10.0);
        let mut rest = placed[..3].to_vec();
        rest.sort_by(f64::total_cmp);
        assert!(rest.windows(2).all(|pair| pair[1] - pair[0] >= 13.0) && rest[2] <= 110.0, "{placed:?}");
        assert!(placed[2] < placed[0]);
    }

    #[test]
    fn lines_of_one_kind_look_different() {
        let line = |name: &str| Line {
            name: name.into(),
            kind: Kind::Program,
            points: vec![(1.0, 5.0), (1000.0, 9.0)],
            doubts: Vec::new(),
        };
        let svg =
            lines("x", "x", String::new(), (Ground::Counts, "rules"), "µs", &[line("a"), line("b")]).inline();
        assert_eq!(svg.matches("stroke-dasharray").count(), 1, "{svg}");
        assert!(svg.contains("<circle class=\"f-program\"") && svg.contains("<polygon class=\"f-program\""));
    }
}
